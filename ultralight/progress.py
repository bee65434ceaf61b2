"""Progress bars: on standard error, and none where a script was told to be quiet."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


def bars_hidden() -> bool:
    """Whether no bar is to be shown: with `--quiet`, where standard error is no terminal, and in all processes of a run but the first."""
    return bool(os.environ.get("TQDM_DISABLE")) or os.environ.get("RANK", "0") != "0"


def progress(items: Iterable[Item], doing: str, unit: str, total: int | None = None, hidden: bool = False) -> Iterable[Item]:
    """Shows a bar while `items` are passed through.

    Args:
        items: what is worked through.
        doing: such as "tokenising".
        unit: what is counted, such as "queries".
        total: how many there are, where `items` cannot say; unknown: the bar counts and shows the speed.
        hidden: show none in any case.
    """
    return tqdm(items, desc=doing, unit=f" {unit}", total=total, file=sys.stderr, dynamic_ncols=True, disable=hidden or bars_hidden())
