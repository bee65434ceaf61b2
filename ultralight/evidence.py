"""What the training rows tell before training: the token ids of their queries, and which values each implies."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import numpy as np
from transformers import PreTrainedTokenizerFast

from ultralight.schema import LabelSchema

# Training rows that are read: more of them would not change what is chosen or fitted by them.
READ = 100_000


class TrainingRows(Protocol):
    """In memory or streamed: columns `query` and `labels` (index of the right value within each label, -100 where it is not known)."""

    def __getitem__(self, column: str, /) -> Iterable[Any]:
        """One column."""


@dataclass(frozen=True)
class Evidence:
    """Token ids of each query, [CLS] and [SEP] among them, and how sure each value is (queries, sum of values)."""

    ids: list[list[int]]
    values: np.ndarray


def gather_evidence(tokenizer: PreTrainedTokenizerFast, rows: TrainingRows, schema: LabelSchema) -> Evidence:
    """Reads training rows, of very many the first ones, with what teachers say of those that have no labels."""
    ids = tokenizer(list(islice(rows["query"], READ)), truncation=True)["input_ids"]
    return Evidence(ids, known_values(rows, schema))


def known_values(rows: TrainingRows, schema: LabelSchema) -> np.ndarray:
    """A 1 for the right value of each label, or what teachers say of rows without labels (first rows, sum of values)."""
    labels = np.array(list(islice(rows["labels"], READ)))
    starts = np.array([columns.start for _, columns in schema.slices()])
    values = np.zeros((len(labels), schema.num_values))
    np.put_along_axis(values, np.maximum(labels, 0) + starts, 1, axis=1)
    unlabelled = (labels < 0).all(axis=1)
    if unlabelled.any():
        values[unlabelled] = np.array(list(islice(rows["teacher_probabilities"], READ)))[unlabelled]
    return values
