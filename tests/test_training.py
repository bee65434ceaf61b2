import json

import pytest
import torch
from safetensors.torch import load_file

from modeling_ultralight import NgramEmbedding
from tests.conftest import SMALL_MODEL, run_in_two_parts, run_script
from ultralight import pruning
from ultralight.dataset import load_splits
from ultralight.experiment import run
from ultralight.problems import InputError
from ultralight.settings import TrainSettings
from ultralight.training import tokenize
from ultralight.vocabulary import build_tokenizer

QUICK = {**SMALL_MODEL, "epochs": 2}


def scores(metrics):
    return metrics["validation"], metrics["test"]


def test_training_learns_the_labels(trained):
    _, metrics = trained
    assert metrics["test"]["micro_f1"] > 0.8
    assert metrics["test_int8"]["micro_f1"] == pytest.approx(metrics["test"]["micro_f1"], abs=0.05)
    assert set(metrics["test"]["per_label"]) == {"饮料", "冷热", "带走"}


def test_everything_is_written(trained):
    folder, metrics = trained
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert names == {
        "README.md", "QueryLabels.json", "config.json", "configuration_ultralight.py", "metrics.json", "model.safetensors",
        "modeling_ultralight.py", "ultra_light_predictor.py",
        "onnx/model.onnx", "onnx/model_quantized.onnx", "plots/confusion.png", "plots/per_label_f1.png", "plots/training.png",
        "pipeline_ultralight.py", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    written = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert written["test_int8"]["micro_f1"] == pytest.approx(metrics["test_int8"]["micro_f1"], abs=1e-4)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert [label for label, _ in config["label_schema"]] == ["饮料", "冷热", "带走"]
    assert set(config["thresholds"]) == {"饮料", "冷热", "带走"}
    assert config["training_facts"]["queries"]["train"] > 0


def test_pruned_embeddings_stay_zero(trained):
    folder, metrics = trained
    weights = load_file(folder / "model.safetensors")
    tables = {name: table for name, table in weights.items() if "embeddings.weight" in name}
    assert len(tables) == 4
    for table in tables.values():
        assert (table == 0).float().mean() >= 0.29  # rounding adds zeros, where a row is small
    unowned = (weights["bert.embeddings.ngram_embeddings.owners"] == NgramEmbedding.NOBODY).float().mean().item()
    assert unowned > 0.3  # rows that no n-gram was given are zeros too, here more than are to be pruned
    zeros = sum(table.numel() * (unowned if "ngram" in name else 0.3) for name, table in tables.items())
    assert metrics["embedding_zeros"]["model"] == pytest.approx(zeros / sum(map(torch.numel, tables.values())), abs=0.01)
    assert metrics["embedding_zeros"]["int8"] >= 0.29


def test_the_same_seed_gives_the_same_metrics(orders, tmp_path):
    first, again = (run(TrainSettings(dataset=str(orders), output_dir=str(tmp_path / name), **QUICK)) for name in ("first", "again"))
    assert scores(first) == scores(again)


def weights_of(folder):
    return load_file(folder / "model.safetensors")


def test_an_interrupted_run_goes_on_as_if_it_had_not_been(orders, tmp_path, monkeypatch):
    # Twelve steps of pruning more and more, of which six are behind: between two choices of what to prune.
    monkeypatch.setattr(pruning, "INTERVAL", 4)
    settings = {**QUICK, "dataset": str(orders), "embedding_pruning": 0.3, "epochs": 8}
    whole = run(TrainSettings(output_dir=str(tmp_path / "whole"), **settings))
    resumed = run_in_two_parts(monkeypatch, 1, output_dir=str(tmp_path / "parts"), **settings)
    assert scores(resumed) == scores(whole)
    theirs = weights_of(tmp_path / "whole")
    assert all(torch.equal(weights, theirs[name]) for name, weights in weights_of(tmp_path / "parts").items())
    assert not (tmp_path / "parts" / "checkpoints").exists()


def test_an_interrupted_run_has_the_patience_that_was_left(orders, tmp_path, monkeypatch):
    # A rate at which nothing changes: the first epoch stays the best one, and the fourth is the last.
    settings = {**QUICK, "dataset": str(orders), "learning_rate": 1e-30, "early_stopping_patience": 3, "epochs": 8}
    run_in_two_parts(monkeypatch, 3, output_dir=str(tmp_path), **settings)
    assert json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))["training_facts"]["epochs_trained"] == 4


def test_a_student_learns_from_its_teachers(trained, orders, tmp_path):
    folder, _ = trained
    student = {**SMALL_MODEL, "hidden_dim": 16, "epochs": 20}
    # All the weight on the teachers: the labels teach nothing.
    metrics = run(
        TrainSettings(
            dataset=str(orders),
            output_dir=str(tmp_path / "student"),
            distillation=True,
            teacher=[str(folder)] * 2,
            distillation_weight=1.0,
            **student,
        )
    )
    assert metrics["test"]["micro_f1"] > 0.6


def test_a_teacher_of_other_labels_is_refused(trained, orders, tmp_path):
    folder, _ = trained
    labels = tmp_path / "labels.json"
    labels.write_text('{"带走": ["无", "是"], "冷热": ["无", "冰的", "热的"], "饮料": ["无", "茶", "咖啡", "果汁"]}', encoding="utf-8")
    with pytest.raises(InputError, match="its labels are not those of this run"):
        run(
            TrainSettings(
                dataset=str(orders), config=str(labels), output_dir=str(tmp_path / "x"), distillation=True, teacher=[str(folder)], **QUICK
            )
        )
    assert not (tmp_path / "x").exists()


def test_class_balance_reaches_the_loss(orders, tmp_path):
    run(TrainSettings(dataset=str(orders), output_dir=str(tmp_path / "balanced"), class_balance=1.0, **{**QUICK, "epochs": 1}))
    config = json.loads((tmp_path / "balanced" / "config.json").read_text(encoding="utf-8"))
    # Half of the orders are taken away, a third are hot: the rarer value weighs more.
    assert len(config["class_weights"]) == 9
    assert config["class_weights"][5] > config["class_weights"][4]


def test_several_processes_tokenise_as_one_does(orders, schema):
    splits, _ = load_splits(str(orders), schema)
    tokenizer = build_tokenizer(splits["train"]["query"], 24)
    one, two = (tokenize(splits["train"], tokenizer, TrainSettings(num_proc=count)) for count in (1, 2))
    assert one[:] == two[:]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_half_precision_needs_a_gpu(orders, tmp_path):
    with pytest.raises(InputError, match="--fp16: needs a GPU; accepted here: --bf16"):
        run(TrainSettings(dataset=str(orders), output_dir=str(tmp_path / "x"), fp16=True, **QUICK))
    assert not (tmp_path / "x").exists()


def test_wrong_input_stops_the_script_with_one_message(orders, tmp_path):
    (tmp_path / "train.jsonl").write_text('{"query": "一杯", "labels": {"饮品": "茶"}}\n', encoding="utf-8")
    result = run_script("train.py", "--dataset", tmp_path, "--config", orders / "QueryLabels.json", "--output_dir", tmp_path / "out")
    assert result.returncode == 2
    assert "error: " in result.stderr
    assert "line 1: unknown label '饮品'" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()
