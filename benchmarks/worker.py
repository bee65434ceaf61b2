"""Measures one runtime in this process and prints the figures as JSON: started by `benchmarks.measuring`.

Imports the standard library only, so that what is measured is the runtime's own.
"""

from __future__ import annotations

import importlib
import json
import resource
import sys
import time
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

# Calls at least, however slow: a 99th percentile of fewer is their maximum.
FEWEST_CALLS = 20
FEWEST_BATCHES = 2
WARM_UP = 3
MB = 1 << 20


def memory_mb() -> tuple[float, float]:
    """Resident memory of this process now, and the most it has been.

    From /proc where there is one: `ru_maxrss` begins with what the parent process had when it started this one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines() if line.startswith("Vm"))
        return tuple(int(fields[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))  # type: ignore[return-value]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (MB if sys.platform == "darwin" else 1024)
    return peak, peak


def latencies(predict: Callable[[str], Any], queries: Sequence[str], seconds: float) -> list[float]:
    """Milliseconds of single predictions, sorted."""
    for query in queries[:WARM_UP]:
        predict(query)
    times: list[float] = []
    end = time.perf_counter() + seconds
    for query in cycle(queries):
        start = time.perf_counter()
        predict(query)
        now = time.perf_counter()
        times.append(1e3 * (now - start))
        if now >= end and len(times) >= FEWEST_CALLS:
            break
    return sorted(times)


def queries_per_second(predict_batch: Callable[[list[str]], Any], queries: Sequence[str], batch: int, seconds: float) -> float:
    """Throughput over batches of a size, in turn over the queries."""
    batches = [[queries[(start + offset) % len(queries)] for offset in range(batch)] for start in range(0, max(len(queries), batch), batch)]
    predict_batch(batches[0])
    start = time.perf_counter()
    for done, part in enumerate(cycle(batches), start=1):
        predict_batch(part)
        elapsed = time.perf_counter() - start
        if elapsed >= seconds and done >= FEWEST_BATCHES:
            return done * batch / elapsed
    raise AssertionError("cycle never ends")


def measure(task: dict[str, Any], started: float) -> dict[str, float]:
    """Figures of a task; see `benchmarks.measuring.Task`."""
    begin, _ = memory_mb()
    module = importlib.import_module(task["runtime"])
    imported, _ = memory_mb()
    runtime = module.Runtime(Path(task["folder"]), task["threads"], **task["options"])
    runtime.predict(task["first"])
    figures = {"start_s": time.monotonic() - started}
    loaded, _ = memory_mb()
    workload = json.loads(Path(task["workload"]).read_text(encoding="utf-8")) if task["workload"] else {}
    suffix = task["suffix"]
    for length in task["lengths"]:
        times = latencies(runtime.predict, workload["by_length"][str(length)], task["seconds"])
        figures[f"p50_ms_{length}"] = times[len(times) // 2]
        figures[f"p99_ms_{length}"] = times[int(0.99 * (len(times) - 1))]
    _, peak = memory_mb()
    figures |= {"interpreter_mb": begin, "imports_mb": imported - begin, "loading_mb": loaded - imported, "peak_mb": peak}
    for batch in task["batches"]:
        figures[f"qps_{batch}_{suffix}"] = queries_per_second(runtime.predict_batch, workload["real"], batch, task["seconds"])
    figures["batch_peak_mb"] = memory_mb()[1]
    return figures


def main() -> None:
    """Reads the task and the time at which this process was started, measures, prints."""
    print(json.dumps(measure(json.loads(sys.argv[1]), float(sys.argv[2]))))


if __name__ == "__main__":
    main()
