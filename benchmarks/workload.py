"""The queries that are timed: real training queries as they are, and cut or joined to a length."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

from ultralight.dataset import find_labels_file, load_splits
from ultralight.files import write_text
from ultralight.schema import LabelSchema

PER_LENGTH = 64
REAL = 512


def write_workload(path: Path, dataset: str, lengths: Sequence[int]) -> None:
    """Writes `{"real": queries, "by_length": {length: queries}}`, the same for every run."""
    splits, _ = load_splits(dataset, LabelSchema.from_file(find_labels_file(dataset)))
    queries = list(splits["train"]["query"])
    random.Random(0).shuffle(queries)
    by_length = {str(length): of_length(queries, length, PER_LENGTH) for length in lengths}
    write_text(path, json.dumps({"real": queries[:REAL], "by_length": by_length}, ensure_ascii=False))


def of_length(queries: Sequence[str], length: int, count: int) -> list[str]:
    """Texts of exactly so many characters: queries joined by a comma and cut, each begun with another query."""
    texts = []
    for number in range(count):
        text, following = "", number
        while len(text) < length:
            text += queries[following % len(queries)] + "，"
            following += count
        texts.append(text[:length])
    return texts
