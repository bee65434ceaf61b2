"""One row of a dataset: what was read, where, and whether it is right."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ultralight.problems import Problems, nearest
from ultralight.schema import LabelSchema
from ultralight.text import text_key

ROW_FORM = '{"query": "...", "labels": {"label": "value"}}'


@dataclass(frozen=True)
class Record:
    """A row as it was read: `place` says where; `content` is unchecked; `error` says why there is none."""

    place: str
    content: Any = None
    error: str | None = None


@dataclass(frozen=True)
class Example:
    """A checked row: a query and the index of its value within each label."""

    place: str
    query: str
    labels: tuple[int, ...]


def parse_json_lines(lines: Iterable[str], source: str) -> Iterator[Record]:
    """One record a line, blank lines left out; a line that is not JSON becomes a record with an error."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        place = f"{source}, line {number}"
        try:
            yield Record(place, json.loads(line))
        except json.JSONDecodeError as error:
            yield Record(place, error=f"not JSON ({error.msg}, column {error.colno}); accepted: {ROW_FORM}")


def without_blank_rows(records: Iterable[Record]) -> Iterator[Record]:
    """Leaves out rows of a table whose cells are all blank: spreadsheets write such below it."""
    for record in records:
        if record.error is not None or not all(isinstance(cell, str) and not cell.strip() for cell in record.content.values()):
            yield record


def check_row(record: Record, schema: LabelSchema, problems: Problems) -> Example | None:
    """Encodes a row, or adds to `problems` what is wrong with it and returns None.

    Labels stand in a mapping `labels`, in a string `labels` that holds JSON, or in a column each. A label that is left
    out, null or blank has its absent value.
    """
    before = len(problems.found)
    query = check_query(record, problems)
    readable = isinstance(record.content, Mapping) and "query" in record.content
    given = _without_white_space(_given_labels(record, problems)) if readable else {}
    known = {label: value for label, value in given.items() if _check_value(record, label, value, schema, problems)}
    if query is None or len(problems.found) > before:
        return None
    return Example(record.place, query, tuple(schema.encode(known)))


def check_query(record: Record, problems: Problems) -> str | None:
    """The query of a row, without white space around it, or None with a problem added."""
    row = record.content
    if record.error is not None:
        problems.add(record.place, record.error)
    elif not isinstance(row, Mapping):
        problems.add(record.place, f"is {_kind(row)}; accepted: {ROW_FORM}")
    elif "query" not in row:
        problems.add(record.place, f"has no 'query' but {', '.join(map(repr, row)) or 'nothing'}; accepted: {ROW_FORM}")
    elif not isinstance(row["query"], str):
        problems.add(record.place, f"'query' is {_kind(row['query'])}; accepted: a string")
    elif not text_key(row["query"]):
        problems.add(record.place, "'query' is empty; accepted: a text")
    else:
        return row["query"].strip()
    return None


def _given_labels(record: Record, problems: Problems) -> Mapping[str, Any]:
    row = record.content
    if "labels" not in row:  # one column a label
        return {name: value for name, value in row.items() if name != "query"}
    labels = row["labels"]
    if isinstance(labels, str):  # a CSV column that holds JSON
        with suppress(json.JSONDecodeError):  # reported below, as what it is: a string
            labels = json.loads(labels.strip() or "{}")
    if labels is None:
        return {}
    if not isinstance(labels, Mapping):
        problems.add(record.place, f'\'labels\' is {_kind(labels)}; accepted: {{"label": "value"}}')
        return {}
    return labels


def _without_white_space(given: Mapping[str, Any]) -> dict[str, Any]:
    """The values as a schema names them: spreadsheets leave blanks around them, and in cells that look empty."""
    return {label: value.strip() if isinstance(value, str) else value for label, value in given.items()}


def _check_value(record: Record, label: object, value: Any, schema: LabelSchema, problems: Problems) -> bool:
    """Whether the row says a value for the label."""
    place = record.place
    if label not in schema.values:
        hint = nearest(str(label), schema.labels)
        if "labels" in record.content:
            problems.add(place, f"unknown label {label!r}; {hint}")
        else:
            problems.add_once(place, f"unknown label {label!r}, a column; {hint}")
    elif value is None or value == "":
        return False
    elif not isinstance(value, str):
        problems.add(place, f"{label!r} is {_kind(value)}; accepted: a string, one of {', '.join(map(repr, schema.values[str(label)]))}")
    elif value not in schema.values[str(label)]:
        problems.add(place, f"{label!r} has the unknown value {value!r}; {nearest(value, schema.values[str(label)])}")
    else:
        return True
    return False


def _kind(value: Any) -> str:
    """A value with its JSON type, such as "a number (7)"."""
    kinds = {bool: "a truth value", int: "a number", float: "a number", str: "a string", list: "a list", dict: "an object"}
    return f"{kinds.get(type(value), type(value).__name__)} ({value!r})" if value is not None else "null"
