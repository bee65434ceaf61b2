"""scaling.md: a sentence and a plot for each way in which the work grows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # no screen needed

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import ScalarFormatter

from benchmarks.figures import Spread, significant, spread

Points = list[tuple[int, Spread]]


@dataclass(frozen=True)
class Growth:
    """One plot and one sentence.

    Args:
        name: of the plot.
        xlabel: what grows.
        ylabel: what it costs.
        points: of the results.
        sentence: of the points.
    """

    name: str
    xlabel: str
    ylabel: str
    points: Callable[[dict[str, Any]], Points]
    sentence: Callable[[Points], str]


def sentences(results: dict[str, Any]) -> str:
    """The report."""
    machine = results["machine"]
    parts = [
        "# Cost as the work grows",
        f"`python -m benchmarks.scaling`, {machine['processor']}, {machine['cores']} core(s). Models of {results['settings']} with random"
        " weights, INT8; medians over rounds in fresh processes. Latencies are those of single queries on one thread.",
    ]
    for growth in GROWTHS:
        points = growth.points(results)
        if points:
            parts.append(f"{growth.sentence(points)}\n\n![{growth.name}]({growth.name}.png)")
    return "\n\n".join([*parts, _training_note(results)]) + "\n"


def save_plots(folder: Path, results: dict[str, Any]) -> None:
    """Writes a PNG for each growth."""
    folder.mkdir(parents=True, exist_ok=True)
    for growth in GROWTHS:
        points = growth.points(results)
        if not points:
            continue
        figure, axes = plt.subplots(figsize=(6.5, 4))
        middles = [value.median for _, value in points]
        errors = np.array([[value.median - value.low for _, value in points], [value.high - value.median for _, value in points]])
        axes.errorbar([number for number, _ in points], middles, yerr=errors, marker="o", capsize=3)
        axes.set(xlabel=growth.xlabel, ylabel=growth.ylabel, ylim=(0, None))
        if len(points) > 2:
            axes.set_xscale("log", base=2 if growth.name != "training_over_queries" else 10)
        axes.set_xticks([number for number, _ in points])
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        figure.tight_layout()
        figure.savefig(folder / f"{growth.name}.png", dpi=120)
        plt.close(figure)


def slope(points: Sequence[tuple[int, Spread]]) -> float:
    """What one more costs: least squares over the medians."""
    return float(np.polyfit([number for number, _ in points], [value.median for _, value in points], 1)[0])


def _over_lengths(results: dict[str, Any]) -> Points:
    figures = {figure for row in results["rounds"] if row["entry"] == "length" for figure in row["figures"] if figure.startswith("p50_ms_")}
    lengths = sorted(int(figure.removeprefix("p50_ms_")) for figure in figures)
    return _present((length, spread(results["rounds"], "length", f"p50_ms_{length}")) for length in lengths)


def _over_cores(results: dict[str, Any]) -> Points:
    found = [figure.split("_") for row in results["rounds"] for figure in row["figures"] if figure.startswith("qps_")]
    return _present(
        (number, spread(results["rounds"], "length", f"qps_{batch}_{number}"))
        for batch, number in sorted({(int(b), int(n)) for _, b, n in found})
    )


def _over_entries(kind: str) -> Callable[[dict[str, Any]], Points]:
    def points(results: dict[str, Any]) -> Points:
        numbers = sorted({int(row["entry"].split()[1]) for row in results["rounds"] if row["entry"].startswith(f"{kind} ")})
        length = {
            name
            for row in results["rounds"]
            if row["entry"].startswith(f"{kind} ")
            for name in row["figures"]
            if name.startswith("p50_ms_")
        }
        return _present((number, spread(results["rounds"], f"{kind} {number}", figure)) for number in numbers for figure in length)

    return points


def _over_queries(results: dict[str, Any]) -> Points:
    return [(int(row["queries"]), Spread.of([row["projected_seconds"] / 60])) for row in results.get("training", [])]


def _present(points: Any) -> Points:
    return [(number, value) for number, value in points if value is not None]


def _ends(points: Points, unit: str) -> str:
    (_, low), (_, high) = points[0], points[-1]
    return f"{significant(low.median)} to {significant(high.median)} {unit}"


def _grows(what: str) -> Callable[[Points], str]:
    def sentence(points: Points) -> str:
        return (
            f"**{what}**: from {points[0][0]} to {points[-1][0]}, a query goes from {_ends(points, 'ms')}: about"
            f" {significant(1000 * slope(points))} µs for each more."
        )

    return sentence


def _cores_sentence(points: Points) -> str:
    (first, alone), (last, together) = points[0], points[-1]
    if last == first:
        return f"**Cores**: {significant(alone.median)} queries/s on the one core that there is."
    gain = together.median / alone.median
    return f"**Cores**: from {first} to {last} threads, throughput goes from {_ends(points, 'queries/s')}: {gain:.2f} times as much."


def _training_sentence(points: Points) -> str:
    first, last = points[0][0], points[-1][0]
    return f"**Training queries**: from {first:,} to {last:,}, training takes {_ends(points, 'minutes')} at most, without teachers."


def _training_note(results: dict[str, Any]) -> str:
    rows = [
        f"| {row['queries']:,} | {row['loading']:.1f} | {row['setting_up']:.1f} | {1000 * row['step']:.0f} | {row['evaluation']:.1f}"
        f" | {row['steps']:,} | {row['epochs']} | {row['projected_seconds']:.0f} |"
        for row in results.get("training", [])
    ]
    header = "| queries | loading, s | vocabulary, model, tokens, s | a step, ms | an evaluation, s | steps | epochs | sum, s |"
    note = (
        "Training time is a sum, not a measured run: loading and checking, setting up and one evaluation were measured whole, a step is the"
        " median of 30; the numbers of steps and epochs are those of the settings, which early stopping may cut short. Beyond the car"
        " queries, rows are pairs of them, joined: longer, so their steps are dearer. Export and report come on top."
    )
    return "\n".join([note, "", header, "|---" * 8 + "|", *rows])


GROWTHS = (
    Growth("latency_over_characters", "characters of the query", "p50, ms", _over_lengths, _grows("Length of the query, characters")),
    Growth("latency_over_labels", "labels, of 4 values each", "p50, ms", _over_entries("labels"), _grows("Labels, of 4 values each")),
    Growth("latency_over_values", "values of each of 4 labels", "p50, ms", _over_entries("values"), _grows("Values of each of 4 labels")),
    Growth("throughput_over_cores", "threads", "queries/s, batches of 256", _over_cores, _cores_sentence),
    Growth("training_over_queries", "training queries", "minutes, projected", _over_queries, _training_sentence),
)
