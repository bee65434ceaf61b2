"""Export with Optimum: PyTorch folder -> fp32 ONNX -> dynamic INT8, verified before anything is left in the folder."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from optimum.exporters.onnx import export
from optimum.exporters.onnx.config import TextEncoderOnnxConfig
from optimum.onnxruntime import ORTQuantizer
from optimum.onnxruntime.configuration import AutoQuantizationConfig, QuantizationConfig
from optimum.utils import NormalizedTextConfig
from transformers import AutoConfig, AutoTokenizer

from configuration_ultralight import UltraLightConfig
from modeling_ultralight import UltraLightForImplicitLabelPrediction
from ultra_light_predictor import FP32_GRAPH, INT8_GRAPH, UltraLightPredictor
from ultralight.problems import CheckError, InputError
from ultralight.progress import progress

FP32_TOLERANCE = 1e-4
INT8_AGREEMENT = 0.99
# Gather too: it reads the embeddings, half of the model's bytes.
QUANTIZED_OPERATORS = ["MatMul", "Gemm", "Gather"]


class ExportError(CheckError):
    """The exported graph does not do what the model does."""


class UltraLightOnnxConfig(TextEncoderOnnxConfig):
    """Tells Optimum's exporter what goes into the graph: queries of any number and length."""

    NORMALIZED_CONFIG_CLASS = NormalizedTextConfig
    DEFAULT_ONNX_OPSET = 17

    @property
    def inputs(self) -> dict[str, dict[int, str]]:
        """No token types: they are zero for a single query, and folded into the graph."""
        axes = {0: "batch_size", 1: "sequence_length"}
        return {"input_ids": axes, "attention_mask": axes}


@dataclass(frozen=True)
class ExportReport:
    """What an export measured: largest difference of fp32 logits, share of equal INT8 decisions, and what was quantised."""

    fp32_difference: float
    int8_agreement: float | None = None
    quantized_operators: int = 0
    zero_embedding_share: float | None = None


def export_folder(folder: str | Path, queries: Sequence[str], *, quantize: bool = True, architecture: str = "avx512_vnni") -> ExportReport:
    """Writes `onnx/model.onnx` and `onnx/model_quantized.onnx` into a model folder.

    Args:
        folder: a folder that training wrote.
        queries: texts of the kind the model will read, to verify on.
        quantize: also write the INT8 graph.
        architecture: one of `settings.ARCHITECTURES`.

    Raises:
        InputError: the folder holds no trained model, or there are no queries.
        ExportError: the fp32 graph differs from PyTorch, or the INT8 graph decides otherwise than the fp32 one too
            often; the folder is then as it was before.
    """
    folder = Path(folder)
    if not queries:
        raise InputError(f"{folder}: no queries to verify the exported graphs on")
    model = _load(folder)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".export-") as scratch:
        work = Path(scratch)
        _copy_runtime_files(folder, work)
        (work / "onnx").mkdir()
        _export_fp32(model, work / FP32_GRAPH)
        report = ExportReport(_check_fp32(model, folder, work, queries))
        if quantize:
            _quantize(work, architecture)
            graph = onnx.load(work / INT8_GRAPH)
            report = ExportReport(
                report.fp32_difference, _check_int8(work, queries), count_quantized_operators(graph), zero_embedding_share(graph)
            )
            if not report.quantized_operators:
                raise ExportError(f"{folder}: nothing was quantised")
        _replace(work / "onnx", folder / "onnx")
    return report


def count_quantized_operators(graph: onnx.ModelProto) -> int:
    """Integer matrix multiplications and look-ups in INT8 tables."""
    tables = _int8_initializers(graph)
    return sum(node.op_type == "MatMulInteger" or (node.op_type == "Gather" and node.input[0] in tables) for node in graph.graph.node)


def zero_embedding_share(graph: onnx.ModelProto) -> float | None:
    """Share of the INT8 embedding weights that stand for exactly zero."""
    tensors = {initializer.name: numpy_helper.to_array(initializer) for initializer in graph.graph.initializer}
    looked_up = {node.output[0]: node.input[0] for node in graph.graph.node if node.op_type == "Gather" and node.input[0] in tensors}
    zeros, weights = 0, 0
    for node in graph.graph.node:
        # With a zero point, which the matrices that `pack_matrices` stored have not.
        if node.op_type == "DequantizeLinear" and len(node.input) == 3 and (node.input[0] in looked_up or node.input[0] in tensors):
            table = tensors[looked_up.get(node.input[0], node.input[0])]
            zeros, weights = zeros + int((table == tensors[node.input[2]]).sum()), weights + table.size
    return zeros / weights if weights else None


def shorten_names(graph: onnx.ModelProto) -> None:
    """Renames all that is internal to a graph, in place: the exporter's long names are 7 % of an INT8 file."""
    public = {value.name for value in (*graph.graph.input, *graph.graph.output)}
    short: dict[str, str] = {}

    def rename(name: str) -> str:
        return name if name in public or not name else short.setdefault(name, f"{len(short):x}")

    for node in graph.graph.node:
        node.ClearField("name")
        node.input[:] = [rename(name) for name in node.input]
        node.output[:] = [rename(name) for name in node.output]
    for initializer in graph.graph.initializer:
        initializer.name = rename(initializer.name)
    del graph.graph.value_info[:]


def pack_matrices(graph: onnx.ModelProto) -> None:
    """Stores the float matrices that Optimum's quantiser leaves (it knows look-ups and multiplications) as INT8, in place.

    Each row gets a scale of its own; a `DequantizeLinear`, which onnxruntime computes once when it loads the graph, restores it.
    """
    for matrix in [item for item in graph.graph.initializer if item.data_type == onnx.TensorProto.FLOAT and len(item.dims) == 2]:
        weights = numpy_helper.to_array(matrix)
        scales = np.maximum(np.abs(weights).max(axis=1), np.finfo(np.float32).tiny) / 127
        packed = np.round(weights / scales[:, np.newaxis]).astype(np.int8)
        names = [f"{matrix.name}.int8", f"{matrix.name}.scale"]
        graph.graph.node.insert(0, helper.make_node("DequantizeLinear", names, [matrix.name], axis=0))
        for name, values in zip(names, (packed, scales.astype(np.float32)), strict=True):
            graph.graph.initializer.append(numpy_helper.from_array(values, name))
        graph.graph.initializer.remove(matrix)


def _int8_initializers(graph: onnx.ModelProto) -> set[str]:
    return {item.name for item in graph.graph.initializer if item.data_type in (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)}


def _load(folder: Path) -> UltraLightForImplicitLabelPrediction:
    # Registered so that Optimum reads the configuration without asking whether to trust code.
    AutoConfig.register(UltraLightConfig.model_type, UltraLightConfig, exist_ok=True)
    try:
        return UltraLightForImplicitLabelPrediction.from_pretrained(folder, attn_implementation="eager").eval()
    except (OSError, ValueError) as error:
        raise InputError(f"--model {folder}: no trained UltraLight model can be read from there ({error})") from error


def _copy_runtime_files(folder: Path, work: Path) -> None:
    for name in ("config.json", "tokenizer.json"):
        shutil.copyfile(folder / name, work / name)


def _export_fp32(model: UltraLightForImplicitLabelPrediction, path: Path) -> None:
    with warnings.catch_warnings():
        # The tracer warns that the label layout becomes a constant of the graph: so it should.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        export(model, UltraLightOnnxConfig(model.config, task="text-classification"), path)


def _check_fp32(model: UltraLightForImplicitLabelPrediction, folder: Path, work: Path, queries: Sequence[str]) -> float:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    predictor = UltraLightPredictor(work, quantize=False)
    difference = 0.0
    for query in progress(queries, "comparing ONNX with PyTorch", "queries"):
        batch = tokenizer(query, truncation=True, max_length=model.config.max_seq_length, return_tensors="pt")
        with torch.inference_mode():
            expected = model(**batch).logits.numpy()
        # Not Python's max: it would let a NaN pass.
        difference = float(np.maximum(difference, np.abs(expected - predictor.logits([query])).max()))
    if not difference <= FP32_TOLERANCE:
        raise ExportError(f"{folder}: the ONNX graph's logits differ from PyTorch's by {difference:.2g}; accepted: {FP32_TOLERANCE}")
    return difference


def _quantize(work: Path, architecture: str) -> None:
    graphs = work / "onnx"
    shutil.copyfile(work / "config.json", graphs / "config.json")  # where Optimum looks for it
    quantizer = ORTQuantizer.from_pretrained(graphs, file_name=FP32_GRAPH.name)
    quantizer.quantize(save_dir=graphs, quantization_config=_recipe(architecture))
    for extra in graphs.iterdir():
        if extra.suffix != ".onnx":
            extra.unlink()
    graph = onnx.load(work / INT8_GRAPH)
    pack_matrices(graph)
    shorten_names(graph)
    onnx.save(graph, work / INT8_GRAPH)


def _recipe(architecture: str) -> QuantizationConfig:
    options = {"is_static": False, "per_channel": True, "operators_to_quantize": QUANTIZED_OPERATORS}
    if architecture == "avx2":
        # Without VNNI the 16-bit intermediate sums can saturate; 7-bit weights cannot.
        options["reduce_range"] = True
    return getattr(AutoQuantizationConfig, architecture)(**options)


def _check_int8(work: Path, queries: Sequence[str]) -> float:
    fp32, int8 = UltraLightPredictor(work, quantize=False), UltraLightPredictor(work, quantize=True)
    same = fp32.decide(fp32.probabilities(list(queries))) == int8.decide(int8.probabilities(list(queries)))
    agreement = float(same.mean())
    if not agreement >= INT8_AGREEMENT:
        raise ExportError(
            f"the INT8 graph agrees with the fp32 one on {agreement:.2%} of {same.size} label decisions; accepted: {INT8_AGREEMENT:.0%}."
            " Train longer, or with more data: an undecided model changes its mind at the smallest rounding"
        )
    return agreement


def _replace(source: Path, target: Path) -> None:
    """Puts the finished files in place, each in one step."""
    target.mkdir(exist_ok=True)
    for file in source.iterdir():
        file.replace(target / file.name)


def summarize_operators(path: Path) -> Counter[str]:
    """How often each operator stands in a graph."""
    return Counter(node.op_type for node in onnx.load(path).graph.node)
