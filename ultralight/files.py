"""Reading and writing text files safely."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from ultralight.problems import InputError


def read_utf8(path: Path) -> str:
    """The text of a file, without a byte-order mark.

    Raises:
        InputError: the file is missing, empty or not UTF-8.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}, line {line}: not UTF-8; accepted: a file saved as UTF-8") from None
    if not text.strip():
        raise InputError(f"{path}: the file is empty")
    return text


def write_text(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".partial")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(partial).chmod(0o644)  # a temporary file is for its owner's eyes only
        Path(partial).replace(path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise
