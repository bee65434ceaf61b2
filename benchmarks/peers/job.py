"""What every peer's training needs: the same splits, a grid that is searched on validation, and what it leaves behind."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from datasets import DatasetDict

from benchmarks.runtimes.answers import LABELS_FILE, Answers
from ultralight.dataset import find_labels_file, load_splits
from ultralight.files import write_text
from ultralight.schema import LabelSchema
from ultralight.scores import score
from ultralight.thresholds import tune_thresholds

# Tokens that a query may have where a dataset's queries are longer than car queries: for every model that has a limit.
LONGEST = {"bdci_car": 128}


@dataclass(frozen=True)
class Job:
    """One product to train on one dataset.

    Args:
        dataset: in any form that train.py reads.
        product: its name, and that of its folder.
        folder: where it goes.
        quick: a smoke run: the first point of the grid, hardly trained.
        trained: a folder that train.py wrote, to take the product from instead of training it.
        flags: further flags of train.py for the presets of this project.
    """

    dataset: str
    product: str
    folder: Path
    quick: bool = False
    trained: Path | None = None
    flags: tuple[str, ...] = ()

    @property
    def dataset_name(self) -> str:
        """The dataset in tables and folders."""
        return Path(self.dataset.rstrip("/")).stem

    @property
    def longest(self) -> int | None:
        """Tokens of the longest query, where the dataset asks for more than usual."""
        return LONGEST.get(self.dataset_name)

    def grid(self, candidates: Sequence[Any]) -> Sequence[Any]:
        """The candidates, or the first of them in a smoke run."""
        return candidates[:1] if self.quick else candidates

    @cached_property
    def schema(self) -> LabelSchema:
        """The labels."""
        return LabelSchema.from_file(find_labels_file(self.dataset))

    @cached_property
    def splits(self) -> DatasetDict:
        """The splits that train.py would train on, with its default seed."""
        return load_splits(self.dataset, self.schema)[0]

    def queries(self, split: str) -> list[str]:
        """Texts of a split."""
        return list(self.splits[split]["query"])

    def labels(self, split: str) -> np.ndarray:
        """Index of the right value within each label (queries, labels)."""
        return np.array(self.splits[split]["labels"])


class Scorer(Protocol):
    """Computes the probability of every value within its label (queries, sum of values)."""

    def __call__(self, queries: Sequence[str]) -> np.ndarray:
        """Probabilities of some queries."""
        ...


@dataclass(frozen=True)
class Tuned:
    """A scorer with thresholds tuned on validation, and the micro-F1 that it has there."""

    scorer: Any
    thresholds: dict[str, float]
    micro_f1: float


def tune(scorer: Scorer, job: Job) -> Tuned:
    """Tunes thresholds as for this project's own models."""
    probabilities, references = scorer(job.queries("validation")), job.labels("validation")
    thresholds = tune_thresholds(probabilities, references, job.schema)
    chosen = Answers(job.schema.to_dict(), thresholds).decide(probabilities)
    return Tuned(scorer, thresholds, score(chosen, references, job.schema)["micro_f1"])


Candidate = TypeVar("Candidate")


def search(candidates: Iterable[Candidate], fit: Callable[[Candidate], Scorer], job: Job) -> tuple[Tuned, dict[str, Any]]:
    """Fits every candidate setting and keeps the one that is best on validation.

    Returns:
        The best one, and for the report its setting and what was tried.
    """
    tried = [(tune(fit(candidate), job), candidate) for candidate in candidates]
    best, chosen = max(tried, key=lambda pair: pair[0].micro_f1)
    facts = {
        "chosen": _plain(chosen),
        "validation_micro_f1": best.micro_f1,
        "tried": [{"setting": _plain(candidate), "micro_f1": tuned.micro_f1} for tuned, candidate in tried],
    }
    return best, facts


def write_labels(folder: Path, schema: LabelSchema, thresholds: dict[str, float]) -> None:
    """Writes the labels file that a peer's runtime reads."""
    write_text(folder / LABELS_FILE, json.dumps({"schema": schema.to_dict(), "thresholds": thresholds}, ensure_ascii=False))


def _plain(candidate: Any) -> dict[str, Any]:
    return asdict(candidate)
