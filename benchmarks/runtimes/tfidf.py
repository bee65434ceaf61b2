"""TF-IDF and logistic regressions in scikit-learn, the regressions of all labels as one matrix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import joblib
import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from benchmarks.runtimes.answers import ProbabilityRuntime, read_answers, softmax_within

MODEL_FILE = "model.joblib"


class Runtime(ProbabilityRuntime):
    """Answers with scikit-learn, which works on one thread here.

    Args:
        folder: model and labels.
        threads: ignored.
    """

    def __init__(self, folder: Path, threads: int) -> None:
        super().__init__(read_answers(folder))
        self.vectorizer: TfidfVectorizer
        self.vectorizer, self.weights, self.bias = joblib.load(folder / MODEL_FILE)

    def probabilities(self, queries: Sequence[str]) -> np.ndarray:
        """Probability of every value within its label (batch, sum of values)."""
        return softmax_within(self.vectorizer.transform(queries) @ self.weights + self.bias, self.answers.sizes)
