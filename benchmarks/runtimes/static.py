"""A static model as Model2Vec's: the mean of token embeddings, and linear heads; tokenizers and numpy only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from benchmarks.runtimes.answers import ProbabilityRuntime, read_answers, softmax_within

WEIGHTS = "weights.npz"


class Runtime(ProbabilityRuntime):
    """Answers with numpy, which works on one thread here; the tokenizer splits batches on as many as it may.

    Args:
        folder: tokenizer, weights and labels.
        threads: ignored.
    """

    def __init__(self, folder: Path, threads: int) -> None:
        super().__init__(read_answers(folder))
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        with np.load(folder / WEIGHTS) as weights:
            self._embeddings, self._heads, self._bias = weights["embeddings"], weights["heads"], weights["bias"]

    def probabilities(self, queries: Sequence[str]) -> np.ndarray:
        """Probability of every value within its label (batch, sum of values)."""
        ids = [encoding.ids for encoding in self._tokenizer.encode_batch(list(queries))]
        lengths = np.array([len(row) for row in ids])  # at least 1: the tokenizer begins with [CLS]
        tokens = self._embeddings[np.concatenate(ids)].astype(np.float32)
        means = np.add.reduceat(tokens, np.cumsum(lengths) - lengths, axis=0) / lengths[:, np.newaxis].astype(np.float32)
        return softmax_within(means @ self._heads + self._bias, self.answers.sizes)
