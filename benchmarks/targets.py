"""What the shipped model must reach against the old recipe, and whether it did."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.entries import MICRO, NANO, OLD_RECIPE
from benchmarks.figures import ratio, significant, spread

MB = 1e6
LONGEST_BATCH = 256
# The guide speaks of a query of 20 characters.
TYPICAL = 20
NANO_BEHIND = 0.015


@dataclass(frozen=True)
class Target:
    """A ratio to reach.

    Args:
        title: in the table.
        figure: of the rounds, or "bytes".
        limit: the ratio, micro over old recipe.
        at_least: the ratio must be at least the limit, not at most.
        guide: what it should be about in absolute terms, on two shared cores.
        form: the absolute figure with its unit.
    """

    title: str
    figure: str
    limit: float
    at_least: bool
    guide: str
    form: Callable[[float], str]


def _unit(unit: str, scale: float = 1.0) -> Callable[[float], str]:
    return lambda value: f"{significant(value / scale)} {unit}"


TARGETS = (
    Target("deployable size", "bytes", 1 / 20, False, "at most 0.8 MB", _unit("MB", MB)),
    Target("process start to first answer", "start_s", 1 / 20, False, "0.3 s", _unit("s")),
    Target(f"one query of {TYPICAL} characters, p50", f"p50_ms_{TYPICAL}", 1 / 30, False, "0.15 ms", _unit("ms")),
    Target("peak memory of the process", "peak_mb", 1 / 7, False, "60 MB", _unit("MB")),
    Target(
        f"throughput, batches of {LONGEST_BATCH}, one thread", f"qps_{LONGEST_BATCH}_one", 30, True, "15,000 queries/s", _unit("queries/s")
    ),
)


def verdicts(results: Mapping[str, Any]) -> list[list[str]]:
    """Rows of the table: figure, what is asked, ratio, verdict, absolute figures; only what has been measured."""
    rows = [row for target in TARGETS if (row := _verdict(target, results)) is not None]
    return rows + _sizes_and_accuracy(results)


def _verdict(target: Target, results: Mapping[str, Any]) -> list[str] | None:
    sizes = results["entries"]
    if MICRO not in sizes or OLD_RECIPE not in sizes:
        return None
    if target.figure == "bytes":
        own, old = sizes[MICRO]["bytes"], sizes[OLD_RECIPE]["bytes"]
        middle, shown = own / old, _as_ratio(own / old, target)
    else:
        ratios = ratio(results["rounds"], MICRO, OLD_RECIPE, target.figure)
        measured = spread(results["rounds"], MICRO, target.figure), spread(results["rounds"], OLD_RECIPE, target.figure)
        if ratios is None or measured[0] is None or measured[1] is None:
            return None
        own, old = measured[0].median, measured[1].median
        middle, shown = ratios.median, ratios.shown(lambda value: _as_ratio(value, target))
    reached = middle >= target.limit if target.at_least else middle <= target.limit
    asked = f"at least {target.limit:g}x" if target.at_least else f"at most 1/{1 / target.limit:g}"
    return [target.title, asked, shown, _said(reached), target.form(old), target.form(own), target.guide]


def _as_ratio(value: float, target: Target) -> str:
    return f"{value:.1f}x" if target.at_least else f"1/{1 / value:.1f}"


def _sizes_and_accuracy(results: Mapping[str, Any]) -> list[list[str]]:
    entries, rows = results["entries"], []
    if NANO in entries:
        size = entries[NANO]["bytes"]
        rows.append(["deployable size of nano", "at most 0.4 MB", "", _said(size <= 0.4 * MB), "", _unit("MB", MB)(size), ""])
    for dataset in results["datasets"]:
        scores = [entries.get(name, {}).get("scores", {}).get(dataset) for name in (MICRO, NANO)]
        if all(scores):
            micro, nano = (score["micro_f1"] for score in scores)
            reached = nano >= micro - NANO_BEHIND
            rows.append(
                [f"nano, micro-F1 on {dataset}", "micro less 0.015", "", _said(reached), "", f"{nano:.3f} (micro: {micro:.3f})", ""]
            )
    return rows


def _said(reached: bool) -> str:
    return "reached" if reached else "**missed**"
