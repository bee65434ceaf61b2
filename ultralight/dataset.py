"""From any supported dataset to checked, encoded, disjoint splits."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from datasets import Dataset, DatasetDict

from ultralight.problems import InputError, Problems
from ultralight.records import SPLITS, locate_splits, read_file, read_hub
from ultralight.rows import Example, Record, check_row
from ultralight.schema import LABELS_FILE, LabelSchema
from ultralight.text import text_key

CONTRADICTIONS = ("stop", "first", "drop")
CUT_SHARE = 0.1
FEWEST_ROWS = 10
VERIFICATION_QUERIES = 300


def load_splits(dataset: str, schema: LabelSchema, *, split_seed: int = 42, contradictions: str = "stop") -> tuple[DatasetDict, list[str]]:
    """Loads, checks and encodes a dataset; cuts the splits it lacks from its training rows.

    Args:
        dataset: a .json, .jsonl, .csv or .parquet file, a folder with train.* (validation.*, test.*), or a Hub dataset.
        schema: the labels that rows may use.
        split_seed: decides which training rows become the missing splits, a tenth each.
        contradictions: what to do with a text that stands twice with different labels: "stop", keep the "first", or "drop" all.

    Returns:
        Splits "train", "validation" and "test" with the columns `query` (text) and `labels` (index of the value within
        each label), no text standing in two of them; and warnings for the user.

    Raises:
        InputError: lists the rows that are wrong, all files together.
    """
    paths = locate_splits(dataset)
    raw = read_hub(dataset) if paths is None else {split: read_file(path) for split, path in paths.items()}
    splits, warnings = check_splits(raw, schema, dataset, contradictions)
    _cut_missing(splits, split_seed, dataset)
    seen = [set(values) for values in zip(*(example.labels for example in splits["train"]), strict=True)]
    warnings += schema.unusual_absent_values() + unseen_values(seen, schema)
    return DatasetDict({split: to_dataset(splits[split]) for split in SPLITS}), warnings


def check_splits(
    raw: dict[str, list[Record]], schema: LabelSchema, dataset: str, contradictions: str = "stop"
) -> tuple[dict[str, list[Example]], list[str]]:
    """Checks and encodes the splits that there are: no text stands twice, be it in one or in two of them; with warnings.

    Raises:
        InputError: lists the rows that are wrong, all files together.
    """
    problems, warnings = Problems(dataset), []
    splits = {split: _check_rows(records, schema, problems) for split, records in raw.items()}
    if contradictions == "stop":
        for examples in splits.values():
            _list_contradictions(examples, schema, problems)
    problems.raise_if_any()

    for split, examples in splits.items():
        splits[split] = _unique(examples, contradictions)
        if len(splits[split]) < len(examples):
            warnings.append(f"{split}: {len(examples) - len(splits[split])} repeated row(s) left out")
    return splits, warnings + _separate(splits)


def _check_rows(records: list[Record], schema: LabelSchema, problems: Problems) -> list[Example]:
    checked = (check_row(record, schema, problems) for record in records)
    return [example for example in checked if example is not None]


def _by_text(examples: list[Example]) -> dict[str, list[Example]]:
    groups: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        groups[text_key(example.query)].append(example)
    return groups


def _list_contradictions(examples: list[Example], schema: LabelSchema, problems: Problems) -> None:
    for group in _by_text(examples).values():
        other = next((example for example in group if example.labels != group[0].labels), None)
        if other is not None:
            said = [json.dumps(schema.decode(example.labels), ensure_ascii=False) for example in (group[0], other)]
            problems.add(
                other.place,
                f"contradicts {group[0].place}: {group[0].query!r} is {said[1]} here and {said[0]} there;"
                " accepted: one answer a text (or --contradictions first | drop)",
            )


def _unique(examples: list[Example], contradictions: str) -> list[Example]:
    groups = list(_by_text(examples).values())
    if contradictions == "drop":
        groups = [group for group in groups if len({example.labels for example in group}) == 1]
    return [group[0] for group in groups]


def _separate(splits: dict[str, list[Example]]) -> list[str]:
    """Takes out of a split what a later one holds as well: the test file stays whole."""
    warnings, taken = [], set()
    for split in reversed(SPLITS):
        if split not in splits:
            continue
        kept = [example for example in splits[split] if text_key(example.query) not in taken]
        if len(kept) < len(splits[split]):
            warnings.append(left_out(split, len(splits[split]) - len(kept)))
        splits[split] = kept
        taken |= {text_key(example.query) for example in kept}
    return warnings


def left_out(split: str, count: int) -> str:
    """The warning that a split holds texts of another one."""
    return f"{split}: {count} row(s) left out that another split holds as well"


def require_rows(count: int, dataset: str) -> None:
    """Raises an InputError where there are too few training rows to learn anything from."""
    if count < FEWEST_ROWS:
        raise InputError(f"{dataset}: {count} different training row(s); accepted: at least {FEWEST_ROWS}")


def _cut_missing(splits: dict[str, list[Example]], seed: int, dataset: str) -> None:
    missing = [split for split in ("test", "validation") if split not in splits]
    rows = splits["train"]
    require_rows(len(rows), dataset)
    if not missing:
        return
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    size = max(1, round(len(rows) * CUT_SHARE))
    for split in missing:
        splits[split] = [rows[index] for index in sorted(order[:size])]
        order = order[size:]
    splits["train"] = [rows[index] for index in sorted(order)]


def unseen_values(seen: Sequence[set[int]], schema: LabelSchema) -> list[str]:
    """Warnings of values that no training row has, from those of each label that one has."""
    warnings = []
    for indices, (label, names) in zip(seen, schema.values.items(), strict=True):
        if indices == {0}:
            warnings.append(f"label {label!r} is {names[0]!r} in every training row: it will never be predicted")
            continue
        unseen = [name for index, name in enumerate(names) if index > 0 and index not in indices]
        if unseen:
            warnings.append(f"label {label!r}: no training row has {', '.join(map(repr, unseen))}")
    return warnings


def to_dataset(examples: list[Example]) -> Dataset:
    """Rows with `query` and `labels`."""
    return Dataset.from_dict({"query": [example.query for example in examples], "labels": [list(example.labels) for example in examples]})


def verification_queries(splits: DatasetDict) -> list[str]:
    """Queries to compare exported graphs on: the validation ones, and training ones where those are few.

    On 30 decisions, a single one that rounding tips over would be 3 %.
    """
    validation = splits["validation"]["query"][:]
    return [*validation, *islice(splits["train"]["query"], max(0, VERIFICATION_QUERIES - len(validation)))]


def find_labels_file(dataset: str) -> Path:
    """The labels file that lies beside a local dataset.

    Raises:
        InputError: there is none.
    """
    path = Path(dataset)
    candidate = (path if path.is_dir() else path.parent) / LABELS_FILE
    if not candidate.is_file():
        raise InputError(f"{dataset}: no labels file {candidate}; name yours with --config LABELS.json")
    return candidate
