"""The shipped model within benchmarks/budget.json: what costs bytes and time and can be counted on any machine."""

import json
import sys

import numpy as np
import onnx
import pytest

from tests.conftest import ROOT, run_script
from ultralight.experiment import DEPLOYABLE
from ultralight.onnx_export import count_quantized_operators
from ultralight.report import folder_size

BUDGET = json.loads((ROOT / "benchmarks" / "budget.json").read_text(encoding="utf-8"))
TYPES = onnx.TensorProto
# Bytes of a number in memory; integers of 32 bits are restored to 64.
WIDTH = {TYPES.INT4: 0.5, TYPES.INT8: 1, TYPES.UINT8: 1, TYPES.FLOAT16: 2, TYPES.INT32: 8, TYPES.INT64: 8, TYPES.FLOAT: 4}


@pytest.fixture(scope="module")
def graph():
    return onnx.load(ROOT / "onnx" / "model_quantized.onnx")


def test_what_must_be_deployed_is_small():
    assert folder_size(ROOT, DEPLOYABLE) <= BUDGET["deployable_bytes"]


def run_for_each_query(graph):
    """The nodes that a session does not compute once, when it loads the graph."""
    constant, running = {item.name for item in graph.graph.initializer}, []
    for node in graph.graph.node:
        if all(name in constant for name in node.input):
            constant.update(node.output)
        else:
            running.append(node)
    return running


def test_the_graph_is_fused_and_computes_with_integers(graph):
    assert len(run_for_each_query(graph)) <= BUDGET["nodes_run_for_each_query"]
    assert count_quantized_operators(graph) >= BUDGET["integer_operators"]
    # Each would be a search for a batch's range, and make a query's answer depend on its neighbours.
    assert not [node for node in graph.graph.node if node.op_type.startswith("Dynamic")]


def test_weights_take_little_memory(graph):
    restored = {node.input[0] for node in graph.graph.node if node.op_type == "DequantizeLinear"}
    sizes = (np.prod(item.dims) * (4 if item.name in restored else WIDTH[item.data_type]) for item in graph.graph.initializer)
    assert sum(sizes) <= BUDGET["bytes_in_memory"]


def test_the_runtime_imports_nothing_more():
    code = (
        "import sys; before = set(sys.modules); import ultra_light_predictor as u; u.UltraLightPredictor('.').predict('省油');"
        "print(*{name.split('.')[0] for name in set(sys.modules) - before})"
    )
    result = run_script("-c", code)
    assert result.returncode == 0, result.stderr
    third_party = {name for name in result.stdout.split() if name not in sys.stdlib_module_names and not name.startswith("_")}
    assert third_party - {"ultra_light_predictor"} <= set(BUDGET["runtime_packages"])
