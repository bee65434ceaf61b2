"""Reads labelled rows from training files and from the Hub, through `datasets`."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from datasets import DatasetDict, Features, IterableDatasetDict, Value, load_dataset
from datasets.exceptions import DatasetGenerationError

from ultralight.files import read_utf8
from ultralight.problems import InputError
from ultralight.rows import ROW_FORM, Record, parse_json_lines, without_blank_rows

SUFFIXES = (".json", ".jsonl", ".csv", ".parquet")
SPLITS = ("train", "validation", "test")


def locate_splits(dataset: str) -> dict[str, Path] | None:
    """Which file holds which split of a local dataset, or None where `dataset` is no local path.

    Raises:
        InputError: there is no such file, or the folder holds no training file.
    """
    path = Path(dataset).expanduser()
    if path.is_file():
        return {"train": path}
    if path.is_dir():
        return _splits_of_folder(path)
    if path.suffix in SUFFIXES or dataset.startswith((".", "/", "~")) or dataset.count("/") > 1:
        raise InputError(f"{dataset}: no such file or folder")
    return None


def _splits_of_folder(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for split in SPLITS:
        candidates = [folder / f"{split}{suffix}" for suffix in SUFFIXES if (folder / f"{split}{suffix}").is_file()]
        if len(candidates) > 1:
            raise InputError(f"{folder}: both {candidates[0].name} and {candidates[1].name}; accepted: one file a split")
        if candidates:
            found[split] = candidates[0]
    if "train" not in found:
        raise InputError(f"{folder}: no training file; accepted: train.json, train.jsonl, train.csv or train.parquet")
    return found


def read_file(path: Path) -> list[Record]:
    """Reads one .json, .jsonl, .csv or .parquet file.

    Raises:
        InputError: its type is not known, it cannot be read as what its name says, or holds no row.
    """
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path}: type {path.suffix!r} is not known; accepted: {', '.join(SUFFIXES)}")
    readers = {".json": _read_json, ".jsonl": _read_json_lines, ".csv": _read_csv, ".parquet": _read_parquet}
    records = readers[path.suffix](path)
    if not records:
        raise InputError(f"{path}: holds no row; accepted: rows such as {ROW_FORM}")
    return records


def read_hub(name: str) -> dict[str, list[Record]]:
    """Reads the splits of a Hub dataset; errors as in `open_hub`."""
    loaded = open_hub(name)
    return {split: list(number_rows(loaded[split], f"{name}, {split}")) for split in SPLITS if split in loaded}


def open_hub(name: str, streaming: bool = False) -> DatasetDict | IterableDatasetDict:
    """Opens a Hub dataset.

    Raises:
        InputError: it cannot be loaded, or has no training split.
    """
    try:
        loaded = load_dataset(name, streaming=streaming)
    except Exception as error:  # many kinds: not found, no network, gated, broken; all mean the same to the user
        raise InputError(f"{name}: neither a local file or folder nor a dataset that the Hub gives ({error})") from error
    if not isinstance(loaded, DatasetDict | IterableDatasetDict) or "train" not in loaded:
        raise InputError(f"{name}: no split 'train'; accepted: a dataset with 'train' and, if it has them, 'validation' and 'test'")
    return loaded


def number_rows(rows: Iterable[Any], source: str) -> Iterator[Record]:
    """One record a row."""
    return (Record(f"{source}, row {number}", row) for number, row in enumerate(rows, start=1))


def _read_json(path: Path) -> list[Record]:
    try:
        rows = json.loads(read_utf8(path))
    except json.JSONDecodeError as error:
        hint = "; a file with one object a line is named .jsonl" if error.msg == "Extra data" else ""
        raise InputError(f"{path}, line {error.lineno}: not JSON ({error.msg}){hint}") from None
    if not isinstance(rows, list):
        raise InputError(f"{path}: holds a {type(rows).__name__}; accepted: a list of rows such as {ROW_FORM}")
    return list(number_rows(rows, str(path)))


def _read_json_lines(path: Path) -> list[Record]:
    # Not splitlines(): it also breaks at U+2028 and other characters that a JSON string may hold.
    return list(parse_json_lines(read_utf8(path).split("\n"), str(path)))


def _read_csv(path: Path) -> list[Record]:
    header = next(csv.reader(read_utf8(path).splitlines()))
    # All columns are strings, and "none" or "NA" stay what they are: pandas would read them as missing.
    strings = Features(dict.fromkeys(header, Value("string")))
    return list(without_blank_rows(_load("csv", path, encoding="utf-8-sig", features=strings, keep_default_na=False)))


def _read_parquet(path: Path) -> list[Record]:
    return _load("parquet", path)


def _load(builder: str, path: Path, **options: Any) -> list[Record]:
    try:
        rows = load_dataset(builder, data_files=str(path), split="train", **options)
    except (DatasetGenerationError, ValueError, OSError) as error:
        cause = error.__cause__ or error
        raise InputError(f"{path}: not a readable {builder} file ({str(cause).strip()})") from error
    return list(number_rows(rows, str(path)))
