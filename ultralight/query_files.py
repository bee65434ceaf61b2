"""Streams queries from files of any size; needs nothing that the runtime does not need (pyarrow for .parquet)."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from ultralight.problems import InputError, Problems
from ultralight.rows import Record, check_query, check_row, parse_json_lines
from ultralight.schema import LabelSchema

FORMATS = ("txt", "jsonl", "csv", "parquet")
STANDARD_INPUT = "-"
_BLOCK = 1 << 20


def read_queries(source: str, form: str | None = None) -> Iterator[Record]:
    """Reads records one by one; each has a `query` and, where the file has them, labels.

    Args:
        source: a file, or "-" for standard input.
        form: one of FORMATS; by the file's name where left out, "txt" for standard input.

    Raises:
        InputError: the file cannot be read; while iterating, a line is not UTF-8 or the file is not of its form.
    """
    form = form or ("txt" if source == STANDARD_INPUT else Path(source).suffix.removeprefix("."))
    if form not in FORMATS:
        raise InputError(f"{source}: type {form!r} is not known; accepted: {', '.join(FORMATS)} (or --format)")
    if form == "parquet":
        yield from _read_parquet(source)
        return
    with _open_text(source) as file:
        name = "standard input" if source == STANDARD_INPUT else source
        try:
            if form == "txt":
                yield from (Record(f"{name}, line {number}", {"query": line}) for number, line in enumerate(file, start=1) if line.strip())
            elif form == "jsonl":
                yield from parse_json_lines(file, name)
            else:
                yield from _read_csv(file, name)
        except UnicodeDecodeError as error:
            raise InputError(f"{name}: not UTF-8 ({error.reason}); accepted: a file saved as UTF-8") from None


def checked_queries(records: Iterable[Record]) -> Iterator[str]:
    """The queries of the records.

    Raises:
        InputError: at the first row without a query.
    """
    problems = Problems("input")
    for record in records:
        query = check_query(record, problems)
        problems.raise_if_any()
        assert query is not None  # no problem, so there is one
        yield query


def reference(record: Record, schema: LabelSchema) -> tuple[int, ...]:
    """Index of the labelled value within each label.

    Raises:
        InputError: the row's labels are not those of the schema.
    """
    problems = Problems("input")
    example = check_row(record, schema, problems)
    problems.raise_if_any()
    assert example is not None  # no problem, so there is one
    return example.labels


def count_queries(source: str, form: str | None = None) -> int | None:
    """About how many queries a file holds, for a progress bar; None where that cannot be known beforehand."""
    if source == STANDARD_INPUT or not Path(source).is_file():
        return None
    if (form or Path(source).suffix) in ("parquet", ".parquet"):
        return int(_parquet_file(source).metadata.num_rows)
    with Path(source).open("rb") as file:
        lines = sum(block.count(b"\n") for block in iter(lambda: file.read(_BLOCK), b""))
    return lines - 1 if (form or Path(source).suffix) in ("csv", ".csv") else lines


@contextmanager
def open_output(path: str | None) -> Iterator[IO[str]]:
    """Standard output, or a file that appears only when it is complete."""
    if path is None:
        yield sys.stdout
        return
    partial = Path(f"{path}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            yield file
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _open_text(source: str) -> Iterator[IO[str]]:
    if source == STANDARD_INPUT:
        sys.stdin.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
        yield sys.stdin
        return
    try:
        file = Path(source).open(encoding="utf-8-sig", newline="")  # noqa: SIM115  (closed below; only opening may fail so)
    except OSError as error:
        raise InputError(f"{source}: cannot be read ({error.strerror})") from None
    with file:
        yield file


def _read_csv(file: IO[str], name: str) -> Iterator[Record]:
    reader = csv.DictReader(file)
    for number, row in enumerate(reader, start=1):
        if None in row or None in row.values():
            yield Record(
                f"{name}, row {number}", error=f"has not {len(reader.fieldnames or [])} columns as the header; accepted: one cell a column"
            )
        else:
            yield Record(f"{name}, row {number}", row)


def _read_parquet(source: str) -> Iterator[Record]:
    number = 0
    for batch in _parquet_file(source).iter_batches():
        for row in batch.to_pylist():
            number += 1
            yield Record(f"{source}, row {number}", row)


def _parquet_file(source: str) -> Any:
    if source == STANDARD_INPUT:
        raise InputError("standard input cannot be parquet; accepted: txt, jsonl or csv")
    try:
        import pyarrow.parquet
    except ImportError:
        raise InputError(f"{source}: reading parquet needs pyarrow: pip install pyarrow") from None
    try:
        return pyarrow.parquet.ParquetFile(source)
    except (OSError, pyarrow.ArrowInvalid) as error:
        raise InputError(f"{source}: not a readable parquet file ({error})") from None
