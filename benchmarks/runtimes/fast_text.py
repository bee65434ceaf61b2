"""fastText, full (.bin) or quantised (.ftz)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import fasttext
import numpy as np

from benchmarks.runtimes.answers import Answers, ProbabilityRuntime, read_answers

PREFIX = "__label__"


def spaced(query: str) -> str:
    """The query as fastText reads it: each character a word."""
    return " ".join("".join(query.lower().split()))


class FastTextScorer:
    """Probabilities of a one-vs-all model, whose classes are the columns of the present values.

    Args:
        model: a trained model.
        answers: the schema.
    """

    def __init__(self, model: fasttext.FastText._FastText, answers: Answers) -> None:
        self.model = model
        self._starts = np.cumsum([0, *answers.sizes[:-1]])
        self._width = sum(answers.sizes)
        present = set(range(self._width)) - set(self._starts.tolist())
        self._column_of = {f"{PREFIX}{column}": column for column in present}

    def __call__(self, queries: Sequence[str]) -> np.ndarray:
        """Probability of every value (batch, sum of values); a label is as absent as its likeliest value is not there."""
        answer = np.zeros((len(queries), self._width))
        # fastText returns the classes ordered by probability.
        classes, probabilities = self.model.predict([spaced(query) for query in queries], k=-1, threshold=0.0)
        for row, names, scores in zip(answer, classes, probabilities, strict=True):
            for name, score in zip(names, scores, strict=True):
                if name in self._column_of:
                    row[self._column_of[name]] = score
        answer[:, self._starts] = 1 - np.maximum.reduceat(answer, self._starts, axis=1)
        return answer


class Runtime(ProbabilityRuntime):
    """Answers with fastText, which predicts on one thread.

    Args:
        folder: model and labels.
        threads: ignored.
        quantized: read the .ftz model.
    """

    def __init__(self, folder: Path, threads: int, quantized: bool = False) -> None:
        super().__init__(read_answers(folder))
        self._score = FastTextScorer(fasttext.load_model(str(folder / f"model.{'ftz' if quantized else 'bin'}")), self.answers)

    def probabilities(self, queries: Sequence[str]) -> np.ndarray:
        """Probability of every value within its label (batch, sum of values)."""
        return self._score(queries)
