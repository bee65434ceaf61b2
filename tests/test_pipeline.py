"""The pipeline's forms of input and its options; what it answers through other backends and versions, `test_hub.py` asks."""

import pytest
from datasets import Dataset
from transformers import AutoTokenizer
from transformers.pipelines.pt_utils import KeyDataset

from modeling_ultralight import UltraLightForImplicitLabelPrediction
from pipeline_ultralight import ImplicitLabelPipeline
from tests.conftest import order_rows
from ultra_light_predictor import UltraLightPredictor

# Of different lengths, one of them longer than the model reads.
QUERIES = [*(row["query"] for row in order_rows()[::11]), "一杯加冰的鲜橙" * 20, "今天天气真不错"]


@pytest.fixture(scope="module")
def pipe(trained):
    folder, _ = trained
    return ImplicitLabelPipeline(
        model=UltraLightForImplicitLabelPrediction.from_pretrained(folder), tokenizer=AutoTokenizer.from_pretrained(folder), device="cpu"
    )


@pytest.fixture(scope="module")
def predictor(trained):
    return UltraLightPredictor(trained[0], quantize=False)


def test_it_answers_as_the_predictor_in_every_form_of_input(pipe, predictor):
    answers = predictor.predict_batch(QUERIES)
    assert answers[-1] == {}
    assert pipe(QUERIES[0]) == answers[0]
    assert pipe(QUERIES) == pipe(QUERIES, batch_size=4) == answers
    assert list(pipe(query for query in QUERIES)) == answers
    rows = Dataset.from_dict({"query": QUERIES})
    assert list(pipe(KeyDataset(rows, "query"), batch_size=4)) == answers


def test_its_options_are_the_predictors(pipe, predictor):
    assert pipe(QUERIES, include_none=True) == predictor.predict_batch(QUERIES, include_none=True)
    scored = predictor.predict(QUERIES[0], include_none=True, return_scores=True)
    shown = pipe(QUERIES[0], include_none=True, return_scores=True)
    assert {label: said["value"] for label, said in shown.items()} == {label: said["value"] for label, said in scored.items()}
    assert [said["score"] for said in shown.values()] == pytest.approx([said["score"] for said in scored.values()], abs=1e-5)


def test_its_thresholds_are_the_configurations(pipe, trained, monkeypatch):
    config = pipe.model.config
    monkeypatch.setattr(config, "thresholds", {**config.thresholds, "饮料": 0.0})
    assert "饮料" not in pipe(QUERIES[0])


def test_what_is_no_query_is_refused(pipe):
    with pytest.raises(TypeError, match="a query is int, not a string: 7"):
        pipe([QUERIES[0], 7])
