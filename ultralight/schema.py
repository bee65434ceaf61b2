"""The label schema: which labels there are and which values each can take. The centre of the project.

It and what it imports need the standard library only.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ultralight.files import read_utf8
from ultralight.problems import InputError, Problems

LABELS_FILE = "QueryLabels.json"
# Words that stand for "no value". Any word may come first; these are only recognised where they are misplaced.
ABSENT_WORDS = ("none", "null", "n/a", "无", "没有", "未提及", "不限", "未知", "unknown", "absent")
SCHEMA_FORM = 'a JSON object such as {"价位": ["none", "经济", "高端"]}: label -> values, the absent value first'


@dataclass(frozen=True)
class LabelSchema:
    """Labels with their values; a label's first value is the absent one.

    Values are numbered within their label (0 is the absent one). A model's logits hold the values of the first label,
    then those of the second, and so on.
    """

    values: Mapping[str, tuple[str, ...]]

    @classmethod
    def from_dict(cls, values: Mapping[str, Sequence[str]], source: str = "labels") -> LabelSchema:
        """Checks `values` and makes a schema of it.

        Raises:
            InputError: names every label of `source` that is not as it should be.
        """
        problems = Problems(source)
        if not isinstance(values, Mapping) or not values:
            raise InputError(f"{source}: accepted is {SCHEMA_FORM}")
        for label, names in values.items():
            _check_label(label, names, problems)
        problems.raise_if_any()
        schema = cls({label: tuple(names) for label, names in values.items()})
        schema._check_absent_values(problems)
        problems.raise_if_any()
        return schema

    @classmethod
    def from_file(cls, path: str | Path) -> LabelSchema:
        """Reads a labels file.

        Raises:
            InputError: the file is missing, empty, not UTF-8, not JSON, or not a schema.
        """
        return cls.from_dict(_read_json_object(Path(path)), str(path))

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the labels."""
        return tuple(self.values)

    @property
    def sizes(self) -> list[int]:
        """Number of values of each label, the absent one included."""
        return [len(names) for names in self.values.values()]

    @property
    def num_values(self) -> int:
        """Length of a row of logits."""
        return sum(self.sizes)

    def encode(self, labels: Mapping[str, str]) -> list[int]:
        """Index of the value within each label; a label left out has its absent value (0)."""
        return [names.index(labels[label]) if label in labels else 0 for label, names in self.values.items()]

    def decode(self, indices: Sequence[int]) -> dict[str, str]:
        """Label -> value of what is not absent."""
        return {label: names[index] for (label, names), index in zip(self.values.items(), indices, strict=True) if index > 0}

    def slices(self) -> Iterator[tuple[str, slice]]:
        """Where the values of each label stand in a row of logits."""
        start = 0
        for label, names in self.values.items():
            yield label, slice(start, start + len(names))
            start += len(names)

    def to_dict(self) -> dict[str, list[str]]:
        """The schema as it is written in a labels file."""
        return {label: list(names) for label, names in self.values.items()}

    def unusual_absent_values(self) -> list[str]:
        """Labels whose first value does not look like an absent one, as warnings."""
        return [
            f"label {label!r}: its first value {names[0]!r} is taken as the absent one"
            for label, names in self.values.items()
            if names[0].lower() not in ABSENT_WORDS
        ]

    def _check_absent_values(self, problems: Problems) -> None:
        recognised = next((names[0] for names in self.values.values() if names[0].lower() in ABSENT_WORDS), None)
        for label, names in self.values.items():
            if names[0].lower() in ABSENT_WORDS:
                continue
            misplaced = next((name for name in names[1:] if name.lower() in ABSENT_WORDS), None)
            if misplaced is not None:
                problems.add(f"label {label!r}", f"{misplaced!r} is not the first of its values; accepted: the absent value first")
            elif recognised is not None:
                problems.add(
                    f"label {label!r}",
                    f"its first value {names[0]!r} would be the absent one, while other labels begin with {recognised!r};"
                    f" accepted: [{recognised!r}, {names[0]!r}, ...]",
                )


def _check_label(label: object, names: object, problems: Problems) -> None:
    place = f"label {label!r}"
    if not isinstance(label, str) or not label.strip():
        problems.add(place, "its name is empty; accepted: a name")
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) and name.strip() for name in names):
        problems.add(place, f"its values are {names!r}; accepted: a list of non-empty strings, the absent value first")
    elif len(names) < 2:
        problems.add(place, f"it has {len(names)} value(s); accepted: the absent value and at least one more")
    elif len(set(names)) < len(names):
        twice = next(name for name in names if list(names).count(name) > 1)
        problems.add(place, f"the value {twice!r} stands twice; accepted: each value once")
    elif padded := next((name for name in names if name != name.strip()), None):
        problems.add(place, f"the value {padded!r} has white space around it; accepted: {padded.strip()!r}")


def _read_json_object(path: Path) -> dict[str, list[str]]:
    def reject_twice(pairs: list[tuple[str, list[str]]]) -> dict[str, list[str]]:
        names = [name for name, _ in pairs]
        for name in names:
            if names.count(name) > 1:
                raise InputError(f"{path}: label {name!r} stands twice; accepted: each label once")
        return dict(pairs)

    text = read_utf8(path)
    try:
        content = json.loads(text, object_pairs_hook=reject_twice)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}, line {error.lineno}: not JSON ({error.msg}); accepted: {SCHEMA_FORM}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}; accepted: {SCHEMA_FORM}")
    return content
