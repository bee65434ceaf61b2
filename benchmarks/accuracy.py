"""Accuracy of the INT8 model against a linear one, on several datasets: `python -m benchmarks.accuracy --help`.

Every choice of a run (epoch, thresholds) is made on its validation split; a test split is read once, at the end of each run.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from datasets import DatasetDict

from ultralight.command_line import add_output_flags, make_parser, run_command
from ultralight.dataset import find_labels_file, load_splits
from ultralight.experiment import run
from ultralight.files import write_text
from ultralight.linear import LinearClassifier
from ultralight.report import write_metrics
from ultralight.schema import LabelSchema
from ultralight.scores import OVERALL, overall, score
from ultralight.settings import TrainSettings, assigned_flags, parse_settings
from ultralight.teachers import prepare_lesson
from ultralight.thresholds import decide_by, tune_thresholds

RESULTS = Path(__file__).parent / "results"


USAGE = """\
Trains with one settings file on each dataset with several seeds, and TF-IDF + logistic regression on the same rows.

Shows what a change of the model is worth, beyond the luck of a seed. Writes benchmarks/results/accuracy.json and accuracy.md (mean and
standard deviation over the seeds); a dataset that was measured earlier stays in them.

examples:
  python -m benchmarks.accuracy                                          the embedded car queries, three seeds, hours
  python -m benchmarks.accuracy configs/car_queries.yaml --dataset data/car_queries my_data --seeds 1 2 3
  python -m benchmarks.accuracy --dataset my_data --set max_seq_length=128 teacher_folds=3"""


def parse_arguments() -> argparse.Namespace:
    """Reads the flags."""
    parser = make_parser(USAGE)
    parser.add_argument("settings_yaml", nargs="?", default="configs/car_queries_distilled.yaml", help="settings of all runs")
    parser.add_argument("--dataset", nargs="+", default=["data/car_queries"], help="datasets in any form that train.py reads")
    parser.add_argument("--seeds", nargs="+", type=int, default=[42, 43, 44], help="one run each; the teachers are shared")
    parser.add_argument("--output_dir", default="outputs/accuracy", help="folder for the trained models")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the table; datasets measured earlier stay in it")
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="NAME=VALUE", help="further settings of train.py; several values: VALUE,VALUE"
    )
    return add_output_flags(parser).parse_args()


def measure(dataset: str, settings: TrainSettings, seeds: list[int]) -> Iterator[dict[str, Any]]:
    """Scores of the linear model and of a run for each seed on the dataset's test split; yields what is known after each run."""
    schema = LabelSchema.from_file(settings.config or find_labels_file(dataset))
    splits, _ = load_splits(dataset, schema, split_seed=settings.split_seed, contradictions=settings.contradictions)
    lesson = prepare_lesson(splits, schema, settings) if settings.distillation else None
    result: dict[str, Any] = {"linear": linear_scores(splits, schema, "test"), "runs": [], "settings": dataclasses.asdict(settings)}
    for seed in seeds:
        own = dataclasses.replace(settings, seed=seed, output_dir=str(Path(str(settings.output_dir)) / f"seed_{seed}"))
        metrics = run(own, lesson)
        scores: dict[str, Any] = {part: overall(metrics[part]) for part in ("validation", "test", "test_int8")}
        facts = {"seed": seed, "deployable_bytes": metrics["deployable_bytes"], "seconds": metrics["seconds"]["total"]}
        result["runs"].append({**scores, **facts})
        yield result


def linear_scores(splits: DatasetDict, schema: LabelSchema, part: str) -> dict[str, float]:
    """Scores of the linear model on a split; its thresholds are tuned on the validation split."""
    linear = LinearClassifier(schema).fit(splits["train"]["query"][:], np.array(splits["train"]["labels"]))
    said = {name: linear.probabilities(splits[name]["query"][:]) for name in {"validation", part}}
    tuned = tune_thresholds(said["validation"], np.array(splits["validation"]["labels"]), schema)
    chosen = decide_by(tuned, said[part], schema)
    return overall(score(chosen, np.array(splits[part]["labels"]), schema))


def markdown_table(results: dict[str, Any]) -> str:
    """A row a dataset: the linear model, and mean and standard deviation of the runs."""
    columns = ["dataset", "TF-IDF + LR: micro-F1", "macro-F1", "seeds", "UltraLight INT8: micro-F1", "macro-F1", "every label right"]
    columns += ["fp32: micro-F1", "size"]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name, result in results.items():
        runs = result["runs"]
        linear = [f"{result['linear'][key]:.3f}" for key in OVERALL[:2]]
        own = [_mean_and_deviation(runs, "test_int8", key) for key in OVERALL]
        size = f"{max(run['deployable_bytes'] for run in runs) / 1e6:.2f} MB"
        lines.append(f"| {' | '.join([name, *linear, str(len(runs)), *own, _mean_and_deviation(runs, 'test', OVERALL[0]), size])} |")
    return "\n".join(lines) + "\n"


def _mean_and_deviation(runs: list[dict[str, Any]], part: str, key: str) -> str:
    values = np.array([run[part][key] for run in runs])
    return f"{values.mean():.3f}" + (f" ± {values.std():.3f}" if len(values) > 1 else "")


def main() -> None:
    """Measures dataset after dataset, and keeps each run as it ends."""
    arguments = parse_arguments()
    table = arguments.results / "accuracy.json"
    for dataset in arguments.dataset:
        name = Path(dataset.rstrip("/")).stem
        own = ["--dataset", dataset, "--output_dir", str(Path(arguments.output_dir) / name), *assigned_flags(arguments.set)]
        for measured in measure(dataset, parse_settings([arguments.settings_yaml, *own], None, TrainSettings), arguments.seeds):
            # Read now, not before: another run may have added its datasets meanwhile.
            results = json.loads(table.read_text(encoding="utf-8")) if table.exists() else {}
            results[name] = measured
            write_metrics(table, results)
            write_text(table.with_suffix(".md"), markdown_table(results))
    print(table.with_suffix(".md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    run_command(main)
