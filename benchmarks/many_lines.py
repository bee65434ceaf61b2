"""A long file through predict.py: queries a second, memory, and whether threads change an answer: `python -m benchmarks.many_lines`."""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ultralight.command_line import add_output_flags, make_parser, run_command
from ultralight.files import write_text
from ultralight.report import write_metrics

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).parent / "results"
# Prints the peak of its own memory in megabytes to standard error, once predict.py is through.
RUNNER = (
    "import atexit, runpy, sys; from benchmarks.worker import memory_mb; sys.argv = sys.argv[1:];"
    "atexit.register(lambda: print(memory_mb()[1], file=sys.stderr));"
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)


USAGE = """\
Makes files of lines out of real training queries and runs predict.py over them, with one and several threads.

Shows that memory does not grow with a file, what threads bring, and that they change no answer. Writes many_lines.json and
many_lines.md to benchmarks/results/.

example:
  python -m benchmarks.many_lines --lines 10000 1000000 --num_workers 1 2"""


def parse_arguments() -> argparse.Namespace:
    """Reads the flags."""
    parser = make_parser(USAGE)
    parser.add_argument("--lines", nargs="+", type=int, default=[10_000, 100_000, 1_000_000], help="lengths of the files")
    parser.add_argument("--num_workers", nargs="+", type=int, default=[1, 2], help="threads")
    parser.add_argument("--model", type=Path, default=ROOT, help="model folder")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the table")
    return add_output_flags(parser).parse_args()


def made_lines(count: int, seed: int = 0) -> Iterator[str]:
    """Lines made of real queries: one as it is, or the beginning of one and the end of another."""
    with (ROOT / "data" / "car_queries" / "train.jsonl").open(encoding="utf-8") as file:
        queries = [json.loads(line)["query"].replace("\n", " ") for line in file]
    draw = random.Random(seed)
    for _ in range(count):
        first, second = draw.choice(queries), draw.choice(queries)
        yield first if draw.random() < 0.5 else first[: len(first) // 2 + 1] + second[len(second) // 2 :]


def run_predict(model: Path, lines: Path, num_workers: int) -> dict[str, Any]:
    """One run in a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        answers = Path(folder) / "answers.jsonl"
        command = [sys.executable, "-c", RUNNER, str(ROOT / "predict.py"), "--model", str(model)]
        command += ["--input", str(lines), "--output", str(answers), "--num_workers", str(num_workers)]
        started = time.perf_counter()
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        seconds = time.perf_counter() - started
        with answers.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"num_workers": num_workers, "seconds": seconds, "peak_megabytes": float(result.stderr.split()[-1]), "answers": digest}


def markdown_table(measured: list[dict[str, Any]]) -> str:
    """A row a run."""
    lines = ["| lines | threads | queries/s | peak memory | answers |", "|---|---|---|---|---|"]
    first: dict[int, str] = {}
    for run in measured:
        same = "the same" if first.setdefault(run["lines"], run["answers"]) == run["answers"] else "**differ**"
        rate, memory = run["lines"] / run["seconds"], run["peak_megabytes"]
        lines.append(f"| {run['lines']:,} | {run['num_workers']} | {rate:,.0f} | {memory:.0f} MB | {same} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Runs all files with all numbers of threads."""
    arguments = parse_arguments()
    measured: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for count in arguments.lines:
            path = Path(folder) / f"{count}.txt"
            write_text(path, "".join(f"{line}\n" for line in made_lines(count)))
            for num_workers in arguments.num_workers:
                measured.append({"lines": count, **run_predict(arguments.model, path, num_workers)})
                write_metrics(arguments.results / "many_lines.json", {"runs": measured})
                write_text(arguments.results / "many_lines.md", markdown_table(measured))
    print(markdown_table(measured))


if __name__ == "__main__":
    run_command(main)
