"""Trains what is to be measured: a process for each product, several at once, nothing twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.entries import PEERS, Entry
from benchmarks.peers.job import Job
from benchmarks.train_peer import FACTS, fingerprint_of, is_made
from ultralight.files import write_text
from ultralight.problems import CheckError, InputError, Problems
from ultralight.progress import progress

ROOT = Path(__file__).resolve().parent.parent
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
TAIL = 2_000
QUICK_ROWS = 400


@dataclass(frozen=True)
class Preparation:
    """How to train.

    Args:
        models: folder for all products.
        quick: a smoke run.
        retrain: train again what is there.
        trained: product -> folder of a model trained on the first dataset, to take it from.
        flags: further flags of train.py for the presets.
        jobs: processes at a time, a thread each.
    """

    models: Path
    quick: bool = False
    retrain: bool = False
    trained: Mapping[str, str] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    jobs: int = 1

    def folder(self, dataset: str, product: str) -> Path:
        """Where a product trained on a dataset is."""
        return self.models / Path(dataset.rstrip("/")).stem / product

    def facts(self, dataset: str, product: str) -> dict[str, Any]:
        """What its training has left: fingerprint, scores, and what was chosen.

        Raises:
            InputError: it has not been trained.
        """
        path = self.folder(dataset, product) / FACTS
        if not path.exists():
            raise InputError(f"{path.parent}: {product} has not been trained on {dataset}; accepted: a run without --measure")
        return json.loads(path.read_text(encoding="utf-8"))


def prepare(entries: Sequence[Entry], datasets: Sequence[str], how: Preparation) -> None:
    """Trains the products of the entries on the datasets.

    Raises:
        CheckError: a training failed; its messages are in a log beside the product.
    """
    elsewhere = replace(how, trained={})
    groups = _all_groups(entries, datasets)
    # Those that take longest first, so that no process is left with one at the end.
    groups.sort(key=lambda group: list(PEERS).index(group[1][0]))
    with ThreadPoolExecutor(how.jobs) as pool:
        results = pool.map(lambda group: _train(group[0], group[1], how if group[0] == datasets[0] else elsewhere), groups)
        for _ in progress(results, "training", "groups", total=len(groups)):
            pass


def check_prepared(entries: Sequence[Entry], datasets: Sequence[str], how: Preparation) -> None:
    """Makes sure that what is measured is what would be trained now.

    Raises:
        InputError: names the products that were trained on other data, with other settings, or are copies of what has changed since.
    """
    problems = Problems("products")
    for dataset, products in _all_groups(entries, datasets):
        sources = how.trained if dataset == datasets[0] else {}
        for product in products:
            source = ROOT / sources[product] if product in sources else None
            job = Job(dataset, product, how.folder(dataset, product), how.quick, source, how.flags)
            if not is_made(job.folder, fingerprint_of(job)):
                problems.add(str(job.folder), f"not trained on {dataset} as it is now; accepted: a run without --measure")
    problems.raise_if_any()


def _all_groups(entries: Sequence[Entry], datasets: Sequence[str]) -> list[tuple[str, list[str]]]:
    return [group for dataset in datasets for group in group_products(entries, dataset, dataset == datasets[0])]


def group_products(entries: Sequence[Entry], dataset: str, first: bool) -> list[tuple[str, list[str]]]:
    """(dataset, products) to train in one process each: this project's presets together, since they share their teachers."""
    wanted = dict.fromkeys(entry.product for entry in entries if entry.everywhere or first)
    ordered = [product for product in PEERS if product in wanted]
    own = [product for product in ordered if PEERS[product] == "ultra_light"]
    return [(dataset, group) for group in ([own] if own else []) + [[product] for product in ordered if product not in own]]


def write_quick_dataset(folder: Path) -> str:
    """A small dataset of car queries, of the training file alone: a smoke run never reads the test file."""
    source = ROOT / "data" / "car_queries"
    rows = (source / "train.jsonl").read_text(encoding="utf-8").split("\n")[:QUICK_ROWS]
    write_text(folder / "train.jsonl", "\n".join(rows) + "\n")
    write_text(folder / "QueryLabels.json", (source / "QueryLabels.json").read_text(encoding="utf-8"))
    return str(folder)


def _train(dataset: str, products: list[str], how: Preparation) -> None:
    output = how.folder(dataset, products[0]).parent
    output.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "benchmarks.train_peer", "--dataset", dataset, "--output", str(output), "--products", *products]
    command += ["--flags", json.dumps(how.flags), "--trained", json.dumps(dict(how.trained))]
    command += [flag for flag, given in (("--quick", how.quick), ("--retrain", how.retrain)) if given]
    log = output / f"{products[0]}.log"
    environment = {**os.environ, **dict.fromkeys(THREADS, "1"), "TOKENIZERS_PARALLELISM": "false"}
    with log.open("w", encoding="utf-8") as file:
        code = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, env=environment, cwd=ROOT, check=False).returncode
    if code:
        raise CheckError(f"{', '.join(products)} on {dataset}: training failed, see {log}\n{log.read_text(encoding='utf-8')[-TAIL:]}")
