"""How long training takes for a number of queries, from a few steps of each."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from transformers import TrainerCallback

from ultralight.dataset import find_labels_file, load_splits
from ultralight.files import write_text
from ultralight.progress import progress
from ultralight.records import locate_splits
from ultralight.schema import LABELS_FILE, LabelSchema
from ultralight.settings import TrainSettings
from ultralight.training import make_trainer, remove_checkpoints

# Steps to time, after those that still warm up.
WARM_UP, TIMED = 5, 30


class StepClock(TrainerCallback):
    """Seconds of each training step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._begin = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Starts the clock."""
        self._begin = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Stops it."""
        self.seconds.append(time.perf_counter() - self._begin)


def measure_training(sizes: Sequence[int], dataset: str, settings: TrainSettings, folder: Path) -> list[dict[str, float]]:
    """Times, for each number of queries, what comes before training, a step and an evaluation, and projects the rest.

    Args:
        sizes: numbers of queries.
        dataset: whose training queries are read, and joined in pairs where there are not enough.
        settings: of the training.
        folder: for the generated data.

    Returns:
        For each size: `queries`; measured, in seconds: `loading`, `setting_up` (vocabulary, model, tokens), `step`, `evaluation`;
        `steps` and `epochs` of a whole training, at most; and their sum, `projected_seconds`.
    """
    return [_measure(size, dataset, settings, folder / str(size)) for size in progress(sizes, "training", "sizes")]


def write_rows(path: Path, source: Path, count: int) -> None:
    """Writes so many different labelled queries: those of a file, then pairs of them, with the labels of both."""
    rows = [json.loads(line) for line in source.read_text(encoding="utf-8").split("\n") if line.strip()]
    chosen = {row["query"]: row["labels"] for row in rows[:count]}
    dice = random.Random(0)
    while len(chosen) < count:
        first, second = dice.sample(rows, 2)
        chosen[f"{first['query']}，{second['query']}"] = {**second["labels"], **first["labels"]}
    lines = (json.dumps({"query": query, "labels": labels}, ensure_ascii=False) for query, labels in chosen.items())
    write_text(path, "\n".join(lines) + "\n")


def _measure(size: int, dataset: str, settings: TrainSettings, folder: Path) -> dict[str, float]:
    source = (locate_splits(dataset) or {})["train"]
    write_rows(folder / "train.jsonl", source, size)
    shutil.copyfile(find_labels_file(dataset), folder / LABELS_FILE)
    schema = LabelSchema.from_file(folder / LABELS_FILE)
    clock, marks = StepClock(), [time.perf_counter()]
    # Pairs may say otherwise than a query that reads the same.
    splits, _ = load_splits(str(folder), schema, contradictions="first")
    marks.append(time.perf_counter())
    short = dataclasses.replace(settings, epochs=None, steps=WARM_UP + TIMED, early_stopping_patience=0)
    trainer = make_trainer(splits, schema, short)
    trainer.add_callback(clock)
    marks.append(time.perf_counter())
    trainer.train()
    marks.append(time.perf_counter())
    trainer.evaluate()
    marks.append(time.perf_counter())
    remove_checkpoints(trainer)
    rows = len(splits["train"])
    measured = {
        "loading": marks[1] - marks[0],
        "setting_up": marks[2] - marks[1],
        "step": median(clock.seconds[WARM_UP:]),
        "evaluation": marks[4] - marks[3],
    }
    steps, epochs = settings.steps_for(rows), settings.epochs_for(rows)
    total = measured["loading"] + measured["setting_up"] + steps * measured["step"] + epochs * measured["evaluation"]
    return {"queries": size, **measured, "steps": steps, "epochs": epochs, "projected_seconds": total}
