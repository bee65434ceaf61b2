"""How long one query takes."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence

import numpy as np

from ultra_light_predictor import UltraLightPredictor

QUERIES = 500


def measure_latency(predictor: UltraLightPredictor, queries: Sequence[str]) -> dict[str, float | str]:
    """Times single predictions, 500 of them, in turn over `queries`.

    Returns:
        `median_ms` and `p99_ms`, in milliseconds, and the `machine` they were measured on.
    """
    queries = list(queries)
    for query in queries[:20]:  # the first ones also pay for memory and caches
        predictor.predict(query)
    times = []
    for number in range(QUERIES):
        start = time.perf_counter()
        predictor.predict(queries[number % len(queries)])
        times.append(1e3 * (time.perf_counter() - start))
    median, p99 = np.percentile(times, [50, 99])
    return {"median_ms": round(float(median), 3), "p99_ms": round(float(p99), 3), "machine": f"{platform.system()} {platform.machine()}"}
