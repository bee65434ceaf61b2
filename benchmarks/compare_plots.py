"""Plots of the comparison: accuracy over size and latency, latency over length, throughput over batch size, memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # no screen needed

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from benchmarks.figures import spread
from benchmarks.measuring import ALL, BATCHES, LENGTHS, ONE
from benchmarks.targets import TYPICAL

NAMES = ("accuracy_over_size", "accuracy_over_latency", "latency_over_length", "throughput_over_batch", "memory")
MEMORY = {"interpreter_mb": "interpreter", "imports_mb": "imports", "loading_mb": "loading the model, first answer"}


def save_plots(folder: Path, results: dict[str, Any]) -> None:
    """Writes a PNG for each of NAMES."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {name: entry["bytes"] / 1e6 for name, entry in results["entries"].items()}
    latencies = {name: _median(results, name, f"p50_ms_{TYPICAL}") for name in results["entries"]}
    _accuracy(folder / "accuracy_over_size.png", results, sizes, "all that ships, MB")
    _accuracy(folder / "accuracy_over_latency.png", results, latencies, f"one query of {TYPICAL} characters, p50, ms")
    _latency(folder / "latency_over_length.png", results)
    _throughput(folder / "throughput_over_batch.png", results)
    _memory(folder / "memory.png", results)


def _median(results: dict[str, Any], name: str, figure: str) -> float | None:
    measured = spread(results["rounds"], name, figure)
    return measured.median if measured else None


def _style(results: dict[str, Any], name: str) -> dict[str, Any]:
    """The same colour and marker for an entry in every plot."""
    number = list(results["entries"]).index(name)
    return {"color": plt.get_cmap("tab20")(number % 20), "marker": "osD^vP*X"[number % 8], "label": results["entries"][name]["title"]}


def _accuracy(path: Path, results: dict[str, Any], costs: dict[str, float | None], xlabel: str) -> None:
    datasets = results["datasets"]
    figure, grid = plt.subplots(1, len(datasets), figsize=(5.2 * len(datasets) + 3, 4.4), squeeze=False)
    for axes, dataset in zip(grid[0], datasets, strict=True):
        for name, entry in results["entries"].items():
            scores, cost = entry["scores"].get(dataset), costs[name]
            if scores and cost is not None:
                axes.plot([cost], [scores["micro_f1"]], linestyle="", markersize=8, **_style(results, name))
        axes.set(title=f"{dataset}, test split", xlabel=xlabel, ylabel="micro-F1", xscale="log")
        axes.grid(alpha=0.3)
    _finish(figure, grid[0][-1], path)


def _latency(path: Path, results: dict[str, Any]) -> None:
    figure, axes = plt.subplots(figsize=(9, 5))
    for name in results["entries"]:
        points = [(length, value) for length in LENGTHS if (value := _median(results, name, f"p50_ms_{length}")) is not None]
        if points:
            axes.plot(*zip(*points, strict=True), **_style(results, name))
    axes.set(title="one query, one thread", xlabel="characters", ylabel="p50, ms", yscale="log")
    axes.set_xticks(LENGTHS)
    axes.grid(alpha=0.3)
    _finish(figure, axes, path)


def _throughput(path: Path, results: dict[str, Any]) -> None:
    figure, grid = plt.subplots(1, 2, figsize=(13, 5), sharey=True)
    for axes, threads, title in zip(grid, (ONE, ALL), ("one thread", f"{results['machine']['cores']} threads"), strict=True):
        for name in results["entries"]:
            points = [(batch, value) for batch in BATCHES if (value := _median(results, name, f"qps_{batch}_{threads}")) is not None]
            if points:
                axes.plot(*zip(*points, strict=True), **_style(results, name))
        axes.set(title=title, xlabel="queries in a batch", xscale="log", yscale="log")
        axes.set_xticks(BATCHES, [str(batch) for batch in BATCHES])
        axes.grid(alpha=0.3)
    grid[0].set_ylabel("queries/s")
    _finish(figure, grid[1], path)


def _memory(path: Path, results: dict[str, Any]) -> None:
    """Bars that end at the peak; what lies beyond the coloured parts was needed only for a while."""
    names = [name for name in reversed(results["entries"]) if _median(results, name, "peak_mb") is not None]
    figure, axes = plt.subplots(figsize=(9, 1.2 + 0.35 * len(names)))
    titles = [results["entries"][name]["title"] for name in names]
    peaks = [_median(results, name, "peak_mb") or 0.0 for name in names]
    left = [0.0] * len(names)
    for part, title in MEMORY.items():
        widths = [_median(results, name, part) or 0.0 for name in names]
        axes.barh(titles, widths, left=left, label=title)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    rest = [max(0.0, peak - start) for peak, start in zip(peaks, left, strict=True)]
    axes.barh(titles, rest, left=left, label="up to the peak", color="lightgrey")
    for number, peak in enumerate(peaks):
        axes.text(peak, number, f" {peak:.0f}", va="center", fontsize=8)
    axes.set(title="memory of a process that answers single queries", xlabel="MB", xlim=(0, 1.1 * max(peaks, default=1.0)))
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _finish(figure: plt.Figure, legend_beside: Axes, path: Path) -> None:
    if legend_beside.get_legend_handles_labels()[0]:
        legend_beside.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
