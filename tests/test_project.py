"""What holds the project together."""

import ast
import re
import sys

import pytest

from tests.conftest import ROOT, run_script

# Modules may import those that stand before them.
ORDER = [
    "problems", "command_line", "progress", "files", "text", "schema", "rows", "scores", "report", "query_files", "records",
    "dataset", "streaming", "settings", "pretrain_settings", "vocabulary", "evidence", "ngrams", "linear_part", "model_builder",
    "pruning", "rounding", "inference", "distillation", "batching", "reporting", "augmentation", "thresholds", "metrics.implicit_labels",
    "training", "plots", "onnx_graph", "onnx_export", "corpus", "linear", "teachers", "latency", "model_folder", "model_card",
    "scored_export", "hub", "experiment", "masking", "pretraining",
]  # fmt: skip
SCRIPTS = [
    *sorted(path.name for path in ROOT.glob("*.py") if "run_command(" in path.read_text(encoding="utf-8")),
    *sorted(f"-m benchmarks.{path.stem}" for path in ROOT.glob("benchmarks/*.py") if "run_command(" in path.read_text(encoding="utf-8")),
]
# huggingface_hub only where a model is named instead of its folder.
RUNTIME = {"onnxruntime", "numpy", "tqdm", "pyarrow", "huggingface_hub", "ultra_light_predictor", "ultralight"}


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module


def module_path(name):
    return ROOT / "ultralight" / (name.replace(".", "/") + ".py")


def test_every_module_has_its_place():
    found = {".".join(path.relative_to(ROOT / "ultralight").with_suffix("").parts) for path in (ROOT / "ultralight").rglob("*.py")}
    assert found - {"__init__"} == set(ORDER)


@pytest.mark.parametrize("name", ORDER)
def test_imports_run_one_way(name):
    before = ORDER[: ORDER.index(name)]
    for imported in imports_of(module_path(name)):
        if imported.startswith("ultralight."):
            assert imported.removeprefix("ultralight.") in before
        assert imported not in {"train", "export", "predict", "pretrain"}


def test_the_schema_needs_the_standard_library_only():
    for name in ("problems", "command_line", "files", "text", "schema", "rows"):
        foreign = {imported.split(".")[0] for imported in imports_of(module_path(name))} - sys.stdlib_module_names - {"ultralight"}
        assert not foreign


def test_prediction_needs_the_runtime_requirements_only():
    waiting, seen = {ROOT / "predict.py", ROOT / "ultra_light_predictor.py"}, set()
    while waiting:
        path = waiting.pop()
        seen.add(path)
        for imported in imports_of(path):
            assert imported.split(".")[0] in RUNTIME | sys.stdlib_module_names, (path.name, imported)
            if imported.startswith("ultralight.") and module_path(imported.removeprefix("ultralight.")) not in seen:
                waiting.add(module_path(imported.removeprefix("ultralight.")))


def test_files_keep_to_their_size():
    for path in ROOT.glob("ultralight/**/*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, path
    assert len((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines()) <= 40


def test_the_two_commands_stand_in_both_readmes():
    for name in ("README.md", "README.zh-CN.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert "\npip install -r requirements.txt && python train.py\n" in text
        assert "\npip install -r requirements.txt -r requirements-dev.txt && python -m pytest\n" in text


def test_every_file_that_a_readme_links_to_exists():
    for name in ("README.md", "README.zh-CN.md", "data/car_queries/README.md"):
        path = ROOT / name
        for target in re.findall(r"\]\((?!http|#)([^)#]+)\)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), (name, target)


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_explains_itself(script):
    result = run_script(*script.split(), "--help")
    assert result.returncode == 0, result.stderr
    for part in ("usage:", "\nexample", "--quiet", "--debug", "exit codes: 0 done"):
        assert part in result.stdout
