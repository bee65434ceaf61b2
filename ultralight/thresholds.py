"""Tunes, per label, how sure the model must be that a label is absent."""

from __future__ import annotations

import numpy as np

from ultra_light_predictor import DEFAULT_THRESHOLD, decide
from ultralight.schema import LabelSchema
from ultralight.scores import f1_score

GRID = np.round(np.arange(0.10, 0.905, 0.05), 2)
ROUNDS = 3


def tune_thresholds(probabilities: np.ndarray, references: np.ndarray, schema: LabelSchema) -> dict[str, float]:
    """Finds the thresholds with the best micro-F1 by coordinate ascent, one label at a time.

    Args:
        probabilities: probability of each value within its label on validation queries (queries, sum of values).
        references: index of the right value within each label (queries, labels).
        schema: the labels.

    Returns:
        label -> probability of the absent value from which on the label is absent; of equally good ones the nearest to 0.5.
    """
    sizes = schema.sizes
    # counts[label, threshold]: right pairs, predicted pairs
    counts = np.zeros((len(sizes), len(GRID), 2))
    for index, threshold in enumerate(GRID):
        chosen = decide(probabilities, sizes, np.full(len(sizes), threshold))
        counts[:, index, 0] = ((chosen == references) & (chosen > 0)).sum(axis=0)
        counts[:, index, 1] = (chosen > 0).sum(axis=0)
    actual = int((references > 0).sum())
    nearest_first = np.argsort(np.abs(GRID - DEFAULT_THRESHOLD), kind="stable")
    picked = np.full(len(sizes), nearest_first[0])
    for _ in range(ROUNDS):
        for label in range(len(sizes)):
            others = sum(counts[other, picked[other]] for other in range(len(sizes)) if other != label)
            picked[label] = max(nearest_first, key=lambda index: f1_score(*(others + counts[label, index]), actual))
    return {label: float(GRID[index]) for label, index in zip(schema.labels, picked, strict=True)}
