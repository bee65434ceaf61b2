"""Tunes, per label, how sure the model must be that a label is absent."""

from __future__ import annotations

import numpy as np

from ultra_light_predictor import DEFAULT_THRESHOLD, decide
from ultralight.schema import LabelSchema
from ultralight.scores import f1_score

GRID = np.round(np.arange(0.10, 0.905, 0.05), 2)
ROUNDS = 3


def tune_thresholds(probabilities: np.ndarray, references: np.ndarray, schema: LabelSchema) -> dict[str, float]:
    """Finds thresholds with a high micro-F1 that also holds on other queries.

    The best threshold of each label, found by coordinate ascent, fits the noise of few validation queries; the best one
    that all labels share ignores what they differ in. Halfway between them scored best on queries that neither saw.

    Args:
        probabilities: probability of each value within its label on validation queries (queries, sum of values).
        references: index of the right value within each label (queries, labels).
        schema: the labels.

    Returns:
        label -> probability of the absent value from which on the label is absent.
    """
    counts = _count(probabilities, references, schema)
    actual = int((references > 0).sum())
    # Of equally good thresholds the one nearest to the neutral one.
    order = np.argsort(np.abs(GRID - DEFAULT_THRESHOLD), kind="stable")
    shared = max(order, key=lambda index: _f1(counts[:, index].sum(axis=0), actual))
    own = np.full(len(counts), shared)
    for _ in range(ROUNDS):
        for label in range(len(counts)):
            others = counts[np.arange(len(counts)), own].sum(axis=0) - counts[label, own[label]]
            own[label] = max(order, key=lambda index: _f1(others + counts[label, index], actual))
    halfway = (GRID[own] + GRID[shared]) / 2
    return {label: round(float(threshold), 4) for label, threshold in zip(schema.labels, halfway, strict=True)}


def decide_by(thresholds: dict[str, float], probabilities: np.ndarray, schema: LabelSchema) -> np.ndarray:
    """Index of the chosen value within each label (queries, labels), by what `tune_thresholds` returned."""
    return decide(probabilities, schema.sizes, np.array([thresholds[label] for label in schema.labels]))


def _count(probabilities: np.ndarray, references: np.ndarray, schema: LabelSchema) -> np.ndarray:
    """Right pairs and predicted pairs of each label at each threshold (labels, thresholds, 2)."""
    counts = np.zeros((len(schema.labels), len(GRID), 2))
    for index, threshold in enumerate(GRID):
        chosen = decide(probabilities, schema.sizes, np.full(len(schema.labels), threshold))
        counts[:, index, 0] = ((chosen == references) & (chosen > 0)).sum(axis=0)
        counts[:, index, 1] = (chosen > 0).sum(axis=0)
    return counts


def _f1(counts: np.ndarray, actual: int) -> float:
    right, predicted = counts
    return f1_score(right, predicted, actual)
