"""Export with Optimum: PyTorch folder -> fp32 ONNX -> fused INT8, verified before anything is left in the folder."""

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
from optimum.exporters.onnx import export
from optimum.exporters.onnx.config import TextEncoderOnnxConfig
from optimum.onnxruntime import ORTQuantizer
from optimum.onnxruntime.configuration import AutoQuantizationConfig, QuantizationConfig
from optimum.utils import NormalizedTextConfig
from transformers import AutoConfig, AutoTokenizer

from configuration_ultralight import UltraLightConfig
from modeling_ultralight import UltraLightForImplicitLabelPrediction
from ultra_light_predictor import FP32_GRAPH, INT8_GRAPH, UltraLightPredictor
from ultralight.inference import ask
from ultralight.onnx_graph import (
    activation_ranges,
    freeze_activations,
    fuse,
    halve_integers,
    large_multiplications,
    narrow_integers,
    pack_weights,
    packed_tables,
    rectify_by_rounding,
    shorten_names,
)
from ultralight.problems import CheckError, InputError

FP32_TOLERANCE = 1e-4
INT8_AGREEMENT = 0.99
# What the integer graph computes with integers: an encoder layer's attention, and other multiplications of every token by weights.
INTEGER_OPERATORS = ("QAttention", "MatMulIntegerToFloat")


class ExportError(CheckError):
    """The exported graph does not do what the model does."""


class UltraLightOnnxConfig(TextEncoderOnnxConfig):
    """Tells Optimum's exporter what goes into the graph: queries of any number and length."""

    NORMALIZED_CONFIG_CLASS = NormalizedTextConfig
    DEFAULT_ONNX_OPSET = 20

    @property
    def inputs(self) -> dict[str, dict[int, str]]:
        """Token ids alone: a query is one segment, and the graph sees by itself which tokens are padding."""
        return {"input_ids": {0: "batch_size", 1: "sequence_length"}}


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
        queries: texts of the kind the model will read, to find the ranges of its activations and to verify on.
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
            _quantize(model.config, work, architecture, queries)
            graph = onnx.load(work / INT8_GRAPH)
            report = ExportReport(
                report.fp32_difference, _check_int8(work, queries), count_quantized_operators(graph), zero_embedding_share(graph)
            )
            if not report.quantized_operators:
                raise ExportError(f"{folder}: nothing was quantised")
        _replace(work / "onnx", folder / "onnx")
    return report


def count_quantized_operators(graph: onnx.ModelProto) -> int:
    """Multiplications of integers."""
    return sum(node.op_type in INTEGER_OPERATORS for node in graph.graph.node)


def zero_embedding_share(graph: onnx.ModelProto) -> float | None:
    """Share of the weights of the tables that are looked up that stand for exactly zero."""
    tables = packed_tables(graph)
    zeros = sum(int((table.astype(np.int8) == 0).sum()) for table in tables)
    return zeros / sum(table.size for table in tables) if tables else None


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
        warnings.filterwarnings("ignore", message="Constant folding")  # onnxruntime folds what the exporter cannot
        export(model, UltraLightOnnxConfig(model.config, task="text-classification"), path)


def _check_fp32(model: UltraLightForImplicitLabelPrediction, folder: Path, work: Path, queries: Sequence[str]) -> float:
    ordered = sorted(queries, key=len)
    expected = ask(model, AutoTokenizer.from_pretrained(folder), ordered, "asking PyTorch, to compare ONNX with it").numpy()
    # numpy's max: Python's would let a NaN pass.
    difference = float(np.abs(expected - UltraLightPredictor(work, quantize=False).logits(ordered)).max())
    if not difference <= FP32_TOLERANCE:
        raise ExportError(f"{folder}: the ONNX graph's logits differ from PyTorch's by {difference:.2g}; accepted: {FP32_TOLERANCE}")
    return difference


def _quantize(config: UltraLightConfig, work: Path, architecture: str, queries: Sequence[str]) -> None:
    """Fuses the fp32 graph, quantises its multiplications with Optimum, and everything else that is left in floats."""
    graphs = work / "onnx"
    with tempfile.TemporaryDirectory(dir=work) as scratch:
        folder = Path(scratch)
        config.save_pretrained(folder)  # where Optimum looks for it
        fuse(work / FP32_GRAPH, folder / "fused.onnx", config.num_attention_heads, config.hidden_size)
        names = large_multiplications(onnx.load(folder / "fused.onnx").graph)
        quantizer = ORTQuantizer.from_pretrained(folder, file_name="fused.onnx")
        quantizer.quantize(save_dir=folder, quantization_config=_recipe(architecture, names))
        graph = onnx.load(folder / "fused_quantized.onnx")
    predictor = UltraLightPredictor(work, quantize=False)
    freeze_activations(graph, activation_ranges(graph, ({"input_ids": predictor.token_ids(query)} for query in queries)))
    rectify_by_rounding(graph)
    halve_integers(graph)
    narrow_integers(graph)
    pack_weights(graph, config.embedding_bits)
    shorten_names(graph)
    onnx.save(graph, graphs / INT8_GRAPH.name)


def _recipe(architecture: str, names: list[str]) -> QuantizationConfig:
    options = {"is_static": False, "per_channel": True, "operators_to_quantize": ["MatMul", "Attention"], "nodes_to_quantize": names}
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
