"""Measures in rounds: every entry in a fresh process, in turns (A B C A B C ...), written after every process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.preparing import ROOT, THREADS
from ultralight.problems import CheckError
from ultralight.progress import progress
from ultralight.report import write_metrics

LENGTHS = (16, 20, 32, 64)
BATCHES = (1, 32, 256)
ONE, ALL = "one", "all"
FIRST_QUERY = "刚拿本不敢停车，最好自己会倒库"
TAIL = 2_000


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Task:
    """What a worker measures: a runtime's start, and, where a workload is named, latencies and batches."""

    runtime: str
    folder: str
    options: dict[str, Any]
    workload: str = ""
    seconds: float = 0.0
    lengths: tuple[int, ...] = ()
    batches: tuple[int, ...] = ()
    threads: int = 1
    suffix: str = ONE
    first: str = FIRST_QUERY


def run_worker(task: Task) -> dict[str, float]:
    """Measures a task in a fresh process.

    Raises:
        CheckError: the process failed.
    """
    environment = {
        **os.environ,
        **dict.fromkeys(THREADS, str(task.threads)),
        "TOKENIZERS_PARALLELISM": "true" if task.threads > 1 else "false",
        "HF_HUB_OFFLINE": "1",
    }
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.worker", json.dumps(asdict(task))]
    # The clock is the same in all processes.
    result = subprocess.run([*command, str(time.monotonic())], capture_output=True, text=True, env=environment, cwd=ROOT, check=False)
    if result.returncode:
        raise CheckError(f"{task.runtime} in {task.folder}: measuring failed\n{result.stderr[-TAIL:]}")
    return json.loads(result.stdout.splitlines()[-1])


@dataclass(frozen=True)
class Subject:
    """An entry to measure: its name, the fingerprint of what was trained, and the tasks of a round."""

    entry: str
    fingerprint: str
    tasks: tuple[Task, ...]


def pending(done: Sequence[dict[str, Any]], subjects: Sequence[Subject], rounds: int) -> Iterator[tuple[int, Subject]]:
    """What is still to be measured, in turns: the first round of all, then the second of all."""
    measured = {(row["round"], row["entry"], row["fingerprint"]) for row in done}
    for number in range(rounds):
        for subject in subjects:
            if (number, subject.entry, subject.fingerprint) not in measured:
                yield number, subject


def measure(results: dict[str, Any], path: Path, subjects: Sequence[Subject], rounds: int) -> None:
    """Adds to `results["rounds"]` what is missing there, and writes `results` after every entry.

    Args:
        results: what has been measured so far; rows of other entries or of what has been trained anew are dropped.
        path: the JSON file.
        subjects: what to measure.
        rounds: turns.
    """
    current = {(subject.entry, subject.fingerprint) for subject in subjects}
    results["rounds"] = [
        row for row in results.get("rounds", []) if (row["entry"], row["fingerprint"]) in current and row["round"] < rounds
    ]
    todo = list(pending(results["rounds"], subjects, rounds))
    for subject in {subject.entry: subject for _, subject in todo}.values():
        # Not counted: reads files into the system's cache, and compiles modules.
        run_worker(Task(subject.tasks[0].runtime, subject.tasks[0].folder, subject.tasks[0].options))
    for number, subject in progress(todo, "measuring", "processes"):
        figures: dict[str, float] = {}
        for task in subject.tasks:
            # The first task's figures stand: start and memory are those of one thread.
            figures = {**run_worker(task), **figures}
        results["rounds"].append({"round": number, "entry": subject.entry, "fingerprint": subject.fingerprint, "figures": figures})
        results["rounds"].sort(key=lambda row: row["round"])
        write_metrics(path, results)
