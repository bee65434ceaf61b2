"""The linear model that a small network has to beat, and can learn from: TF-IDF of character n-grams, one logistic regression a label."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from ultralight.progress import progress
from ultralight.schema import LabelSchema

NGRAMS = (1, 3)
C = 10.0
ITERATIONS = 300


class LinearClassifier:
    """Logistic regressions over TF-IDF-weighted character 1- to 3-grams, one regression a label.

    Args:
        schema: the labels.
        ngrams: shortest and longest n-gram.
        strength: inverse strength of the regularisation.
        sublinear: count an n-gram that a query repeats by the logarithm.
    """

    def __init__(self, schema: LabelSchema, ngrams: tuple[int, int] = NGRAMS, strength: float = C, sublinear: bool = True) -> None:
        self.schema = schema
        self.strength = strength
        self.vectorizer = TfidfVectorizer(analyzer="char", ngram_range=ngrams, min_df=2, sublinear_tf=sublinear)
        self.regressions: list[LogisticRegression | int] = []

    def fit(self, queries: Sequence[str], labels: np.ndarray) -> LinearClassifier:
        """Learns from queries and the index of the right value within each label (queries, labels)."""
        features = self.vectorizer.fit_transform(queries)
        self.regressions = [
            LogisticRegression(C=self.strength, max_iter=ITERATIONS).fit(features, column) if len(set(column)) > 1 else int(column[0])
            for column in progress(np.asarray(labels).T, "training the linear model", "labels", len(self.schema.labels))
        ]
        return self

    def probabilities(self, queries: Sequence[str]) -> np.ndarray:
        """Probability of each value within its label (queries, sum of values)."""
        features = self.vectorizer.transform(queries)
        answer = np.zeros((len(queries), self.schema.num_values))
        for (_, columns), regression in zip(self.schema.slices(), self.regressions, strict=True):
            within = answer[:, columns]
            if isinstance(regression, int):  # the training queries hold this value only
                within[:, regression] = 1
            else:
                within[:, regression.classes_] = regression.predict_proba(features)
        return answer
