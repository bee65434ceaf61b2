"""Several processes train, evaluate and go on as one does."""

import json
import os
import subprocess
import sys
import time

import psutil
import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import LABELS, ROOT, SMALL_MODEL, order_rows, run_script, write_jsonl
from ultralight.experiment import run
from ultralight.settings import TrainSettings

pytestmark = pytest.mark.slow
LAUNCH = ("-m", "accelerate.commands.launch", "--config_file")
# Nothing is drawn at random but weights and order: two processes then compute what one does, but for the order of sums.
SETTINGS = {**SMALL_MODEL, "joining": 0.0, "epochs": 30, "embedding_pruning": 0.3}


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    """Whole batches to train on; numbers of rows to evaluate that two processes cannot share evenly."""
    folder = tmp_path_factory.mktemp("uneven")
    rows = order_rows()
    write_jsonl(folder / "train.jsonl", rows[:96])
    write_jsonl(folder / "validation.jsonl", [{**row, "query": row["query"] + "吧"} for row in rows[:75]])
    asked = [{**row, "query": f"{word}{row['query']}"} for word in ("请", "我", "再", "快", "先", "另") for row in rows]
    write_jsonl(folder / "test.jsonl", asked[:601])
    (folder / "QueryLabels.json").write_text(json.dumps(LABELS, ensure_ascii=False), encoding="utf-8")
    return folder


def flags(dataset, out, **settings):
    named = {"dataset": dataset, "output_dir": out, **SETTINGS, **settings}
    return [str(item) for name, value in named.items() for item in (f"--{name}", value)]


def launch(config, *arguments):
    result = run_script(*LAUNCH, ROOT / "configs" / "accelerate" / config, "train.py", *arguments)
    assert result.returncode == 0, result.stderr[-3000:]
    return result


def outcome(folder):
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8")), load_file(folder / "model.safetensors")


@pytest.fixture(scope="module")
def two(uneven, tmp_path_factory):
    """The folder that two processes wrote, and what they printed."""
    folder = tmp_path_factory.mktemp("two")
    return folder, launch("cpu_2.yaml", *flags(uneven, folder, export_onnx=True, quantize=True)).stdout


def kill_after(file, *arguments):
    """Starts two processes and kills both, and what started them, as soon as a file is there."""
    launcher = subprocess.Popen(
        [sys.executable, *LAUNCH, str(ROOT / "configs" / "accelerate" / "cpu_2.yaml"), "train.py", *arguments],
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(os.environ),
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while not file.exists() and launcher.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
    finally:
        family = [psutil.Process(launcher.pid), *psutil.Process(launcher.pid).children(recursive=True)]
        for process in family:
            process.kill()
        launcher.wait()
    assert len(family) == 3
    assert file.exists()


def test_two_processes_train_one_model(uneven, two, tmp_path):
    folder, printed = two
    assert printed.count("micro-F1") == 1  # one process reports
    assert (folder / "onnx" / "model_quantized.onnx").is_file()
    assert not (folder / "checkpoints").exists()
    one = run(TrainSettings(dataset=str(uneven), output_dir=str(tmp_path), **SETTINGS))
    metrics, weights = outcome(folder)
    # Every row counts once: as many values as the file holds.
    rows = [json.loads(line)["labels"] for line in (uneven / "test.jsonl").read_text(encoding="utf-8").splitlines()]
    supports = {label: score["support"] for label, score in metrics["test"]["per_label"].items()}
    assert supports == {label: sum(label in labels for labels in rows) for label in LABELS}
    for split in ("validation", "test"):
        assert metrics[split]["micro_f1"] == pytest.approx(one[split]["micro_f1"], abs=0.01)
    _, theirs = outcome(tmp_path)
    for name, own in weights.items():
        assert torch.allclose(own, theirs[name], atol=1e-3), name


def test_two_processes_that_were_killed_go_on(uneven, two, tmp_path):
    arguments = flags(uneven, tmp_path, export_onnx=False, quantize=False)
    kill_after(tmp_path / "checkpoints" / "checkpoint-24" / "trainer_state.json", *arguments)
    launch("cpu_2.yaml", *arguments, "--resume")
    (metrics, weights), (whole, theirs) = outcome(tmp_path), outcome(two[0])
    assert metrics["test"] == whole["test"]
    assert all(torch.equal(own, theirs[name]) for name, own in weights.items())


@pytest.mark.parametrize(("config", "settings"), [("cpu_2.yaml", {"streaming": True, "bf16": True}), ("single_gpu_bf16.yaml", {})])
def test_a_stream_and_mixed_precision_change_nothing_that_matters(uneven, tmp_path, config, settings):
    launch(config, *flags(uneven, tmp_path, export_onnx=True, quantize=True, **settings))
    metrics, weights = outcome(tmp_path)
    assert metrics["validation"]["micro_f1"] > 0.9
    assert metrics["test"]["micro_f1"] > 0.8
    assert not any(own.dtype == torch.bfloat16 for own in weights.values())
