import json
import shutil

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper
from safetensors.numpy import load_file

from modeling_ultralight import UltraLightForImplicitLabelPrediction
from tests.conftest import SMALL_MODEL, order_rows, run_script
from ultra_light_predictor import UltraLightPredictor
from ultralight.experiment import run
from ultralight.model_card import is_generated
from ultralight.onnx_export import ExportError, count_quantized_operators, export_folder
from ultralight.onnx_graph import INT4_OPSET, WEIGHT_SCALES, pack_weights, packed_tables
from ultralight.problems import InputError
from ultralight.settings import TrainSettings

QUERIES = [row["query"] for row in order_rows()][:40]


@pytest.fixture
def copy_of(trained, tmp_path):
    """The trained folder without its graphs."""
    folder = tmp_path / "copy_of_model"
    shutil.copytree(trained[0], folder, ignore=shutil.ignore_patterns("onnx"))
    return folder


def listing(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_every_weight_matrix_is_kept_as_integers(trained):
    graph = onnx.load(trained[0] / "onnx" / "model_quantized.onnx")
    assert count_quantized_operators(graph) == 2 * 4 + 1  # an attention and three multiplications a layer, and what the labels attend to
    floats = [item for item in graph.graph.initializer if item.data_type == onnx.TensorProto.FLOAT]
    assert max(np.prod(item.dims) for item in floats) <= 256


def test_rounding_to_integers_does_the_work_of_relu(trained):
    fp32, int8 = (onnx.load(trained[0] / "onnx" / name).graph for name in ("model.onnx", "model_quantized.onnx"))
    assert [sum(node.op_type == "Relu" for node in graph.node) for graph in (fp32, int8)] == [2, 0]


def test_embeddings_take_half_a_byte_a_weight_and_lose_nothing(trained):
    folder = trained[0]
    tables = packed_tables(onnx.load(folder / "onnx" / "model_quantized.onnx"))
    weights = UltraLightForImplicitLabelPrediction.from_pretrained(folder).state_dict()
    embeddings = [f"bert.embeddings.{kind}_embeddings.weight" for kind in ("word", "ngram")]
    for name, share in (*((name, 1) for name in embeddings), ("linear.tokens", 0.5), ("linear.ngrams", 0.5)):
        assert load_file(folder / "model.safetensors")[name].dtype == np.float16
        expected = share * weights[name].numpy()
        (table,) = (table for table in tables if table.shape == expected.shape)
        assert table.dtype == ml_dtypes.int4
        scales = np.abs(expected).max(axis=1, keepdims=True) / 7
        np.testing.assert_array_equal(table.astype(np.float32) * scales, expected)


def test_an_odd_number_of_weights_can_be_packed():
    table = np.random.default_rng(0).integers(-7, 8, (101, 3)).astype(np.float32)
    table[:, 0] = 7
    looking_up = helper.make_node("Gather", ["table", "rows"], ["found"])
    rows = helper.make_tensor_value_info("rows", onnx.TensorProto.INT64, [None])
    found = helper.make_tensor_value_info("found", onnx.TensorProto.FLOAT, [None, 3])
    graph = helper.make_graph([looking_up], "g", [rows], [found], [numpy_helper.from_array(table, "table")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", INT4_OPSET)], ir_version=10)
    pack_weights(model, 4)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(None, {"rows": np.arange(101)})[0], table)


def test_owners_of_rows_take_four_bytes(trained):
    owners = UltraLightForImplicitLabelPrediction.from_pretrained(trained[0]).bert.embeddings.ngram_embeddings.owners.numpy()
    constants = [numpy_helper.to_array(item) for item in onnx.load(trained[0] / "onnx" / "model_quantized.onnx").graph.initializer]
    (stored,) = (values for values in constants if values.shape == owners.shape and np.array_equal(values, owners))
    assert stored.dtype == np.int32


def test_layers_of_four_bits_take_half_a_byte_a_weight_and_lose_nothing(orders, tmp_path):
    settings = TrainSettings(
        dataset=str(orders), output_dir=str(tmp_path / "small"), epochs=12, layer_bits=4, export_onnx=True, quantize=True, **SMALL_MODEL
    )
    metrics = run(settings)
    assert metrics["export"]["int8_agreement"] > 0.99
    graph = onnx.load(tmp_path / "small" / "onnx" / "model_quantized.onnx").graph
    stored = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    casts = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Cast"}
    scales = {node.input[1]: stored[node.input[WEIGHT_SCALES[node.op_type]]] for node in graph.node if node.op_type in WEIGHT_SCALES}
    restored = [stored[casts[name]].astype(np.float32) * scale for name, scale in scales.items() if name in casts]
    layers = UltraLightForImplicitLabelPrediction.from_pretrained(tmp_path / "small").bert.encoder.layer
    expected = []
    for layer in layers:
        attention = layer.attention.self
        expected.append(torch.cat([attention.query.weight, attention.key.weight, attention.value.weight]))
        expected += [layer.attention.output.dense.weight, layer.intermediate.dense.weight, layer.output.dense.weight]
    for actual, weights in zip(restored, expected, strict=True):
        np.testing.assert_allclose(actual, weights.detach().numpy().T, rtol=1e-3, atol=1e-6)


def test_the_encoder_can_be_left_out(orders, tmp_path):
    shape = {**SMALL_MODEL, "num_layers": 0}
    metrics = run(TrainSettings(dataset=str(orders), output_dir=str(tmp_path), epochs=12, export_onnx=True, quantize=True, **shape))
    assert metrics["export"]["int8_agreement"] > 0.99
    assert metrics["export"]["quantized_operators"] == 1  # what the labels attend to
    assert metrics["test_int8"]["micro_f1"] > 0.8


def test_graphs_take_queries_of_any_number_and_length(trained):
    for name in ("model.onnx", "model_quantized.onnx"):
        graph = onnx.load(trained[0] / "onnx" / name)
        assert [item.name for item in graph.graph.input] == ["input_ids"]
        assert [item.name for item in graph.graph.output] == ["logits"]
        assert [axis.dim_param for axis in graph.graph.input[0].type.tensor_type.shape.dim] == ["batch_size", "sequence_length"]


def test_neighbours_and_padding_change_no_answer(trained):
    predictor = UltraLightPredictor(trained[0])
    session = onnxruntime.InferenceSession(trained[0] / "onnx" / "model_quantized.onnx", providers=["CPUExecutionProvider"])
    alone = [predictor.token_ids(query) for query in QUERIES]
    padded = np.zeros((len(alone), max(ids.shape[1] for ids in alone)), dtype=np.int64)
    for row, ids in enumerate(alone):
        padded[row, : ids.shape[1]] = ids
    together = session.run(["logits"], {"input_ids": padded})[0]
    separate = np.concatenate([session.run(["logits"], {"input_ids": ids})[0] for ids in alone])
    np.testing.assert_allclose(together, separate, atol=1e-3)


def test_the_script_writes_what_training_wrote(trained, copy_of, orders):
    for name in ("README.md", "QueryLabels.json"):  # which earlier releases did not write
        (copy_of / name).unlink()
    result = run_script("export.py", "--model", copy_of)
    assert result.returncode == 0, result.stderr
    assert "decides as fp32" in result.stdout
    assert listing(copy_of / "onnx") == ["model.onnx", "model_quantized.onnx"]
    expected = UltraLightPredictor(trained[0]).predict_batch(QUERIES, return_scores=True)
    assert UltraLightPredictor(copy_of).predict_batch(QUERIES, return_scores=True) == expected
    # The figures are those of the graph that was written now.
    scores = json.loads((copy_of / "metrics.json").read_text(encoding="utf-8"))["test_int8"]
    assert scores["micro_f1"] == pytest.approx(trained[1]["test_int8"]["micro_f1"], abs=1e-4)
    assert is_generated((copy_of / "README.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize("architecture", ["avx2", "arm64"])
def test_other_processors_have_their_recipe(copy_of, architecture):
    report = export_folder(copy_of, QUERIES, architecture=architecture)
    assert report.int8_agreement >= 0.99


def test_a_model_that_int8_breaks_is_refused_and_nothing_is_left(copy_of):
    model = UltraLightForImplicitLabelPrediction.from_pretrained(copy_of)
    with torch.no_grad():
        # One huge activation that nothing reads: fp32 does not mind, but INT8 has no steps left for the others.
        for layer in model.bert.encoder.layer:
            layer.attention.output.dense.weight[:, 0] = 0
            layer.attention.self.value.bias[0] = 1e5
            layer.intermediate.dense.bias[0] = 1e5
            layer.output.dense.weight[:, 0] = 0
        model.bert.encoder.layer[-1].output.LayerNorm.bias[0] = 1e5
        for reader in (model.projection, model.label_attention.relevance, model.label_attention.projection):
            reader.weight[:, :: model.config.hidden_size] = 0
        for table in model.linear.buffers():  # words of their own would settle the labels
            table.zero_()
    model.save_pretrained(copy_of)
    before = listing(copy_of)
    with pytest.raises(ExportError, match="the INT8 graph agrees with the fp32 one on"):
        export_folder(copy_of, QUERIES)
    assert listing(copy_of) == before


def test_a_broken_model_is_refused(copy_of):
    model = UltraLightForImplicitLabelPrediction.from_pretrained(copy_of)
    with torch.no_grad():
        model.heads.bias.fill_(float("nan"))
    model.save_pretrained(copy_of)
    result = run_script("export.py", "--model", copy_of)
    assert result.returncode == 1
    assert "error: " in result.stderr
    assert "differ from PyTorch's by nan" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (copy_of / "onnx").exists()


def test_what_is_no_model_is_refused(tmp_path):
    with pytest.raises(InputError, match="no trained UltraLight model"):
        export_folder(tmp_path, QUERIES)
    result = run_script("export.py", "--model", tmp_path)
    assert result.returncode == 2
    assert "no config.json there" in result.stderr


@pytest.mark.slow
def test_optimums_own_command_quantises_a_graph(trained, copy_of, tmp_path):
    (copy_of / "onnx").mkdir()
    shutil.copy(trained[0] / "onnx" / "model.onnx", copy_of / "onnx")
    out = tmp_path / "quantised"
    command = ("-m", "optimum.commands.optimum_cli", "onnxruntime", "quantize", "--onnx_model", copy_of / "onnx", "--avx512_vnni")
    result = run_script(*command, "--per_channel", "-o", out)
    assert result.returncode == 0, result.stderr[-2000:]
    shutil.copy(out / "model_quantized.onnx", copy_of / "onnx")
    fp32, int8 = UltraLightPredictor(copy_of, quantize=False), UltraLightPredictor(copy_of)
    assert int8.predict_batch(QUERIES) == fp32.predict_batch(QUERIES)
