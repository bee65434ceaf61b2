import json

import numpy as np
import pytest

from tests.conftest import SMALL_MODEL, order_rows
from ultralight import teachers
from ultralight.dataset import load_splits
from ultralight.experiment import run
from ultralight.problems import InputError
from ultralight.settings import TrainSettings
from ultralight.teachers import UNLABELLED, prepare_lesson


@pytest.fixture
def texts(tmp_path):
    """Texts without labels, two of them known from the data set."""
    path = tmp_path / "unlabelled.txt"
    path.write_text("\n".join(["给我一杯拿铁，烫一点", order_rows()[0]["query"], "鲜橙两杯打包", "鲜橙 两杯打包"]), encoding="utf-8")
    return path


def settings_for(orders, tmp_path, **changes):
    return TrainSettings(dataset=str(orders), output_dir=str(tmp_path / "student"), **{**SMALL_MODEL, "distillation": True, **changes})


def test_no_teacher_answers_a_query_that_it_was_trained_on(orders, schema, tmp_path, texts, monkeypatch):
    splits, _ = load_splits(str(orders), schema)
    asked_of = []

    def remember(parts, asked, schema, settings, fold):
        assert not set(parts["train"]["query"]) & set(asked)
        asked_of.append(list(asked))
        return np.full((len(asked), schema.num_values), float(fold))

    monkeypatch.setattr(teachers, "_train_and_ask", remember)
    settings = settings_for(orders, tmp_path, teacher_folds=4, linear_teacher=0.0, transfer=[str(texts)])
    lesson = prepare_lesson(splits, schema, settings)
    train, new = splits["train"]["query"][:], ["给我一杯拿铁，烫一点", "鲜橙两杯打包"]
    assert lesson["query"][:] == [*train, *new]
    assert sorted(query for asked in asked_of for query in asked) == sorted([*train, *(new * 4)])
    assert lesson["labels"][:] == [*splits["train"]["labels"], *[[UNLABELLED] * 3] * 2]
    for query, answers in zip(train, lesson["teacher_probabilities"], strict=False):
        fold = next(fold for fold, asked in enumerate(asked_of) if query in asked)
        assert answers == [fold] * schema.num_values
    assert lesson["teacher_probabilities"][len(train) :] == [[1.5] * schema.num_values] * 2


def test_a_model_learns_from_teachers_that_are_trained_first(orders, schema, tmp_path, texts):
    settings = settings_for(
        orders, tmp_path, epochs=40, teacher_folds=2, linear_teacher=0.3, distillation_weight=1.0, transfer=[str(texts)]
    )
    metrics = run(settings)
    assert metrics["test"]["micro_f1"] > 0.7
    facts = json.loads((tmp_path / "student" / "config.json").read_text(encoding="utf-8"))["training_facts"]
    assert facts["distilled_from"] == "2 cross-fitted teachers, a linear model with weight 0.3"
    assert not list((tmp_path / "student").glob("teacher_*"))


def test_a_missing_transfer_file_is_explained(orders, schema, tmp_path):
    splits, _ = load_splits(str(orders), schema)
    with pytest.raises(InputError, match="nowhere"):
        prepare_lesson(splits, schema, settings_for(orders, tmp_path, transfer=["nowhere.txt"]))
