"""Training rows that are read anew every time instead of being kept."""

import csv
import json
import random
import tracemalloc
from collections import Counter

import pyarrow
import pyarrow.parquet
import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import LABELS, SMALL_MODEL, order_rows, run_in_two_parts, write_jsonl
from ultralight import streaming
from ultralight.dataset import load_splits
from ultralight.experiment import run
from ultralight.problems import InputError
from ultralight.records import number_rows, open_hub
from ultralight.settings import TrainSettings
from ultralight.streaming import ShuffledStream, StreamedRows, load_streamed


def contents(rows):
    return Counter((query, tuple(labels)) for query, labels in zip(rows["query"], rows["labels"], strict=True))


def write_csv(folder, rows):
    with (folder / "train.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["query", *LABELS])
        writer.writeheader()
        writer.writerows({"query": row["query"], **row["labels"]} for row in rows)


def write_parquet(folder, rows):
    table = {"query": [row["query"] for row in rows], **{label: [row["labels"].get(label) for row in rows] for label in LABELS}}
    pyarrow.parquet.write_table(pyarrow.table(table), folder / "train.parquet")


FORMS = {"jsonl": lambda folder, rows: write_jsonl(folder / "train.jsonl", rows), "csv": write_csv, "parquet": write_parquet}


@pytest.mark.parametrize("form", FORMS)
def test_it_reads_what_the_ordinary_way_reads(tmp_path, schema, form):
    rows = order_rows()
    FORMS[form](tmp_path, rows)
    write_jsonl(tmp_path / "validation.jsonl", rows[::9])
    write_jsonl(tmp_path / "test.jsonl", rows[1::9])
    (streamed, warned), (kept, warned_too) = load_streamed(str(tmp_path), schema), load_splits(str(tmp_path), schema)
    assert warned == warned_too == ["train: 26 row(s) left out that another split holds as well"]
    for split, expected in kept.items():
        assert len(streamed[split]) == len(expected)
        # Twice: a stream can be read again and again.
        assert contents(streamed[split]) == contents(streamed[split]) == contents(expected)


def test_missing_splits_are_cut_by_the_texts_alone(tmp_path, schema):
    rows = order_rows()
    copies = [*rows, *rows[:40]]
    shuffled = random.Random(0).sample(copies, len(copies))
    splits, _ = load_streamed(str(write_jsonl(tmp_path / "rows.jsonl", copies)), schema)
    again, _ = load_streamed(str(write_jsonl(tmp_path / "shuffled.jsonl", shuffled)), schema)
    other, _ = load_streamed(str(write_jsonl(tmp_path / "rows.jsonl", copies)), schema, split_seed=1)
    cut = {split: contents(splits[split]) for split in ("validation", "test")}
    assert [len(splits[split]) for split in cut] == [15, 15]  # a tenth of 152
    assert {split: contents(again[split]) for split in cut} == cut
    assert contents(other["test"]) != cut["test"]
    # No copy of a text that was cut stays behind, and nothing else is missing.
    everything = Counter((row["query"], tuple(schema.encode(row["labels"]))) for row in copies)
    train = contents(splits["train"])
    assert sum(train.values()) == len(splits["train"])
    assert train == Counter({row: count for row, count in everything.items() if row not in cut["validation"] + cut["test"]})
    assert not cut["validation"] & cut["test"]


def test_wrong_rows_are_named_with_their_place(tmp_path, schema):
    rows = [*order_rows(), {"query": "一杯", "labels": {"饮料": "水"}}, *order_rows(), {"query": 7}]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    with pytest.raises(InputError) as error:
        load_streamed(str(path), schema)
    first, second = len(order_rows()) + 1, len(rows)
    assert f"{path}, line {first}: '饮料' has the unknown value '水'; accepted: '无', '茶', '咖啡', '果汁'" in str(error.value)
    assert f"{path}, line {second}: 'query' is a number (7); accepted: a string" in str(error.value)


def test_a_row_that_becomes_wrong_stops_training(tmp_path, schema):
    path = write_jsonl(tmp_path / "rows.jsonl", order_rows())
    splits, _ = load_streamed(str(path), schema)
    stream = ShuffledStream(splits["train"], lambda batch: {"input_ids": [[1]] * len(batch["query"])}, seed=0)
    assert len(list(stream)) == len(stream)
    path.write_text(path.read_text(encoding="utf-8") + "{\n", encoding="utf-8")
    with pytest.raises(InputError, match=f"line {len(order_rows()) + 1}: not JSON"):
        list(stream)


def test_reading_stops_when_a_page_of_rows_is_wrong(tmp_path, schema):
    path = write_jsonl(tmp_path / "rows.jsonl", [{"query": "一杯", "labels": {"饮品": "茶"}}] * 1000)
    with pytest.raises(InputError, match="20 problems"):
        load_streamed(str(path), schema)


def test_a_list_cannot_be_streamed(tmp_path, schema):
    path = tmp_path / "train.json"
    path.write_text(json.dumps(order_rows(), ensure_ascii=False), encoding="utf-8")
    with pytest.raises(InputError, match=r"accepted: \.jsonl, \.csv, \.parquet"):
        load_streamed(str(path), schema)


def test_rows_of_a_hub_dataset_are_read_as_they_come(orders, schema):
    loaded = open_hub(str(orders), streaming=True)["train"]
    rows = StreamedRows("orders", lambda: number_rows(loaded, "orders, train"), schema)
    assert contents(rows) == Counter((row["query"], tuple(schema.encode(row["labels"]))) for row in order_rows())


def test_every_epoch_has_an_order_of_its_own(tmp_path, schema):
    splits, _ = load_streamed(str(write_jsonl(tmp_path / "rows.jsonl", order_rows())), schema)
    stream = ShuffledStream(splits["train"], lambda batch: {"input_ids": [list(map(ord, query)) for query in batch["query"]]}, seed=0)
    orders = []
    for epoch in (0, 1, 0):
        stream.set_epoch(epoch)
        orders.append([row["input_ids"] for row in stream])
    assert orders[0] == orders[2]
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])


def test_memory_does_not_grow_with_the_rows(tmp_path, schema, monkeypatch):
    monkeypatch.setattr(streaming, "LARGEST_CUT", 50)
    monkeypatch.setattr(streaming, "BUFFER", 50)
    peaks = []
    for count in (2500, 6500):
        rows = ({"query": f"{number}号来一杯乌龙", "labels": {"饮料": "茶"}} for number in range(count))
        path = write_jsonl(tmp_path / "rows.jsonl", rows)
        tracemalloc.start()
        splits, _ = load_streamed(str(path), schema)
        stream = ShuffledStream(splits["train"], lambda batch: {"input_ids": [[1]] * len(batch["query"])}, seed=0)
        assert sum(1 for _ in stream) == count - 100
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 200_000  # the texts alone of 4,000 rows are more


def test_a_streamed_run_is_as_good_as_any(orders, trained, tmp_path):
    settings = {**SMALL_MODEL, "steps": 240, "class_balance": 0.2, "embedding_pruning": 0.3, "early_stopping_patience": 20}
    metrics = run(TrainSettings(dataset=str(orders), output_dir=str(tmp_path), streaming=True, **settings))
    _, kept = trained
    assert metrics["test"]["micro_f1"] > 0.8
    assert metrics["embedding_zeros"]["model"] == pytest.approx(kept["embedding_zeros"]["model"], abs=0.01)
    facts = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))["training_facts"]
    assert facts["queries"] == {"train": 90, "validation": 11, "test": 11}
    assert facts["epochs_trained"] == 40  # six steps each


def test_an_interrupted_stream_goes_on_where_it_was(orders, tmp_path, monkeypatch):
    # A checkpoint every step; the third is in the middle of the first epoch.
    settings = {**SMALL_MODEL, "joining": 0.0, "steps": 12, "streaming": True, "dataset": str(orders)}
    run(TrainSettings(output_dir=str(tmp_path / "whole"), **settings))
    run_in_two_parts(monkeypatch, 0.5, output_dir=str(tmp_path / "parts"), **settings)
    whole, parts = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(weights, whole[name]) for name, weights in parts.items())
