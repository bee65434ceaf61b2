"""TF-IDF and logistic regressions as an ONNX graph, text in, scores out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from benchmarks.runtimes.answers import ProbabilityRuntime, read_answers, softmax_within

GRAPH = "model.onnx"
# What scikit-learn does before it cuts n-grams, and what ONNX needs a system locale for.
_SPACES = re.compile(r"\s\s+")


def prepared(query: str) -> str:
    """Lower case, runs of white space as one space."""
    return _SPACES.sub(" ", query.lower())


class Runtime(ProbabilityRuntime):
    """Answers with onnxruntime.

    Args:
        folder: graph and labels.
        threads: of the session.
    """

    def __init__(self, folder: Path, threads: int) -> None:
        super().__init__(read_answers(folder))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(str(folder / GRAPH), options, providers=["CPUExecutionProvider"])

    def probabilities(self, queries: Sequence[str]) -> np.ndarray:
        """Probability of every value within its label (batch, sum of values)."""
        texts = np.array([[prepared(query)] for query in queries], dtype=object)
        return softmax_within(self._session.run(["scores"], {"text": texts})[0], self.answers.sizes)
