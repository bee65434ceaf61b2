"""How many labelled queries one needs: `python -m benchmarks.learning_curve --help`.

Scored on the validation split, on which epoch and thresholds are chosen, too: a little high, for both models. The test split is not read.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from datasets import DatasetDict

from benchmarks.accuracy import RESULTS, linear_scores
from ultralight.command_line import add_output_flags, make_parser, run_command
from ultralight.dataset import find_labels_file, load_splits
from ultralight.files import write_text
from ultralight.plots import save_learning_curve
from ultralight.problems import InputError
from ultralight.progress import progress
from ultralight.schema import LabelSchema
from ultralight.scores import OVERALL, overall, score
from ultralight.settings import TrainSettings, assigned_flags, parse_settings
from ultralight.teachers import prepare_lesson
from ultralight.thresholds import decide_by, tune_thresholds
from ultralight.training import make_trainer, remove_checkpoints, run_training

ALL = "all"
SIZES = ("250", "500", "1000", "2000", "4000", "8000", "16000")
# Curves, by the key under which a point holds their scores.
NAMES = {"linear": "TF-IDF + LR", "network": "UltraLight"}

USAGE = """\
Trains on ever more of the training queries, and TF-IDF + logistic regression on the same ones; scores both on the validation split.

Shows whether further examples still pay, and from how many on the network is the better choice. Writes learning_curve.json, .md and .png
to benchmarks/results/, after every point; each set of queries holds the smaller ones.

examples:
  python -m benchmarks.learning_curve                                  the embedded car queries
  python -m benchmarks.learning_curve --resume                         goes on where the last run stopped
  python -m benchmarks.learning_curve --dataset my_data --sizes 200 400 all --results my_results"""


def parse_arguments() -> argparse.Namespace:
    """Reads the flags."""
    parser = make_parser(USAGE)
    parser.add_argument("settings_yaml", nargs="?", default="configs/car_queries.yaml", help="settings of all runs")
    parser.add_argument("--dataset", help="a dataset in any form that train.py reads; default: that of the settings")
    parser.add_argument(
        "--sizes", nargs="+", type=_size, help="numbers of training queries, or all; default: 250, doubled again and again, and all"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[42], help="one network each")
    parser.add_argument("--output_dir", type=Path, default="outputs/learning_curve", help="folder for checkpoints")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for figures, table and plot")
    parser.add_argument("--resume", action="store_true", help="keep the points that are finished; otherwise they are measured anew")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="settings of train.py, such as distillation=true")
    return add_output_flags(parser).parse_args()


def _size(text: str) -> str:
    if text != ALL and not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r}; accepted: a number of queries, or all")
    return text


def subset(splits: DatasetDict, size: str, seed: int) -> DatasetDict:
    """The splits with so many of the training queries; the same seed takes a larger set from a smaller one by adding to it."""
    train = splits["train"]
    if size == ALL:
        return splits
    if int(size) > len(train):
        raise InputError(f"--sizes {size}: there are {len(train)} training queries")
    chosen = np.random.default_rng(seed).permutation(len(train))[: int(size)]
    return DatasetDict({**splits, "train": train.select(sorted(chosen))})


def score_network(splits: DatasetDict, schema: LabelSchema, settings: TrainSettings) -> dict[str, float]:
    """Trains, goes on with an interrupted training, and scores on the validation split."""
    lesson = prepare_lesson(splits, schema, settings) if settings.distillation else None
    trainer = make_trainer(splits, schema, settings, lesson)
    run_training(trainer)
    probabilities, references = trainer.ask(splits["validation"])
    thresholds = tune_thresholds(probabilities, references, schema)
    scores = overall(score(decide_by(thresholds, probabilities, schema), references, schema))
    remove_checkpoints(trainer)
    return scores


def rows_a_value(splits: DatasetDict, schema: LabelSchema) -> int:
    """Median number of training queries that a value has, absent ones aside."""
    labels = np.array(splits["train"]["labels"])
    counts = [np.bincount(labels[:, column], minlength=size)[1:] for column, size in enumerate(schema.sizes)]
    return int(np.median(np.concatenate(counts)))


def markdown_table(results: dict[str, Any]) -> str:
    """A row for every number of queries, mean over the seeds."""
    lines = [
        f"`python -m benchmarks.learning_curve`: {results['dataset']}, scored on {results['validation_queries']} validation queries",
        "",
        "| training queries | of these a value (median) | TF-IDF + LR: micro-F1 | macro-F1 | UltraLight: micro-F1 | macro-F1 |",
        "|---|---|---|---|---|---|",
    ]
    for queries, points in by_size(results).items():
        means = [f"{np.mean([point[kind][name] for point in points]):.3f}" for kind in NAMES for name in OVERALL[:2]]
        lines.append(f"| {queries:,} | {points[0]['rows_a_value']:,} | {' | '.join(means)} |")
    return "\n".join(lines) + "\n"


def by_size(results: dict[str, Any]) -> dict[int, list[dict[str, Any]]]:
    """The points of each number of queries, smallest number first."""
    sizes = sorted({point["queries"] for point in results["points"]})
    return {size: [point for point in results["points"] if point["queries"] == size] for size in sizes}


def write_results(folder: Path, results: dict[str, Any]) -> None:
    """Writes figures, table and plot."""
    # In full: --resume compares the settings.
    write_text(folder / "learning_curve.json", json.dumps(results, ensure_ascii=False, indent=2) + "\n")
    write_text(folder / "learning_curve.md", markdown_table(results))
    lines = {
        name: {size: [point[kind]["micro_f1"] for point in points] for size, points in by_size(results).items()}
        for kind, name in NAMES.items()
    }
    save_learning_curve(folder / "learning_curve.png", lines)


def load_results(path: Path, empty: dict[str, Any], resume: bool) -> dict[str, Any]:
    """What an earlier run found, if it is to be kept.

    Raises:
        InputError: it was measured on other data or with other settings.
    """
    if not resume or not path.exists():
        return empty
    found = json.loads(path.read_text(encoding="utf-8"))
    for key in empty.keys() - {"points"}:
        if found.get(key) != empty[key]:
            raise InputError(f"--resume: {path} was measured with other {key}; accepted: the same, or without --resume")
    return found


def main() -> None:
    """Measures point after point and keeps what is finished."""
    arguments = parse_arguments()
    flags = assigned_flags(arguments.set)
    own = ["--dataset", arguments.dataset] if arguments.dataset else []
    settings = parse_settings([arguments.settings_yaml, *own, *flags, "--output_dir", str(arguments.output_dir)], None, TrainSettings)
    schema = LabelSchema.from_file(settings.config or find_labels_file(settings.dataset))
    splits, _ = load_splits(settings.dataset, schema, split_seed=settings.split_seed, contradictions=settings.contradictions)
    sizes = arguments.sizes or [*(size for size in SIZES if int(size) < len(splits["train"])), ALL]
    parts = {size: subset(splits, size, settings.split_seed) for size in sizes}
    recipe = {name: value for name, value in dataclasses.asdict(settings).items() if name not in ("dataset", "output_dir", "resume")}
    facts = {"dataset": settings.dataset, "validation_queries": len(splits["validation"]), "settings": recipe}
    results = load_results(arguments.results / "learning_curve.json", {**facts, "points": []}, arguments.resume)
    done = {(point["queries"], point["seed"]) for point in results["points"]}
    wanted = [(size, seed) for size in sizes for seed in arguments.seeds if (len(parts[size]["train"]), seed) not in done]
    for size, seed in progress(wanted, "learning curve", "points"):
        folder = arguments.output_dir / f"{size}_{seed}"
        resume = arguments.resume and (folder / "checkpoints").is_dir()
        started = time.perf_counter()
        network = score_network(parts[size], schema, dataclasses.replace(settings, seed=seed, output_dir=str(folder), resume=resume))
        point = {
            "queries": len(parts[size]["train"]),
            "seed": seed,
            "rows_a_value": rows_a_value(parts[size], schema),
            "network": network,
            "linear": linear_scores(parts[size], schema, "validation"),
            "seconds": time.perf_counter() - started,
        }
        results["points"].append(point)
        write_results(arguments.results, results)
    print(markdown_table(results))


if __name__ == "__main__":
    run_command(main, after_interrupt="the same command with --resume goes on from there")
