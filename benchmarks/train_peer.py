"""Trains what is compared, in a process of its own: `python -m benchmarks.train_peer --help`; started by `benchmarks.preparing`."""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import shutil
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from benchmarks.entries import ENTRIES, PEERS, Entry
from benchmarks.peers.job import Job
from ultralight.command_line import add_output_flags, make_parser, run_command
from ultralight.dataset import find_labels_file
from ultralight.records import locate_splits
from ultralight.report import write_metrics
from ultralight.scores import overall, score

FACTS = "facts.json"
CHUNK = 64


USAGE = """\
Trains alternatives on one dataset, as `python -m benchmarks.compare` has it done, and scores each on the test split once.

example:
  python -m benchmarks.train_peer --dataset data/car_queries --products static --output outputs/compare/car_queries"""


def parse_arguments() -> argparse.Namespace:
    """Reads the flags."""
    parser = make_parser(USAGE)
    parser.add_argument("--dataset", required=True, help="in any form that train.py reads")
    parser.add_argument("--products", nargs="+", required=True, choices=PEERS, help="what to train, in turn")
    parser.add_argument("--output", type=Path, required=True, help="a folder for each product is made in it")
    parser.add_argument("--quick", action="store_true", help="smoke run")
    parser.add_argument("--retrain", action="store_true", help="train again what is there")
    parser.add_argument("--flags", default="[]", help="JSON list of further flags of train.py")
    parser.add_argument("--trained", default="{}", help="JSON object: product -> folder to take it from")
    return add_output_flags(parser).parse_args()


def make(job: Job, again: bool) -> None:
    """Trains a product and scores its entries, unless that has been done with the same data and recipe and is not wanted again."""
    fingerprint = fingerprint_of(job)
    if is_made(job.folder, fingerprint) and not again:
        return
    started = time.perf_counter()
    shutil.rmtree(job.folder, ignore_errors=True)
    job.folder.mkdir(parents=True)
    facts = {"fingerprint": fingerprint, **_peer_of(job).train(job)}
    facts["seconds"] = time.perf_counter() - started
    facts["scores"] = {
        entry.name: score_entry(entry, job) for entry in ENTRIES if entry.product == job.product and entry.trained and _is_there(entry, job)
    }
    write_metrics(job.folder / FACTS, facts)


def fingerprint_of(job: Job) -> str:
    """What the outcome depends on, hashed: the data, the recipe, and whether it is a smoke run."""
    files = [find_labels_file(job.dataset), *(locate_splits(job.dataset) or {}).values()]
    content = json.dumps([_peer_of(job).recipe(job), job.quick], sort_keys=True, default=str).encode()
    return hashlib.sha256(b"".join([*(path.read_bytes() for path in files), content])).hexdigest()[:16]


def is_made(folder: Path, fingerprint: str) -> bool:
    """Whether a folder holds a finished product with this fingerprint."""
    facts = folder / FACTS
    return facts.exists() and json.loads(facts.read_text(encoding="utf-8"))["fingerprint"] == fingerprint


def score_entry(entry: Entry, job: Job) -> dict[str, Any]:
    """Scores on the test split of what the entry's own runtime answers."""
    runtime = importlib.import_module(f"benchmarks.runtimes.{entry.runtime}").Runtime(entry.folder(job.folder), 1, **entry.options)
    queries = job.queries("test")
    answers = [answer for start in range(0, len(queries), CHUNK) for answer in runtime.predict_batch(queries[start : start + CHUNK])]
    scores = score(np.array([job.schema.encode(answer) for answer in answers]), job.labels("test"), job.schema)
    return overall(scores)


def _peer_of(job: Job) -> ModuleType:
    return importlib.import_module(f"benchmarks.peers.{PEERS[job.product]}")


def _is_there(entry: Entry, job: Job) -> bool:
    """Whether the product has the entry's files: those that need a package may be left out."""
    return entry.needs is None or all((entry.folder(job.folder) / name).exists() for name in entry.files)


def main() -> None:
    """Makes the products in turn."""
    arguments = parse_arguments()
    trained, flags = json.loads(arguments.trained), tuple(json.loads(arguments.flags))
    for product in arguments.products:
        source = Path(trained[product]) if product in trained else None
        make(Job(arguments.dataset, product, arguments.output / product, arguments.quick, source, flags), arguments.retrain)


if __name__ == "__main__":
    run_command(main)
