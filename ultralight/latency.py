"""How long one query takes."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence

import numpy as np

from ultra_light_predictor import UltraLightPredictor

QUERIES = 500


def latencies_ms(predictor: UltraLightPredictor, queries: Sequence[str]) -> list[float]:
    """Milliseconds of 500 single predictions, in turn over `queries`, the shortest first."""
    for query in queries[:20]:  # the first ones also pay for memory and caches
        predictor.predict(query)
    times = []
    for number in range(QUERIES):
        start = time.perf_counter()
        predictor.predict(queries[number % len(queries)])
        times.append(1e3 * (time.perf_counter() - start))
    return sorted(times)


def measure_latency(predictor: UltraLightPredictor, queries: Sequence[str]) -> dict[str, float | str]:
    """Times single predictions, 500 of them, in turn over `queries`.

    Returns:
        `median_ms` and `p99_ms`, in milliseconds, and the `machine` they were measured on.
    """
    median, p99 = np.percentile(latencies_ms(predictor, list(queries)), [50, 99])
    return {"median_ms": round(float(median), 3), "p99_ms": round(float(p99), 3), "machine": f"{platform.system()} {platform.machine()}"}
