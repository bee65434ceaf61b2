"""TF-IDF of character n-grams and a logistic regression a label, for scikit-learn and as an ONNX graph."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import joblib
import numpy as np

from benchmarks.peers.job import Job, search, write_labels
from benchmarks.runtimes import tfidf_onnx
from benchmarks.runtimes.answers import softmax_within
from benchmarks.runtimes.tfidf import MODEL_FILE
from ultralight.linear import LinearClassifier

# A score that leaves no probability: of a value that no training query has.
NEVER = -1e4
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Setting:
    """One point of the grid."""

    ngrams: tuple[int, int]
    strength: float


GRID = (Setting((1, 3), 10), Setting((1, 3), 30), Setting((1, 3), 100), Setting((1, 2), 30))


class LinearScorer:
    """Probabilities of the regressions, as one matrix.

    Args:
        classifier: a fitted one.
    """

    def __init__(self, classifier: LinearClassifier) -> None:
        self.vectorizer, self.sizes = classifier.vectorizer, classifier.schema.sizes
        self.weights, self.bias = stack(classifier)

    def __call__(self, queries: Sequence[str]) -> np.ndarray:
        """Probability of every value within its label (queries, sum of values)."""
        return softmax_within(self.vectorizer.transform(queries) @ self.weights + self.bias, self.sizes)


def recipe(job: Job) -> dict[str, Any]:
    """What decides the outcome."""
    return {"grid": [asdict(setting) for setting in GRID], "onnx": find_spec("skl2onnx") is not None}


def train(job: Job) -> dict[str, Any]:
    """Fits, and writes both forms; the graph only where skl2onnx is installed."""

    def candidate(setting: Setting) -> LinearScorer:
        # skl2onnx turns the sublinear term frequency 1 + log(tf) into log(1 + tf), so neither form uses it: a query seldom repeats
        # an n-gram, and validation micro-F1 moved by less than 0.3 points.
        classifier = LinearClassifier(job.schema, ngrams=setting.ngrams, strength=setting.strength, sublinear=False)
        return LinearScorer(classifier.fit(job.queries("train"), job.labels("train")))

    best, facts = search(job.grid(GRID), candidate, job)
    joblib.dump((best.scorer.vectorizer, best.scorer.weights, best.scorer.bias), job.folder / MODEL_FILE)
    write_labels(job.folder, job.schema, best.thresholds)
    if find_spec("skl2onnx") is not None:
        write_graph(best.scorer, job.folder / tfidf_onnx.GRAPH)
        _check_graph(best.scorer, job)
    return facts


def stack(classifier: LinearClassifier) -> tuple[np.ndarray, np.ndarray]:
    """The regressions of all labels as one matrix (features, sum of values) and bias, float32: half of scikit-learn's bytes."""
    features = len(classifier.vectorizer.vocabulary_)
    weights = np.zeros((features, classifier.schema.num_values), dtype=np.float32)
    bias = np.full(classifier.schema.num_values, NEVER, dtype=np.float32)
    for (_, columns), regression in zip(classifier.schema.slices(), classifier.regressions, strict=True):
        if isinstance(regression, int):  # the training queries hold this value only
            bias[columns.start + regression] = 0
            continue
        # Of two classes, scikit-learn keeps the second one's weights: those of the first are zero.
        binary = len(regression.classes_) == 2
        coefficients = np.vstack([np.zeros((1, features)), regression.coef_]) if binary else regression.coef_
        intercepts = np.concatenate([[0.0], regression.intercept_]) if binary else regression.intercept_
        places = columns.start + regression.classes_
        weights[:, places], bias[places] = coefficients.T, intercepts
    return weights, bias


def write_graph(scorer: LinearScorer, path: Path) -> None:
    """Writes an ONNX graph `text` (batch, 1) -> `scores` (batch, sum of values)."""
    import onnx
    from onnx import helper, numpy_helper
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import StringTensorType

    # Lower case is left to the runtime: onnxruntime's StringNormalizer wants the locale en_US.UTF-8, which slim images lack.
    scorer.vectorizer.lowercase = False
    try:
        with warnings.catch_warnings():
            # That character n-grams may not work: `_check_graph` sees whether they do.
            warnings.filterwarnings("ignore", message="The conversion of CountVectorizer may not work")
            model = to_onnx(
                scorer.vectorizer,
                initial_types=[("text", StringTensorType([None, 1]))],
                target_opset=17,
                options={id(scorer.vectorizer): {"tokenexp": "."}},
            )
    finally:
        scorer.vectorizer.lowercase = True
    graph = model.graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name == "pad_value":  # "#", with which shorter texts of a batch would be given n-grams that they lack
                attribute.s = "\uffff".encode()
    features = graph.output[0].name
    graph.node.append(helper.make_node("MatMul", [features, "weights"], ["products"]))
    graph.node.append(helper.make_node("Add", ["products", "bias"], ["scores"]))
    graph.initializer.extend([numpy_helper.from_array(scorer.weights, "weights"), numpy_helper.from_array(scorer.bias, "bias")])
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, [None, len(scorer.bias)]))
    onnx.save(model, path)


def _check_graph(scorer: LinearScorer, job: Job) -> None:
    queries = job.queries("validation")
    difference = float(np.abs(tfidf_onnx.Runtime(job.folder, 1).probabilities(queries) - scorer(queries)).max())
    if not difference <= TOLERANCE:
        raise RuntimeError(f"the TF-IDF graph's probabilities differ from scikit-learn's by {difference:.2g}")
