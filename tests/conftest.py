"""Small data and a small trained model, made in memory: nothing is fetched."""

import json
import os
import subprocess
import sys
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

import pytest

from ultralight import experiment
from ultralight.experiment import run
from ultralight.schema import LabelSchema
from ultralight.settings import TrainSettings

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"

LABELS = {"饮料": ["无", "茶", "咖啡", "果汁"], "冷热": ["无", "冰的", "热的"], "带走": ["无", "是"]}
WORDS = {
    "饮料": {"茶": ["乌龙", "普洱", "龙井"], "咖啡": ["拿铁", "美式", "espresso"], "果汁": ["鲜橙", "西瓜", "苹果汁"]},
    "冷热": {"冰的": ["加冰", "冰镇"], "热的": ["烫一点", "热乎的"]},
    "带走": {"是": ["打包", "带去公司"]},
}
SMALL_MODEL = {
    "hidden_dim": 32, "num_heads": 2, "num_layers": 2, "intermediate_dim": 64, "projection_dim": 24, "max_seq_length": 24, "dropout": 0.0,
    "learning_rate": 5e-3, "encoder_rate": 1.0, "batch_size": 16, "early_stopping_patience": 0, "model_name": "scratch", "ngram_rows": 307,
}  # fmt: skip

# Runs snippets, each in a namespace of its own, as a script would be; prints as JSON what each printed.
RUN_SNIPPETS = """
import contextlib, io, json, sys
sys.path.insert(0, "")
printed = []
for snippet in json.loads(sys.argv[1]):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(snippet, "snippet", "exec"), {"__name__": "__main__"})
    printed.append(out.getvalue())
print(json.dumps(printed))
"""


@pytest.fixture(scope="session", autouse=True)
def _private_caches(tmp_path_factory):
    """Remote code and data sets go to folders of this run."""
    folder = tmp_path_factory.mktemp("hf")
    os.environ["HF_MODULES_CACHE"] = str(folder / "modules")
    os.environ["HF_DATASETS_CACHE"] = str(folder / "datasets")


@pytest.fixture(scope="session")
def schema():
    return LabelSchema.from_dict(LABELS)


def order_rows():
    """108 orders: every drink with every temperature, some of them to take away."""
    rows = []
    drinks = [(value, word) for value, words in WORDS["饮料"].items() for word in words]
    extras = [(value, word) for value, words in WORDS["冷热"].items() for word in words] + [(None, "")] * 2
    for number, (drink, word) in enumerate(drinks):
        for index, (temperature, how) in enumerate(extras):
            for bag in ("", "打包"):
                labels = {"饮料": drink}
                if temperature:
                    labels["冷热"] = temperature
                if bag:
                    labels["带走"] = "是"
                rows.append({"query": f"来{(7 * number + 5 * index) % 9 + 1}杯{word}{how}{bag}", "labels": labels})
    return rows + [{"query": f"今天{weather}真不错", "labels": {}} for weather in ("天气", "心情", "路况", "阳光")]


def write_jsonl(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def orders(tmp_path_factory):
    """A dataset folder with its labels file."""
    folder = tmp_path_factory.mktemp("orders")
    write_jsonl(folder / "train.jsonl", order_rows())
    (folder / "QueryLabels.json").write_text(json.dumps(LABELS, ensure_ascii=False), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def trained(orders, tmp_path_factory):
    """A trained, exported and quantised model folder, and its metrics."""
    folder = tmp_path_factory.mktemp("trained") / "orders_model"
    settings = TrainSettings(
        dataset=str(orders), output_dir=str(folder), epochs=40, embedding_pruning=0.3, export_onnx=True, quantize=True, **SMALL_MODEL
    )
    return folder, run(settings)


def assert_same_answers(answers, expected):
    """Equal values, with scores that differ by no more than the order in which floats are added explains."""
    for answer, other in zip(answers, expected, strict=True):
        assert {label: shown["value"] for label, shown in answer.items()} == {label: shown["value"] for label, shown in other.items()}
        assert [shown["score"] for shown in answer.values()] == pytest.approx([shown["score"] for shown in other.values()], abs=1e-5)


def make_environment(folder, *packages):
    """An environment of its own with other packages; returns its python."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    site = next(folder.glob("lib/python*/site-packages"))
    # torch and the rest come from this environment; what is installed stands before them.
    (site / "parent.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")), encoding="utf-8")
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
    return python


def run_script(*arguments, cwd=ROOT, stdin=None, **environment):
    """Runs a script of the project in a fresh process."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        input=stdin,
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONIOENCODING": "utf-8", **environment},
        check=False,
    )


@pytest.fixture(scope="session")
def transformers_5(tmp_path_factory):
    """First arguments of `run_script` to run Python in a second environment, with transformers 5."""
    python = make_environment(tmp_path_factory.mktemp("transformers_5") / "environment", "transformers==5.23.0")
    return "-c", "import subprocess, sys; sys.exit(subprocess.run(sys.argv[1:]).returncode)", python


def run_in_two_parts(monkeypatch, epoch, **settings):
    """A run that is stopped after the checkpoint of an epoch, as Ctrl-C would, and resumed."""
    make_trainer = experiment.make_trainer

    def make_stopping_trainer(*args, **kwargs):
        trainer = make_trainer(*args, **kwargs)

        def interrupt(arguments, state, control):
            if round(state.epoch, 2) >= epoch:
                raise KeyboardInterrupt
            return control

        trainer.callback_handler.on_save = interrupt
        return trainer

    with monkeypatch.context() as patch:
        patch.setattr(experiment, "make_trainer", make_stopping_trainer)
        with pytest.raises(KeyboardInterrupt):
            run(TrainSettings(**settings))
    # What is left of a checkpoint that the next interruption hit while it was written.
    (Path(settings["output_dir"]) / "checkpoints" / "checkpoint-999").mkdir()
    return run(TrainSettings(resume=True, **settings))
