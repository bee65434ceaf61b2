import evaluate
import numpy as np
import pytest

from tests.conftest import LABELS
from ultra_light_predictor import decide
from ultralight.scores import score
from ultralight.thresholds import tune_thresholds
from ultralight.training import METRIC

REFERENCES = np.array([[1, 0, 1], [2, 2, 0], [0, 0, 0], [3, 1, 1]])
PREDICTIONS = np.array([[1, 0, 0], [1, 2, 0], [0, 0, 0], [3, 0, 1]])


def test_scores_count_pairs_without_the_absent_values(schema):
    scores = score(PREDICTIONS, REFERENCES, schema)
    assert scores["micro_f1"] == pytest.approx(2 * 4 / (5 + 7))
    # 茶 2/3, 咖啡 0, 果汁 1; 冰的 0, 热的 1; 是 2/3
    assert scores["macro_f1"] == pytest.approx((2 / 3 + 0 + 1 + 0 + 1 + 2 / 3) / 6)
    assert scores["exact_match"] == pytest.approx(1 / 4)
    assert scores["per_label"]["冷热"] == {"accuracy": 0.75, "f1": pytest.approx(2 / 3), "support": 2}


def test_nothing_to_find_and_nothing_found_is_zero(schema):
    nothing = np.zeros((2, 3), dtype=int)
    assert score(nothing, nothing, schema)["micro_f1"] == 0.0
    assert score(nothing, nothing, schema)["exact_match"] == 1.0


def test_shapes_must_agree(schema):
    with pytest.raises(ValueError, match="differ in shape"):
        score(PREDICTIONS[:2], REFERENCES, schema)


def test_the_evaluate_module_gives_the_same_scores(schema):
    metric = evaluate.load(str(METRIC), keep_in_memory=True)
    assert metric.compute(predictions=PREDICTIONS, references=REFERENCES, label_schema=LABELS) == score(PREDICTIONS, REFERENCES, schema)


def test_thresholds_follow_what_absent_values_look_like(schema):
    random = np.random.default_rng(0)
    references = random.integers(0, 2, (300, 3))
    # The model believes in absent values too much: 0.55 to 0.85 where there is a value, more where there is none.
    absent = np.where(references == 0, random.uniform(0.75, 1.0, (300, 3)), random.uniform(0.55, 0.75, (300, 3)))
    columns = []
    for label, size in enumerate(schema.sizes):
        rest = np.repeat((1 - absent[:, label : label + 1]) / 10, size - 1, axis=1)
        rest[:, 0] = 1 - absent[:, label] - rest[:, 1:].sum(axis=1)
        columns.append(np.hstack([absent[:, label : label + 1], rest]))
    probabilities = np.hstack(columns)
    thresholds = tune_thresholds(probabilities, references, schema)

    def micro_f1(cuts):
        return score(decide(probabilities, schema.sizes, np.array(cuts)), references, schema)["micro_f1"]

    assert micro_f1([0.5] * 3) == 0.0
    assert micro_f1(list(thresholds.values())) > 0.95
