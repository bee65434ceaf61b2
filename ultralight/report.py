"""What a run tells its user: `metrics.json` and a table on the terminal."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ultralight.files import write_text
from ultralight.scores import OVERALL


def write_metrics(path: Path, metrics: dict[str, Any]) -> None:
    """Writes scores as JSON, shares rounded to four places."""
    write_text(path, json.dumps(_rounded(metrics), ensure_ascii=False, indent=2) + "\n")


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lays out a table for a terminal, where a Chinese character is two columns wide; the first column is left-aligned."""
    widths = [max(_width(row[column]) for row in [header, *rows]) for column in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        return "  ".join(
            cell + " " * (width - _width(cell)) if column == 0 else " " * (width - _width(cell)) + cell
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ).rstrip()

    return "\n".join([line(header), line(["-" * width for width in widths]), *map(line, rows)])


def summary_table(metrics: dict[str, Any]) -> str:
    """Overall scores of every scored part."""
    parts = [part for part in ("validation", "test", "test_int8") if part in metrics]
    rows = [[part, *(f"{metrics[part][name]:.4f}" for name in OVERALL)] for part in parts]
    return format_table(["scored on", "micro-F1", "macro-F1", "exact match"], rows)


def label_table(metrics: dict[str, Any]) -> str:
    """Scores of every label on the test split, of the INT8 graph where there is one."""
    part = "test_int8" if "test_int8" in metrics else "test"
    rows = [
        [label, f"{scores['f1']:.4f}", f"{scores['accuracy']:.4f}", str(scores["support"])]
        for label, scores in metrics[part]["per_label"].items()
    ]
    return format_table([f"label ({part})", "F1", "accuracy", "support"], rows)


def folder_size(folder: Path, names: Sequence[str]) -> int:
    """Bytes of the named files together."""
    return sum((folder / name).stat().st_size for name in names)


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return round(value, 4) if isinstance(value, float) and abs(value) >= 0.001 else value
