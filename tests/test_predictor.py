import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import assert_same_answers, order_rows, run_script
from ultra_light_predictor import UltraLightPredictor, decide

QUERIES = [row["query"] for row in order_rows()]
# Blocks what the runtime must not need, then predicts.
WITHOUT_TORCH = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "transformers", "datasets", "optimum", "onnx", "evaluate", "matplotlib", "yaml", "ultralight"}:
            raise ImportError(name)
sys.meta_path.insert(0, Block())
import json
from ultra_light_predictor import UltraLightPredictor
print(json.dumps(UltraLightPredictor(sys.argv[1]).predict(sys.argv[2]), ensure_ascii=False))
"""


@pytest.fixture(scope="module")
def predictor(trained):
    return UltraLightPredictor(trained[0])


def test_it_says_what_a_query_implies(predictor):
    assert predictor.predict("来1杯拿铁加冰打包") == {"饮料": "咖啡", "冷热": "冰的", "带走": "是"}
    assert predictor.predict("来2杯龙井") == {"饮料": "茶"}


def test_absent_values_and_scores_are_shown_when_asked_for(predictor):
    answer = predictor.predict("来2杯龙井", include_none=True, return_scores=True)
    assert {label: shown["value"] for label, shown in answer.items()} == {"饮料": "茶", "冷热": "无", "带走": "无"}
    assert all(0 <= shown["score"] <= 1 for shown in answer.values())


def test_probabilities_of_a_label_sum_to_one(predictor, schema):
    probabilities = predictor.probabilities(QUERIES)
    for _, columns in schema.slices():
        np.testing.assert_allclose(probabilities[:, columns].sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("workers", [1, 3])
def test_a_batch_is_answered_as_its_queries_one_by_one(predictor, workers):
    queries = [*QUERIES, "短", "很长的一句话" * 30, ""]
    expected = [predictor.predict(query, include_none=True, return_scores=True) for query in queries]
    assert_same_answers(predictor.predict_batch(queries, include_none=True, return_scores=True, num_workers=workers), expected)
    assert predictor.predict_batch([]) == []


def test_all_workers_have_a_share_of_a_small_batch(predictor, monkeypatch):
    shares, logits = [], predictor.logits

    def count(queries):
        shares.append(len(queries))
        return logits(queries)

    monkeypatch.setattr(predictor, "logits", count)
    predictor.predict_batch(QUERIES[:7], num_workers=3)
    assert sorted(shares) == [1, 3, 3]


@pytest.mark.parametrize("workers", [0, -1])
def test_nobody_is_no_worker(predictor, workers):
    with pytest.raises(ValueError, match="must be greater than 0"):
        predictor.predict_batch(QUERIES, num_workers=workers)


def test_names_follow_the_decisions(predictor):
    queries = [*QUERIES, "", "随便"]
    chosen = predictor.decide(predictor.probabilities(queries))
    names = [{label: values[index] for (label, values), index in zip(predictor.label_schema.items(), row, strict=True)} for row in chosen]
    assert predictor.predict_batch(queries, include_none=True) == names


def test_threads_share_a_predictor(predictor):
    expected = [predictor.predict(query) for query in QUERIES]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(predictor.predict, QUERIES)) == expected


def test_a_stream_is_answered_while_it_flows(predictor):
    taken = []

    def endless():
        while True:
            taken.append(1)
            yield "来1杯拿铁"

    answers = predictor.iter_predict(endless())
    assert next(answers) == predictor.predict("来1杯拿铁")
    assert len(taken) < 1000


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=80))
def test_any_text_gets_an_answer(predictor, text):
    answer = predictor.predict(text)
    assert all(value in predictor.label_schema[label][1:] for label, value in answer.items())


def test_it_needs_neither_torch_nor_the_rest_of_the_project(trained, tmp_path):
    result = run_script("-c", WITHOUT_TORCH, trained[0], "来1杯拿铁加冰")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == {"饮料": "咖啡", "冷热": "冰的"}


@pytest.mark.parametrize("suffix", ["onnx", "onnx.gz"])
def test_one_file_holds_the_whole_model(predictor, tmp_path, suffix):
    path = predictor.export_to_onnx(tmp_path / f"alone.{suffix}")
    assert [file.name for file in tmp_path.iterdir()] == [f"alone.{suffix}"]
    alone = UltraLightPredictor(path)
    assert alone.predict_batch(QUERIES, return_scores=True) == predictor.predict_batch(QUERIES, return_scores=True)
    again = alone.export_to_onnx(tmp_path / f"again.{suffix}")
    assert again.read_bytes() == path.read_bytes()


def test_a_graph_is_found_beside_its_configuration(trained, predictor, tmp_path):
    folder, _ = trained
    graph = folder / "onnx" / "model_quantized.onnx"
    assert UltraLightPredictor(graph).predict(QUERIES[0]) == predictor.predict(QUERIES[0])
    moved = shutil.copy(folder / "config.json", tmp_path / "elsewhere.json")
    assert UltraLightPredictor(folder, config_path=moved).predict(QUERIES[0]) == predictor.predict(QUERIES[0])


def test_the_fp32_graph_decides_alike(trained, predictor):
    fp32 = UltraLightPredictor(trained[0], quantize=False)
    same = [fp32.predict(query) == predictor.predict(query) for query in QUERIES]
    assert np.mean(same) > 0.95


def test_a_shorter_length_cuts_queries(trained):
    short = UltraLightPredictor(trained[0], max_seq_length=5)
    assert short.predict("来1杯拿铁加冰打包", return_scores=True) == short.predict("来1杯热的", return_scores=True)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"max_seq_length": 25}, "max_seq_length=25: this model reads 3 to 24 tokens"),
        ({"max_seq_length": 2}, "reads 3 to 24"),
        ({"hidden_dim": 128}, "hidden_dim=128, but the model in .* is 32 wide"),
    ],
)
def test_what_the_model_is_not_is_refused(trained, arguments, expected):
    with pytest.raises(ValueError, match=expected):
        UltraLightPredictor(trained[0], **arguments)


def test_missing_files_are_named(trained, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        UltraLightPredictor(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"export\.py --model"):
        UltraLightPredictor(tmp_path)
    graph = shutil.copy(trained[0] / "onnx" / "model.onnx", tmp_path / "model.onnx")
    with pytest.raises(FileNotFoundError, match=r"config\.json does not exist"):
        UltraLightPredictor(graph)


def test_a_foreign_configuration_is_refused(trained, tmp_path):
    config = tmp_path / "config.json"
    config.write_text('{"model_type": "bert"}', encoding="utf-8")
    with pytest.raises(ValueError, match="it has no label_schema"):
        UltraLightPredictor(trained[0], config_path=config)


def test_what_is_no_text_is_refused(predictor):
    with pytest.raises(TypeError, match="query 0 is int"):
        predictor.predict(3)
    with pytest.raises(TypeError, match="queries is one string"):
        predictor.predict_batch("来1杯拿铁")


def test_a_label_is_absent_from_its_threshold_on():
    probabilities = np.array([[0.5, 0.3, 0.2], [0.4, 0.2, 0.4]])
    assert decide(probabilities, [3], np.array([0.5])).tolist() == [[0], [2]]
    assert decide(probabilities, [3], np.array([0.4])).tolist() == [[0], [0]]
    assert decide(probabilities, [3], np.array([0.6])).tolist() == [[1], [2]]
