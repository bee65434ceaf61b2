"""From Optimum's graph to one that is small and fast: passes over an ONNX graph, each with one purpose, each in place."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.transformers.fusion_options import FusionOptions
from onnxruntime.transformers.optimizer import optimize_model

# The domain of onnxruntime's own operators.
MICROSOFT = "com.microsoft"
# The first operator set whose `DequantizeLinear` knows 4-bit integers; nothing else changed since the one that is exported.
INT4_OPSET = 21
# Names of the multiplications that are worth integers begin so.
INTEGER_PARTS = ("/bert/", "/label_attention/projection/")
# Which input of an integer multiplication holds the scales of its weights.
WEIGHT_SCALES = {"MatMulIntegerToFloat": 3, "QAttention": 4}
LARGEST_INT4 = 7
# Tensors up to this many numbers stay what they are: a scale for each row, or an operator, would cost what smaller numbers save.
SMALL = 256


def fuse(source: Path, target: Path, num_heads: int, hidden_size: int) -> None:
    """Folds constants and replaces BERT's patterns by onnxruntime's fused operators (Attention, Gelu, LayerNormalization)."""
    options = FusionOptions("bert")
    options.enable_skip_layer_norm = False  # on CPUs it takes five times as long as an addition and a normalisation
    options.enable_bias_gelu = False  # a bias that stays an addition moves into the integer multiplication, see `freeze_activations`
    # It prints that it cannot infer the shapes of n-grams: no pattern depends on them.
    with contextlib.redirect_stdout(io.StringIO()):
        fused = optimize_model(
            str(source), "bert", num_heads, hidden_size, optimization_options=options, opt_level=1, only_onnxruntime=False
        )
    _read_lengths_at_once(fused.model.graph)
    fused.prune_graph()
    _declare_floats(fused.model.graph)
    fused.save_model_to_file(str(target))


def _read_lengths_at_once(graph: onnx.GraphProto) -> None:
    """One operator for the length of an axis as a vector of one number, which the exporter writes as `Shape`, `Gather`, `Unsqueeze`."""
    producers = {output: node for node in graph.node for output in node.output}
    constants = {item.name: item for item in graph.initializer}
    for node in [item for item in graph.node if item.op_type == "Unsqueeze"]:
        picked = producers.get(node.input[0])
        shape = producers.get(picked.input[0]) if picked is not None and picked.op_type == "Gather" else None
        if picked is None or shape is None or shape.op_type != "Shape" or picked.input[1] not in constants:
            continue
        axis = int(numpy_helper.to_array(constants[picked.input[1]]))
        graph.node.insert(list(graph.node).index(node), helper.make_node("Shape", shape.input, node.output, start=axis, end=axis + 1))
        graph.node.remove(node)


def _declare_floats(graph: onnx.GraphProto) -> None:
    """Says that all that enters a multiplication is a float: shape inference, and so the quantiser, does not know the fused operators."""
    known = {value.name for value in (*graph.value_info, *graph.input, *graph.initializer)}
    for node in graph.node:
        if node.op_type in ("MatMul", "Attention") and node.input[0] not in known:
            graph.value_info.append(helper.make_tensor_value_info(node.input[0], TensorProto.FLOAT, None))
            known.add(node.input[0])


def large_multiplications(graph: onnx.GraphProto) -> list[str]:
    """Names of the nodes that multiply what is known of every token, or for every label, by weights: where nearly all of the time goes."""
    weights = {item.name for item in graph.initializer if len(item.dims) == 2}
    inside = [node for node in graph.node if node.op_type in ("MatMul", "Attention") and node.input[1] in weights]
    return [node.name for node in inside if node.op_type == "Attention" or node.name.startswith(INTEGER_PARTS)]


def activation_ranges(graph: onnx.ModelProto, inputs: Iterable[Mapping[str, np.ndarray]]) -> dict[str, tuple[np.float32, np.uint8]]:
    """Runs a dynamically quantised graph and returns scale and zero point that hold every value seen, for each quantised activation."""
    probe = onnx.ModelProto()
    probe.CopyFrom(graph)
    dynamic = [node for node in probe.graph.node if node.op_type == "DynamicQuantizeLinear"]
    for node in dynamic:
        probe.graph.output.append(helper.make_tensor_value_info(node.output[1], TensorProto.FLOAT, []))
        probe.graph.output.append(helper.make_tensor_value_info(node.output[2], TensorProto.UINT8, []))
    session = onnxruntime.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [name for node in dynamic for name in node.output[1:]]
    lowest, highest = np.zeros(len(dynamic)), np.zeros(len(dynamic))
    for feed in inputs:
        found = np.array(session.run(names, dict(feed)), dtype=np.float64).reshape(-1, 2)
        scales, zero_points = found[:, 0], found[:, 1]
        lowest, highest = np.minimum(lowest, -scales * zero_points), np.maximum(highest, scales * (255 - zero_points))
    scales = np.maximum(highest - lowest, np.finfo(np.float32).tiny) / 255
    zero_points = np.round(-lowest / scales)
    return {node.input[0]: (np.float32(scales[i]), np.uint8(zero_points[i])) for i, node in enumerate(dynamic)}


def freeze_activations(graph: onnx.ModelProto, ranges: Mapping[str, tuple[np.float32, np.uint8]]) -> None:
    """Makes dynamic quantisation static: a query's answer then does not depend on the others in its batch, and no range is searched for.

    A dynamic scale is that of the whole batch. Static ones are constants, with which an integer multiplication and its
    scaling are one operator.
    """
    constants: dict[str, np.ndarray] = {}
    producers = {output: node for node in graph.graph.node for output in node.output}
    for node in list(graph.graph.node):
        if node.op_type == "DynamicQuantizeLinear":
            scale, zero_point = ranges[node.input[0]]
            constants[node.output[1]], constants[node.output[2]] = np.array(scale), np.array(zero_point)
            node.op_type = "QuantizeLinear"
            node.input.extend(node.output[1:])
            del node.output[1:]
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    vectors = {item.name for item in graph.graph.initializer if len(item.dims) == 1}
    for node in [item for item in graph.graph.node if item.op_type == "MatMulInteger"]:
        _, weights, zero_point, weight_zero_point = node.input
        (cast,) = readers[node.output[0]]
        (scaling,) = readers[cast.output[0]]
        scales = producers[next(name for name in scaling.input if name != cast.output[0])]
        activation_scale, weight_scale = scales.input
        node.op_type, node.domain = "MatMulIntegerToFloat", MICROSOFT
        node.input[:] = [node.input[0], weights, activation_scale, weight_scale, zero_point, weight_zero_point]
        useless, output = [cast, scaling, scales], scaling.output[0]
        following = readers[output]
        if len(following) == 1 and following[0].op_type == "Add" and (bias := _vector(following[0], output, vectors)):
            node.input.append(bias)
            useless, output = [*useless, following[0]], following[0].output[0]
        node.output[0] = output
        for item in useless:
            if item in graph.graph.node:
                graph.graph.node.remove(item)
    graph.graph.initializer.extend(numpy_helper.from_array(values, name) for name, values in constants.items())
    _import_operators(graph)


def rectify_by_rounding(graph: onnx.ModelProto) -> None:
    """Removes a `Relu` whose output is only read as integers that begin at zero: rounding to them cuts off what is below."""
    zeros = {item.name for item in graph.graph.initializer if not item.dims and not numpy_helper.to_array(item)}
    for node in [item for item in graph.graph.node if item.op_type == "Relu"]:
        readers = [item for item in graph.graph.node if node.output[0] in item.input]
        if all(item.op_type == "QuantizeLinear" and item.input[2] in zeros for item in readers):
            for item in readers:
                item.input[0] = node.input[0]
            graph.graph.node.remove(node)


def _vector(addition: onnx.NodeProto, summand: str, vectors: set[str]) -> str | None:
    """The constant vector that is added to `summand`, if it is one."""
    return next((name for name in addition.input if name != summand and name in vectors), None)


def pack_weights(graph: onnx.ModelProto, table_bits: int) -> None:
    """Stores the float weights that are left as integers: `table_bits` bits for tables that are looked up by row, 8 for matrices.

    Each row has a scale of its own, in half precision. A session restores the floats once, when it loads the graph:
    looking up packed rows (`GatherBlockQuantized`) takes ten times as long as looking up floats.
    """
    looked_up = {node.input[0] for node in graph.graph.node if node.op_type == "Gather"}
    for weights in [item for item in graph.graph.initializer if item.data_type == TensorProto.FLOAT and _is_matrix(item)]:
        values, bits = numpy_helper.to_array(weights), table_bits if weights.name in looked_up else 8
        packed, scales = quantize_rows(values.reshape(len(values), -1), bits)
        names = [f"{weights.name}.int{bits}", f"{weights.name}.scale"]
        kept = [_integers(names[0], packed.reshape(values.shape), bits), numpy_helper.from_array(scales[:, 0], names[1])]
        _cast_at_load(graph, weights, f"{weights.name}.half", kept)
        graph.graph.node.insert(0, helper.make_node("DequantizeLinear", names, [f"{weights.name}.half"], axis=0))


def narrow_integers(graph: onnx.ModelProto) -> None:
    """Stores long constants of 64-bit integers in 32 bits, where they fit. A session restores them once, when it loads the graph."""
    for item in [item for item in graph.graph.initializer if item.data_type == TensorProto.INT64 and int(np.prod(item.dims)) > SMALL]:
        values = numpy_helper.to_array(item)
        if np.array_equal(values.astype(np.int32), values):
            narrow = numpy_helper.from_array(values.astype(np.int32), f"{item.name}.int32")
            _cast_at_load(graph, item, narrow.name, [narrow])


def halve_integers(graph: onnx.ModelProto) -> None:
    """Stores 8-bit weights of integer multiplications in 4 bits, where 15 steps of each output's weights are all that occur.

    That is what a model has whose layers were trained with 4 bits. A session restores the 8 bits once, when it loads the graph.
    """
    stored = {item.name: item for item in graph.graph.initializer}
    for node in list(graph.graph.node):
        if node.op_type not in WEIGHT_SCALES:
            continue
        weights, scales = stored[node.input[1]], stored[node.input[WEIGHT_SCALES[node.op_type]]]
        values = numpy_helper.to_array(weights).astype(np.float32)
        steps = np.maximum(np.abs(values).max(axis=0), 1) / LARGEST_INT4
        halved = np.round(values / steps)
        if np.abs(halved * steps - values).max() > 0.5 + 1e-3:  # more than rounding to 8 bits explains
            continue
        packed = _integers(f"{weights.name}.int4", halved.astype(np.int8), 4)
        _cast_at_load(graph, weights, packed.name, [packed])
        scales.CopyFrom(numpy_helper.from_array((numpy_helper.to_array(scales) * steps).astype(np.float32), scales.name))


def _cast_at_load(graph: onnx.ModelProto, constant: TensorProto, source: str, kept: Iterable[TensorProto]) -> None:
    """Replaces a constant by what is kept of it: an operator casts `source` back, once, when a session loads the graph."""
    graph.graph.node.insert(0, helper.make_node("Cast", [source], [constant.name], to=constant.data_type))
    graph.graph.initializer.extend(kept)
    graph.graph.initializer.remove(constant)


def packed_tables(graph: onnx.ModelProto) -> list[np.ndarray]:
    """The integers of the tables that are looked up."""
    looked_up = {node.input[0] for node in graph.graph.node if node.op_type == "Gather"}
    casts = {node.input[0] for node in graph.graph.node if node.op_type == "Cast" and node.output[0] in looked_up}
    names = {node.input[0] for node in graph.graph.node if node.op_type == "DequantizeLinear" and node.output[0] in casts}
    return [numpy_helper.to_array(item) for item in graph.graph.initializer if item.name in names]


def _is_matrix(item: TensorProto) -> bool:
    return len(item.dims) > 1 and min(item.dims) > 1 and int(np.prod(item.dims)) > SMALL


def quantize_rows(weights: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Integers (rows, columns) and half-precision scales (rows, 1) whose product is nearest to `weights` (rows, columns)."""
    largest = 2 ** (bits - 1) - 1  # symmetric around zero
    scales = np.maximum(np.abs(weights).max(axis=1, keepdims=True) / largest, np.finfo(np.float16).tiny).astype(np.float16)
    return np.clip(np.round(weights / scales.astype(np.float32)), -largest, largest).astype(np.int8), scales


def _integers(name: str, values: np.ndarray, bits: int) -> TensorProto:
    if bits == 8:
        return numpy_helper.from_array(values, name)
    nibbles = np.append(values, np.zeros(values.size % 2, values.dtype)).astype(np.uint8) & 0xF
    low, high = nibbles.reshape(-1, 2).T  # two in a byte, the first in its lower half
    return helper.make_tensor(name, TensorProto.INT4, values.shape, (low | high << 4).tobytes(), raw=True)


def shorten_names(graph: onnx.ModelProto) -> None:
    """Renames all that is internal to a graph: the exporter's long names are 7 % of a file."""
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


def _import_operators(graph: onnx.ModelProto) -> None:
    for item in graph.opset_import:
        if item.domain == "":
            item.version = max(item.version, INT4_OPSET)
    if all(item.domain != MICROSOFT for item in graph.opset_import):
        graph.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
