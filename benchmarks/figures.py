"""Statistics over rounds: median and spread, and ratios of what was measured in the same round."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Spread:
    """Median, smallest and largest of a figure's rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of at least one value."""
        return cls(median(values), min(values), max(values))

    def shown(self, form: Callable[[float], str]) -> str:
        """Such as "0.40 [0.38-0.45]"; without brackets where all rounds are shown alike."""
        middle, low, high = form(self.median), form(self.low), form(self.high)
        return middle if low == middle == high else f"{middle} [{low}–{high}]"


def spread(rounds: Sequence[Mapping[str, Any]], entry: str, figure: str) -> Spread | None:
    """Spread of an entry's figure over the rounds; None where it was not measured."""
    values = [row["figures"][figure] for row in rounds if row["entry"] == entry and figure in row["figures"]]
    return Spread.of(values) if values else None


def ratio(rounds: Sequence[Mapping[str, Any]], entry: str, base: str, figure: str) -> Spread | None:
    """An entry's figure over another's, round by round: what slows a round down slows both."""
    values = {(row["entry"], row["round"]): row["figures"][figure] for row in rounds if figure in row["figures"]}
    ratios = [value / values[base, number] for (name, number), value in values.items() if name == entry and (base, number) in values]
    return Spread.of(ratios) if ratios else None


def significant(value: float) -> str:
    """Three significant digits, thousands separated."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.{1 if value >= 10 else 2 if value >= 1 else 3}f}"
