"""Scores of predicted label values, from indices within each label; numpy only."""

from __future__ import annotations

from typing import Any

import numpy as np

from ultralight.schema import LabelSchema

# Of all labels together.
OVERALL = ("micro_f1", "macro_f1", "exact_match")


def f1_score(true_positives: float, predicted: float, actual: float) -> float:
    """F1 from counts; 0 where nothing was predicted and nothing was there."""
    return float(2 * true_positives / (predicted + actual)) if predicted + actual else 0.0


def overall(scores: dict[str, Any]) -> dict[str, float]:
    """The scores of all labels together, out of what `score` returns."""
    return {name: scores[name] for name in OVERALL}


def score(predictions: np.ndarray, references: np.ndarray, schema: LabelSchema) -> dict[str, Any]:
    """Scores predictions over (label, value) pairs; absent values are no pairs.

    Args:
        predictions: index of the predicted value within each label (queries, labels).
        references: index of the right value within each label (queries, labels).
        schema: names the labels.

    Returns:
        `micro_f1` over all pairs; `macro_f1`, the mean F1 of the values that stand in the references or predictions;
        `exact_match`, the share of queries with every label right; `per_label`: `accuracy`, `f1` and `support` (number
        of pairs in the references) of each label. All between 0 and 1 but the support.

    Raises:
        ValueError: the shapes differ.
    """
    predictions, references = np.asarray(predictions), np.asarray(references)
    if predictions.shape != references.shape:
        raise ValueError(f"predictions {predictions.shape} and references {references.shape} differ in shape")
    right = predictions == references
    per_label, value_scores, totals = {}, [], np.zeros(3)
    for column, (label, names) in enumerate(schema.values.items()):
        counts = np.array(
            [
                [
                    np.sum(right[:, column] & (references[:, column] == value)),
                    np.sum(predictions[:, column] == value),
                    np.sum(references[:, column] == value),
                ]
                for value in range(1, len(names))
            ]
        )
        totals += counts.sum(axis=0)
        value_scores += [f1_score(*row) for row in counts if row[1] + row[2] > 0]
        per_label[label] = {
            "accuracy": float(right[:, column].mean()),
            "f1": f1_score(*counts.sum(axis=0)),
            "support": int(counts[:, 2].sum()),
        }
    return {
        "micro_f1": f1_score(*totals),
        "macro_f1": float(np.mean(value_scores)) if value_scores else 0.0,
        "exact_match": float(right.all(axis=1).mean()),
        "per_label": per_label,
    }
