"""Training rows that need not fit into memory: read, checked and tokenised anew each time, in constant memory."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import datasets
import torch
from datasets import DatasetDict

from ultralight.dataset import CUT_SHARE, check_splits, left_out, require_rows, to_dataset, unseen_values
from ultralight.problems import SHOWN, InputError, Problems
from ultralight.progress import progress
from ultralight.query_files import read_queries
from ultralight.records import SPLITS, locate_splits, number_rows, open_hub, read_file
from ultralight.rows import Example, Record, check_row, without_blank_rows
from ultralight.schema import LabelSchema
from ultralight.text import text_key

STREAMED = (".jsonl", ".csv", ".parquet")
# Rows that are shuffled together.
BUFFER = 10_000
# Rows at most of a validation or test split that is cut from the training rows.
LARGEST_CUT = 5_000


class StreamedRows:
    """The training rows of a dataset; training reads of a `Dataset` no more than this: its length and its columns.

    Args:
        dataset: its name, for messages.
        read: starts reading the records.
        schema: the labels that rows may use.

    Attributes:
        held: texts, as `text_key` has them, that are left out: another split holds them.
        length: number of rows that remain.
    """

    def __init__(self, dataset: str, read: Callable[[], Iterable[Record]], schema: LabelSchema) -> None:
        self.dataset = dataset
        self.read = read
        self.schema = schema
        self.held: frozenset[str] = frozenset()
        self.length = 0

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, column: str) -> _Column:
        """One column, `query` or `labels`, which may be iterated again and again."""
        return _Column(self, column)

    def examples(self) -> Iterator[Example]:
        """Reads all rows and checks them.

        Raises:
            InputError: while iterating, after twenty rows that are wrong, or at the end.
        """
        problems = Problems(self.dataset)
        for record in self.read():
            example = check_row(record, self.schema, problems)
            if len(problems.found) >= SHOWN:
                problems.raise_if_any()
            if example is not None:
                yield example
        problems.raise_if_any()

    def rows(self) -> Iterator[dict[str, Any]]:
        """What `examples` reads and no other split holds, as rows with `query` and `labels`."""
        for example in self.examples():
            if text_key(example.query) not in self.held:
                yield {"query": example.query, "labels": list(example.labels)}


class _Column:
    def __init__(self, source: StreamedRows, name: str) -> None:
        self.source, self.name = source, name

    def __iter__(self) -> Iterator[Any]:
        return (row[self.name] for row in self.source.rows())


class ShuffledStream(torch.utils.data.IterableDataset):
    """Streamed rows as training takes them: tokenised, and in another order every epoch, the same one in every process.

    Args:
        rows: the rows.
        encode: makes token ids of a batch of rows.
        seed: of the order.
    """

    def __init__(self, rows: StreamedRows, encode: Callable[[dict[str, Any]], Any], seed: int) -> None:
        self.length = len(rows)
        # One source: the threads that read several at a time would take two thirds of the time.
        stream = datasets.IterableDataset.from_generator(rows.rows).shuffle(seed=seed, buffer_size=BUFFER, max_buffer_input_shards=1)
        self.stream = stream.map(encode, batched=True, remove_columns=["query"])

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.stream)

    def set_epoch(self, epoch: int) -> None:
        """Makes the order that of an epoch."""
        self.stream.set_epoch(epoch)


class HashSample:
    """The texts of a stream with the smallest hashes: the same in whatever order they come, all copies of a text counting as one.

    Args:
        size: number of texts to keep.
        seed: of the hashes.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self.seed = seed
        self.copies: Counter[str] = Counter()
        self._kept: dict[str, Example] = {}
        self._largest_first: list[tuple[int, str]] = []

    def offer(self, example: Example) -> None:
        """Keeps the example if its text is new and has one of the smallest hashes."""
        key = text_key(example.query)
        if key not in self._kept:
            entry = (-int.from_bytes(blake2b(f"{self.seed}:{key}".encode(), digest_size=8).digest()), key)
            if len(self._kept) < self.size:
                heapq.heappush(self._largest_first, entry)
            elif self.size and entry > self._largest_first[0]:
                _, dropped = heapq.heapreplace(self._largest_first, entry)
                del self._kept[dropped], self.copies[dropped]
            else:
                return
            self._kept[key] = example
        self.copies[key] += 1

    def smallest(self, count: int) -> list[Example]:
        """The `count` texts of the smallest hashes."""
        return [self._kept[key] for _, key in heapq.nlargest(count, self._largest_first)]


def load_streamed(dataset: str, schema: LabelSchema, *, split_seed: int = 42) -> tuple[DatasetDict, list[str]]:
    """As `load_splits`, but the split "train" is a `StreamedRows`, which was read and checked once.

    Its rows are not compared with each other: repetitions and contradictions stay. Where a validation or test split is
    missing, it gets the tenth of the texts, 5,000 at most, that have the smallest hashes.

    Args:
        dataset: a .jsonl, .csv or .parquet file, a folder with train.* of these types, or a Hub dataset.
        schema: the labels that rows may use.
        split_seed: decides which training rows become the missing splits.

    Raises:
        InputError: lists rows that are wrong, or the training file is of a type that cannot be streamed.
    """
    read, raw = _open(dataset)
    splits, warnings = check_splits(raw, schema, dataset)
    train = StreamedRows(dataset, read, schema)
    missing = [split for split in ("test", "validation") if split not in splits]
    sample = HashSample(LARGEST_CUT * len(missing), split_seed)
    held = {text_key(example.query) for examples in splits.values() for example in examples}
    seen: list[set[int]] = [set() for _ in schema.labels]
    count = repeated = 0
    for example in progress(train.examples(), "checking training rows", "rows"):
        if text_key(example.query) in held:
            repeated += 1
            continue
        count += 1
        sample.offer(example)
        for values, value in zip(seen, example.labels, strict=True):
            values.add(value)
    require_rows(count, dataset)
    if repeated:
        warnings.append(left_out("train", repeated))
    if missing:
        cut = sample.smallest(min(LARGEST_CUT, max(1, round(count * CUT_SHARE))) * len(missing))
        splits |= {split: cut[number :: len(missing)] for number, split in enumerate(missing)}
        cut_keys = {text_key(example.query) for example in cut}
        held |= cut_keys
        count -= sum(sample.copies[key] for key in cut_keys)
    train.held, train.length = frozenset(held), count
    warnings += schema.unusual_absent_values() + unseen_values(seen, schema)
    ordinary = {split: to_dataset(splits[split]) for split in ("validation", "test")}
    return DatasetDict({"train": train, **ordinary}), warnings


def _open(dataset: str) -> tuple[Callable[[], Iterable[Record]], dict[str, list[Record]]]:
    """How to start reading the training records, and the records of the other splits."""
    paths = locate_splits(dataset)
    if paths is None:
        loaded = open_hub(dataset, streaming=True)
        others = {split: list(number_rows(loaded[split], f"{dataset}, {split}")) for split in SPLITS[1:] if split in loaded}
        return partial(number_rows, loaded["train"], f"{dataset}, train"), others
    path = paths.pop("train")
    if path.suffix not in STREAMED:
        raise InputError(f"--streaming {path}: a list is read as a whole; accepted: {', '.join(STREAMED)}")
    return partial(_read_rows, path), {split: read_file(other) for split, other in paths.items()}


def _read_rows(path: Path) -> Iterator[Record]:
    records = read_queries(str(path))
    return without_blank_rows(records) if path.suffix == ".csv" else records
