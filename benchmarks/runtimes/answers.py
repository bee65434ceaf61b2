"""Probabilities to answers, for the runtimes that have no code of their own for it; numpy only."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

LABELS_FILE = "labels.json"
NEUTRAL = 0.5


class Answers:
    """Decides as `ultra_light_predictor.decide` does, for all labels in one step, and names the values.

    Args:
        schema: label -> its values, the absent one first.
        thresholds: label -> probability of the absent value from which on the label is absent (0.5 where left out).
    """

    def __init__(self, schema: Mapping[str, Sequence[str]], thresholds: Mapping[str, float]) -> None:
        self.labels = list(schema)
        self.values = [list(values) for values in schema.values()]
        self.sizes = [len(values) for values in self.values]
        self._thresholds = np.array([thresholds.get(label, NEUTRAL) for label in self.labels])
        self._absent = np.cumsum([0, *self.sizes[:-1]])
        widest = max(self.sizes) - 1
        # A label with fewer values than the widest repeats its last one: argmax then still finds the first of equals.
        self._present = np.array(
            [[start + 1 + min(step, size - 2) for step in range(widest)] for start, size in zip(self._absent, self.sizes, strict=True)]
        )

    def decide(self, probabilities: np.ndarray) -> np.ndarray:
        """Index of the chosen value within each label (batch, labels), from probabilities (batch, sum of values)."""
        best = 1 + probabilities[:, self._present].argmax(axis=-1)
        best[probabilities[:, self._absent] >= self._thresholds] = 0
        return best

    def name(self, probabilities: np.ndarray) -> list[dict[str, str]]:
        """Label -> value of what is not absent, for each query."""
        return [
            {self.labels[column]: self.values[column][value] for column, value in enumerate(row) if value}
            for row in self.decide(probabilities).tolist()
        ]


class ProbabilityRuntime:
    """Base of the runtimes that compute probabilities; subclasses define `probabilities`.

    Args:
        answers: schema and thresholds.
    """

    def __init__(self, answers: Answers) -> None:
        self.answers = answers

    def probabilities(self, queries: Sequence[str]) -> np.ndarray:
        """Probability of every value within its label (batch, sum of values)."""
        raise NotImplementedError

    def predict(self, query: str) -> dict[str, str]:
        """Label -> value of one query."""
        return self.answers.name(self.probabilities([query]))[0]

    def predict_batch(self, queries: Sequence[str]) -> list[dict[str, str]]:
        """Label -> value of each query, computed at once."""
        return self.answers.name(self.probabilities(queries))


def read_answers(folder: Path) -> Answers:
    """Reads the labels file of a trained peer."""
    content: dict[str, Any] = json.loads((folder / LABELS_FILE).read_text(encoding="utf-8"))
    return Answers(content["schema"], content["thresholds"])


def softmax_within(scores: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """Softmax of raw scores (batch, sum of sizes) within each label."""
    starts = np.cumsum([0, *sizes[:-1]])
    powers = np.exp(scores - np.repeat(np.maximum.reduceat(scores, starts, axis=1), sizes, axis=1))
    return powers / np.repeat(np.add.reduceat(powers, starts, axis=1), sizes, axis=1)
