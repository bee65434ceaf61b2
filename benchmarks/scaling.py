"""What the model costs as the work grows: `python -m benchmarks.scaling --help`."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.compare import machine
from benchmarks.measuring import Subject, Task, cores, measure
from benchmarks.random_models import make_schema, write_model
from benchmarks.scaling_report import save_plots, sentences
from benchmarks.training_time import measure_training
from benchmarks.workload import write_workload
from ultralight.command_line import add_output_flags, make_parser, run_command
from ultralight.dataset import find_labels_file, load_splits
from ultralight.files import write_text
from ultralight.report import write_metrics
from ultralight.schema import LabelSchema
from ultralight.settings import TrainSettings, parse_settings

DATASET = "data/car_queries"
RESULTS, MODELS = "benchmarks/results", "outputs/scaling"
RUNTIME = "benchmarks.runtimes.ultralight_onnx"
LENGTHS = (4, 8, 16, 32, 64, 128)
LABELS, VALUES = (1, 2, 4, 8, 16, 32, 64), (2, 5, 10, 20, 50, 100, 200)
ROWS = (1_000, 3_000, 10_000, 30_000, 100_000)
# What stays while the other grows.
VALUES_A_LABEL, LABELS_OF_VALUES = 4, 4
TYPICAL_LENGTH, BATCH = 20, 256
VERIFIED = 300
# Room for the longest query and its two special tokens.
LONGEST = max(LENGTHS) + 2


USAGE = """\
Measures latency over the length of a query, the number of labels and of values, throughput over cores, and training time over queries.

Shows what more of each would cost before anybody labels it: the models have random weights. Writes scaling.json, scaling.md and plots.

examples:
  python -m benchmarks.scaling                              the shape that ships
  python -m benchmarks.scaling --settings configs/nano.yaml --results my_results
  python -m benchmarks.scaling --quick                      whether it works, in minutes"""


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the flags."""
    parser = make_parser(USAGE)
    parser.add_argument("--settings", default="configs/micro.yaml", help="shape of the models")
    parser.add_argument("--rounds", type=int, default=5, help="turns")
    parser.add_argument("--seconds", type=float, default=0.3, help="seconds for each figure")
    parser.add_argument("--quick", action="store_true", help="smoke run: the two smallest of each, one round")
    parser.add_argument("--models", type=Path, default=Path(MODELS), help="folder for the models")
    parser.add_argument("--results", type=Path, help=f"folder for the report (default: {RESULTS}; of a smoke run, {MODELS}/results)")
    return add_output_flags(parser).parse_args(arguments)


def make_subjects(folder: Path, arguments: argparse.Namespace, settings: TrainSettings) -> list[Subject]:
    """Writes the models, and says what is measured of each.

    Of all a query of 20 characters; of the car queries' schema every length and number of cores.
    """
    splits, _ = load_splits(DATASET, LabelSchema.from_file(find_labels_file(DATASET)))
    texts = splits["train"]["query"][:VERIFIED]
    workload = folder / "workload.json"
    write_workload(workload, DATASET, sorted({*LENGTHS, TYPICAL_LENGTH}))

    def task(name: str, schema: LabelSchema, **what: Any) -> Task:
        model = write_model(folder / name, schema, settings, texts)
        return Task(RUNTIME, str(model.resolve()), {}, str(workload.resolve()), arguments.seconds, **what)

    cut = 2 if arguments.quick else None
    car = task("car_queries", LabelSchema.from_file(find_labels_file(DATASET)), lengths=LENGTHS[:cut])
    on_cores = (
        Task(**{**vars(car), "lengths": (), "batches": (BATCH,), "threads": number, "suffix": str(number)}) for number in core_counts()
    )
    subjects = [Subject("length", "", (car, *on_cores))]
    for name, schemas in (
        ("labels", {number: make_schema(number, VALUES_A_LABEL) for number in LABELS[:cut]}),
        ("values", {number: make_schema(LABELS_OF_VALUES, number) for number in VALUES[:cut]}),
    ):
        subjects += [
            Subject(f"{name} {number}", "", (task(f"{name}_{number}", schema, lengths=(TYPICAL_LENGTH,)),))
            for number, schema in schemas.items()
        ]
    return subjects


def core_counts() -> list[int]:
    """1, 2, 4 ... and all cores."""
    return sorted({*(1 << power for power in range(cores().bit_length())), cores()})


def run(arguments: argparse.Namespace) -> Path:
    """Measures and writes the report; returns its path."""
    results_folder = arguments.results or Path(f"{MODELS}/results" if arguments.quick else RESULTS)
    flags = ["--max_seq_length", str(LONGEST), "--distillation", "false", "--output_dir", str(arguments.models / "training")]
    settings = parse_settings([arguments.settings, *flags], None, TrainSettings)
    shutil.rmtree(arguments.models, ignore_errors=True)
    table = results_folder / "scaling.json"
    results: dict[str, Any] = {"machine": machine(), "settings": arguments.settings, "rounds": []}
    measure(results, table, make_subjects(arguments.models, arguments, settings), 1 if arguments.quick else arguments.rounds)
    plain = parse_settings([arguments.settings, *flags[2:]], None, TrainSettings)
    results["training"] = measure_training(ROWS[:2] if arguments.quick else ROWS, DATASET, plain, arguments.models / "data")
    write_metrics(table, results)
    save_plots(results_folder, results)
    write_text(table.with_suffix(".md"), sentences(results))
    return table.with_suffix(".md")


def main() -> None:
    """Runs and prints the report."""
    print(run(parse_arguments()).read_text(encoding="utf-8"))


if __name__ == "__main__":
    run_command(main)
