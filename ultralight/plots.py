"""Plots: training curves, F1 of every label, confusion of the worst labels, what further examples bring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # no screen needed

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import font_manager

from ultralight.schema import LabelSchema

CHINESE_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans SC",
    "Source Han Sans SC",
    "PingFang SC",
    "Microsoft YaHei",
    "SimHei",
    "WenQuanYi Micro Hei",
    "Arial Unicode MS",
)
WORST = 4


class Names:
    """Names as a plot can show them: as they are where a font has the glyphs, else numbered as in the labels file."""

    def __init__(self, schema: LabelSchema) -> None:
        installed = {font.name for font in font_manager.fontManager.ttflist}
        self.font = next((font for font in CHINESE_FONTS if font in installed), None)
        self.schema = schema
        self.note = ""
        if self.font:
            plt.rcParams["font.sans-serif"] = [self.font]
        elif not all(name.isascii() for label, values in schema.values.items() for name in (label, *values)):
            self.note = "no Chinese font is installed: labels and values are numbered as in the labels file"

    def label(self, label: str) -> str:
        """A label's name."""
        return label if not self.note or label.isascii() else f"label {self.schema.labels.index(label) + 1}"

    def value(self, label: str, index: int) -> str:
        """A value's name."""
        name = self.schema.values[label][index]
        return name if not self.note or name.isascii() else f"value {index}"


def save_plots(
    folder: Path,
    history: Sequence[dict[str, Any]],
    per_label: dict[str, Any],
    predictions: np.ndarray,
    references: np.ndarray,
    schema: LabelSchema,
) -> None:
    """Writes `training.png`, `per_label_f1.png` and `confusion.png`.

    Args:
        folder: where to.
        history: the Trainer's log.
        per_label: scores of each label on the test split.
        predictions: index of the predicted value within each label (queries, labels).
        references: index of the right value within each label (queries, labels).
        schema: the labels.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = Names(schema)
    _training_curves(folder / "training.png", history)
    _label_scores(folder / "per_label_f1.png", per_label, names)
    _confusion(folder / "confusion.png", per_label, predictions, references, names)


def save_pretraining_curve(path: Path, curve: Sequence[dict[str, float]]) -> None:
    """Plots the loss on training and held-out text and the masked accuracy over the steps."""
    figure, (losses, accuracy) = plt.subplots(1, 2, figsize=(10, 4))
    for axes, key, name in (
        (losses, "loss", "training"),
        (losses, "eval_loss", "held out"),
        (accuracy, "eval_masked_accuracy", "held out"),
    ):
        points = [(entry["step"], entry[key]) for entry in curve if key in entry]
        axes.plot(*zip(*points, strict=True), label=name)
    losses.set(title="cross-entropy of masked tokens", xlabel="step")
    accuracy.set(title="masked tokens predicted right", xlabel="step", ylim=(0, None))
    for axes in (losses, accuracy):
        axes.legend()
        axes.grid(alpha=0.3)
    _save(figure, path)


def save_learning_curve(path: Path, curves: Mapping[str, Mapping[int, Sequence[float]]]) -> None:
    """Plots validation micro-F1 over the number of training queries.

    Args:
        path: where to.
        curves: name of a model -> number of training queries -> score of each seed; drawn as mean and, between lowest and highest, a band.
    """
    figure, axes = plt.subplots(figsize=(7, 4.5))
    for name, points in curves.items():
        sizes, scores = list(points), list(points.values())
        axes.plot(sizes, [float(np.mean(values)) for values in scores], label=name, marker="o")
        axes.fill_between(sizes, [min(values) for values in scores], [max(values) for values in scores], alpha=0.2)
    sizes = sorted({size for points in curves.values() for size in points})
    axes.set_xscale("log")
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.minorticks_off()
    axes.set(title="what further examples bring", xlabel="labelled training queries", ylabel="micro-F1 on validation queries")
    axes.legend()
    axes.grid(alpha=0.3)
    _save(figure, path)


def _training_curves(path: Path, history: Sequence[dict[str, Any]]) -> None:
    figure, (losses, scores) = plt.subplots(1, 2, figsize=(10, 4))
    for key, name in (("loss", "training"), ("eval_loss", "validation")):
        points = [(entry["epoch"], entry[key]) for entry in history if key in entry]
        losses.plot(*zip(*points, strict=True), label=name, marker=".")
    for key, name in (("eval_micro_f1", "micro-F1"), ("eval_macro_f1", "macro-F1"), ("eval_exact_match", "exact match")):
        points = [(entry["epoch"], entry[key]) for entry in history if key in entry]
        scores.plot(*zip(*points, strict=True), label=name, marker=".")
    losses.set(title="loss", xlabel="epoch", ylim=(0, None))
    scores.set(title="validation, thresholds untuned", xlabel="epoch", ylim=(0, 1))
    for axes in (losses, scores):
        axes.legend()
        axes.grid(alpha=0.3)
    _save(figure, path)


def _label_scores(path: Path, per_label: dict[str, Any], names: Names) -> None:
    order = sorted(per_label, key=lambda label: per_label[label]["f1"])
    figure, axes = plt.subplots(figsize=(7, 1.2 + 0.3 * len(order)))
    bars = axes.barh([names.label(label) for label in order], [per_label[label]["f1"] for label in order])
    axes.bar_label(bars, [f"{per_label[label]['f1']:.2f}  (n={per_label[label]['support']})" for label in order], padding=3)
    axes.set(title="F1 on the test split", xlim=(0, 1.18), xlabel=names.note or None)
    _save(figure, path)


def _confusion(path: Path, per_label: dict[str, Any], predictions: np.ndarray, references: np.ndarray, names: Names) -> None:
    seen = [label for label in per_label if per_label[label]["support"]] or list(per_label)
    worst = sorted(seen, key=lambda label: per_label[label]["f1"])[:WORST]
    figure, grid = plt.subplots(1, len(worst), figsize=(4.2 * len(worst), 4.2), squeeze=False)
    for axes, label in zip(grid[0], worst, strict=True):
        column, size = names.schema.labels.index(label), len(names.schema.values[label])
        counts = np.zeros((size, size), dtype=int)
        np.add.at(counts, (references[:, column], predictions[:, column]), 1)
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for row, cell in np.ndindex(size, size):
            axes.text(
                cell,
                row,
                str(counts[row, cell]),
                ha="center",
                va="center",
                color="white" if shares[row, cell] > 0.5 else "black",
                fontsize=8,
            )
        ticks = [names.value(label, index) for index in range(size)]
        axes.set_xticks(range(size), ticks, rotation=45, ha="right")
        axes.set_yticks(range(size), ticks)
        axes.set(title=names.label(label), xlabel="predicted", ylabel="right" if axes is grid[0][0] else None)
    figure.suptitle("The labels with the lowest F1" + (f" ({names.note})" if names.note else ""), fontsize=9)
    _save(figure, path)


def _save(figure: plt.Figure, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
