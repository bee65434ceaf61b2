"""Measures UltraLight and what a user would pick instead, side by side: `python -m benchmarks.compare --help`."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks import compare_plots
from benchmarks.compare_report import markdown
from benchmarks.entries import ENTRIES, PEERS, Entry, choose_entries
from benchmarks.measuring import ALL, BATCHES, LENGTHS, Subject, Task, cores, measure
from benchmarks.peers.bert import OLD_LENGTH
from benchmarks.preparing import ROOT, Preparation, check_prepared, prepare, write_quick_dataset
from benchmarks.worker import FEWEST_CALLS
from benchmarks.workload import write_workload
from ultralight.command_line import add_output_flags, make_parser, run_command
from ultralight.files import write_text
from ultralight.problems import InputError
from ultralight.report import write_metrics
from ultralight.settings import assigned_flags

CAR_QUERIES, BDCI_CAR = "data/car_queries", "../shared/data/bdci_car"
RESULTS, MODELS = "benchmarks/results", "outputs/compare"
# Where a smoke run, a part of the entries and a run that only trains go, so that they never replace the published table.
ASIDE = "outputs/compare/results"
PACKAGES = ("torch", "transformers", "onnxruntime", "tokenizers", "numpy", "scikit-learn", "fasttext-community")


USAGE = f"""\
Trains every alternative on the same rows, then measures all in turns, each in a fresh process.

Shows what a user would give up, and get, with another model: accuracy, size, start, latency, throughput, memory. Writes compare.json,
compare.md and plots. What is trained stays in {MODELS} and is not trained again: train at any time, measure on quiet cores.

examples:
  python -m benchmarks.compare                              everything, about 45 minutes on two cores, most of them training
  python -m benchmarks.compare --quick                      whether it works, in minutes
  python -m benchmarks.compare --measure --resume           goes on measuring what has been trained
  python -m benchmarks.compare --only micro_int8 tfidf      two entries

entries: {", ".join(entry.name for entry in ENTRIES)}"""


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the flags."""
    parser = make_parser(USAGE)
    parser.add_argument(
        "--dataset",
        nargs="+",
        help="what to train on; speed is measured with the first (default: car_queries, and bdci_car where it is there)",
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help=f"some of the entries; the results go to {ASIDE}")
    parser.add_argument("--extra", action="store_true", help="also unpruned_int8, a whole training with teachers more")
    parser.add_argument("--rounds", type=int, default=5, help="turns")
    parser.add_argument("--seconds", type=float, default=0.5, help="seconds for each latency and throughput figure")
    parser.add_argument("--jobs", type=int, default=cores(), help="trainings at a time")
    parser.add_argument("--train", action="store_true", help=f"train only; accuracy and sizes go to {ASIDE}")
    parser.add_argument("--measure", action="store_true", help="measure only, what has been trained")
    parser.add_argument("--resume", action="store_true", help="keep the rounds that an interrupted run has measured")
    parser.add_argument("--retrain", action="store_true", help="train again what is there, and micro instead of taking the shipped model")
    parser.add_argument(
        "--trained",
        nargs="*",
        default=[],
        metavar="PRODUCT=FOLDER",
        help="take micro, unpruned, nano or tiny from a folder that train.py wrote (default: micro=. for car_queries)",
    )
    parser.add_argument("--quick", action="store_true", help="smoke run: 400 training queries, hardly any training, one round")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="further settings of train.py for the presets")
    parser.add_argument("--models", type=Path, help=f"folder for what is trained (default: {MODELS})")
    parser.add_argument("--results", type=Path, help=f"folder for the table (default: {RESULTS})")
    return add_output_flags(parser).parse_args(arguments)


def datasets_of(arguments: argparse.Namespace, models: Path) -> list[str]:
    """The datasets to train on."""
    if arguments.dataset:
        return list(arguments.dataset)
    if arguments.quick:
        return [write_quick_dataset(models / "data" / "quick")]
    return [name for name in (CAR_QUERIES, BDCI_CAR) if (ROOT / name).exists()]


def trained_of(arguments: argparse.Namespace, dataset: str) -> dict[str, str]:
    """Product -> folder of what need not be trained on the first dataset.

    Raises:
        InputError: the product is none of the presets, or the folder holds no model.
    """
    shipped = not arguments.retrain and (ROOT / dataset).resolve() == ROOT / CAR_QUERIES
    folders = {"micro": "."} if shipped else {}
    for item in arguments.trained:
        product, _, folder = item.partition("=")
        if PEERS.get(product) != "ultra_light" or not (ROOT / folder / "config.json").is_file():
            presets = ", ".join(name for name, peer in PEERS.items() if peer == "ultra_light")
            raise InputError(f"--trained {item}: accepted: PRODUCT=FOLDER, {presets} and a folder that train.py wrote")
        folders[product] = folder
    return folders


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    info = Path("/proc/cpuinfo")
    names = (
        [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    )
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    processor = names[0] if names else platform.processor() or platform.machine()
    return {"processor": processor, "cores": cores(), "python": platform.python_version(), "versions": versions}


def describe(entries: Sequence[Entry], datasets: Sequence[str], how: Preparation) -> dict[str, Any]:
    """Sizes and scores of the entries, and how they were trained."""
    described: dict[str, Any] = {"entries": {}, "trained": {}}
    for entry in entries:
        scores = {}
        for dataset in datasets if entry.everywhere else datasets[:1]:
            facts, name = how.facts(dataset, entry.product), Path(dataset.rstrip("/")).stem
            described["trained"].setdefault(entry.product, {})[name] = {key: value for key, value in facts.items() if key != "scores"}
            if entry.trained:
                scores[name] = facts["scores"][entry.name]
        size = entry.size(how.folder(datasets[0], entry.product))
        described["entries"][entry.name] = {"title": entry.title, "bytes": size, "scores": scores}
    return described


def subject_of(entry: Entry, dataset: str, how: Preparation, workload: Path, seconds: float) -> Subject:
    """What a round measures of an entry: one process with one thread, and one with all where that makes a difference."""
    folder = entry.folder(how.folder(dataset, entry.product)).resolve()
    single = Task(
        runtime=f"benchmarks.runtimes.{entry.runtime}",
        folder=str(folder),
        options=entry.options,
        workload=str(workload.resolve()),
        seconds=seconds,
        lengths=LENGTHS,
        batches=BATCHES if entry.trained else (),
    )
    tasks = [single, replace(single, lengths=(), threads=cores(), suffix=ALL)] if entry.trained else [single]
    return Subject(entry.name, how.facts(dataset, entry.product)["fingerprint"], tuple(tasks))


def run(arguments: argparse.Namespace) -> Path:
    """Trains, measures and writes the report; returns its path."""
    models = arguments.models or Path(MODELS) / ("quick" if arguments.quick else "")
    results_folder = arguments.results or Path(ASIDE if arguments.quick or arguments.only or arguments.train else RESULTS)
    entries, datasets = choose_entries(arguments.only, arguments.extra), datasets_of(arguments, models)
    flags = tuple(assigned_flags(arguments.set))
    how = Preparation(models, arguments.quick, arguments.retrain, trained_of(arguments, datasets[0]), flags, arguments.jobs)
    if arguments.measure:
        check_prepared(entries, datasets, how)
    else:
        prepare(entries, datasets, how)
    table = results_folder / "compare.json"
    results: dict[str, Any] = json.loads(table.read_text(encoding="utf-8")) if arguments.resume and table.exists() else {}
    workload = models / "workload.json"
    write_workload(workload, datasets[0], LENGTHS)
    real = json.loads(workload.read_text(encoding="utf-8"))["real"]
    results = {
        "machine": machine(),
        "datasets": [Path(dataset.rstrip("/")).stem for dataset in datasets],
        "fewest_calls": FEWEST_CALLS,
        "typical_length": int(statistics.median(map(len, real))),
        "old_length": OLD_LENGTH,
        "plots": list(compare_plots.NAMES),
        **describe(entries, datasets, how),
        "rounds": results.get("rounds", []),
    }
    write_metrics(table, results)
    if not arguments.train:
        subjects = [subject_of(entry, datasets[0], how, workload, arguments.seconds) for entry in entries]
        measure(results, table, subjects, 1 if arguments.quick else arguments.rounds)
    compare_plots.save_plots(results_folder, results)
    write_text(table.with_suffix(".md"), markdown(results))
    return table.with_suffix(".md")


def main() -> None:
    """Runs and prints the report."""
    print(run(parse_arguments()).read_text(encoding="utf-8"))


if __name__ == "__main__":
    run_command(main, after_interrupt="the same command with --resume keeps the rounds that were measured")
