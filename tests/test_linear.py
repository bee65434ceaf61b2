import numpy as np
import pytest

from tests.conftest import LABELS, order_rows
from ultralight.linear import LinearClassifier

ROWS = order_rows()


def test_the_linear_model_learns_and_gives_probabilities_within_each_label(schema):
    queries, labels = [row["query"] for row in ROWS], np.array([schema.encode(row["labels"]) for row in ROWS])
    answers = LinearClassifier(schema).fit(queries, labels).probabilities(queries)
    for column, (_, columns) in enumerate(schema.slices()):
        assert answers[:, columns].sum(1) == pytest.approx(1)
        assert (answers[:, columns].argmax(1) == labels[:, column]).mean() > 0.95


def test_a_value_that_no_query_has_gets_no_probability(schema):
    queries = [row["query"] for row in ROWS]
    labels = np.zeros((len(queries), len(LABELS)), dtype=int)
    labels[::2, 0] = 2
    answers = LinearClassifier(schema).fit(queries, labels).probabilities(queries[:5])
    assert answers[:, [1, 3]].tolist() == [[0, 0]] * 5
    assert answers[:, 4:].tolist() == [[1, 0, 0, 1, 0]] * 5
