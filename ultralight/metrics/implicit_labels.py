"""The project's metric as a local `evaluate` module: nothing is fetched at run time."""

from __future__ import annotations

from typing import Any

import datasets
import evaluate
import numpy as np

from ultralight.schema import LabelSchema
from ultralight.scores import score


class ImplicitLabels(evaluate.Metric):
    """micro-F1, macro-F1, exact match and per-label scores over (label, value) pairs, absent values left out.

    `compute` takes `predictions` and `references` (index of the value within each label, one row a query) and the
    `label_schema` (label -> values).
    """

    def _info(self) -> evaluate.MetricInfo:
        indices = datasets.Sequence(datasets.Value("int64"))
        return evaluate.MetricInfo(
            description="Scores of implicit label prediction",
            citation="",
            inputs_description="predictions and references: index of the value within each label, one row a query",
            features=datasets.Features({"predictions": indices, "references": indices}),
        )

    def _compute(self, predictions: Any, references: Any, label_schema: dict[str, list[str]]) -> dict[str, Any]:
        return score(np.array(predictions), np.array(references), LabelSchema.from_dict(label_schema))
