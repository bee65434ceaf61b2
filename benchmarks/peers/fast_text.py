"""fastText, one-vs-all over all (label, value) pairs, and its quantised form."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import fasttext
import numpy as np

from benchmarks.peers.job import Job, search, tune, write_labels
from benchmarks.runtimes.answers import Answers
from benchmarks.runtimes.fast_text import PREFIX, FastTextScorer, spaced
from ultralight.files import write_text

# fastText skips rows without a class: queries that imply nothing get this one.
NOTHING = "none"
SEED = 42


@dataclass(frozen=True)
class Setting:
    """One point of the grid: characters are the words, so `wordNgrams` are n-grams of characters."""

    lr: float
    epoch: int
    wordNgrams: int
    dim: int
    bucket: int = 100_000


@dataclass(frozen=True)
class Cut:
    """Rows that the quantised model keeps."""

    cutoff: int


GRID = tuple(Setting(*point) for point in product((0.5, 1.0), (5, 15), (2, 3), (32, 64)))
CUTS = (Cut(10_000), Cut(30_000))


def recipe(job: Job) -> dict[str, Any]:
    """What decides the outcome."""
    return {"grid": [asdict(setting) for setting in GRID], "cuts": [asdict(cut) for cut in CUTS]}


def train(job: Job) -> dict[str, Any]:
    """Trains with every setting, keeps the best, and quantises it."""
    rows = job.folder / "rows.txt"
    write_rows(job, rows)
    answers = Answers(job.schema.to_dict(), {})

    def full(setting: Setting) -> FastTextScorer:
        return FastTextScorer(_train(rows, setting), answers)

    best, facts = search(job.grid(GRID), full, job)
    best.scorer.model.save_model(str(job.folder / "model.bin"))
    write_labels(job.folder, job.schema, best.thresholds)
    facts["quantized"] = _quantize(job, rows, answers)
    rows.unlink()
    return facts


def write_rows(job: Job, path: Path) -> None:
    """Writes the training queries as fastText reads them."""
    starts = np.cumsum([0, *job.schema.sizes[:-1]])
    lines = []
    for query, row in zip(job.queries("train"), job.labels("train"), strict=True):
        classes = [start + value for start, value in zip(starts, row, strict=True) if value] or [NOTHING]
        lines.append(" ".join([*(f"{PREFIX}{name}" for name in classes), spaced(query)]))
    write_text(path, "\n".join(lines) + "\n")


def _train(rows: Path, setting: Setting) -> Any:
    # One thread: the same seed then gives the same model.
    return fasttext.train_supervised(str(rows), loss="ova", minCount=1, thread=1, seed=SEED, verbose=0, **asdict(setting))


def _quantize(job: Job, rows: Path, answers: Answers) -> dict[str, Any]:
    """Quantises to the best of several sizes; its thresholds are its own."""
    folder = job.folder / "quantized"

    def cut(candidate: Cut) -> FastTextScorer:
        # quantize() works in place: every candidate begins with the full model.
        model = fasttext.load_model(str(job.folder / "model.bin"))
        model.quantize(str(rows), cutoff=candidate.cutoff, retrain=True, qnorm=True, thread=1, verbose=0)
        return FastTextScorer(model, answers)

    best, facts = search(job.grid(CUTS), cut, job)
    folder.mkdir()
    best.scorer.model.save_model(str(folder / "model.ftz"))
    # As it will be read: what is in memory keeps more digits.
    saved = tune(FastTextScorer(fasttext.load_model(str(folder / "model.ftz")), answers), job)
    write_labels(folder, job.schema, saved.thresholds)
    return facts
