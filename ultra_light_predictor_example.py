"""Loads the trained model and shows what it costs and what it says: `python ultra_light_predictor_example.py [MODEL]`."""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

from ultra_light_predictor import UltraLightPredictor
from ultralight.command_line import add_output_flags, make_parser, run_command
from ultralight.latency import latencies_ms
from ultralight.problems import InputError

USAGE = """\
Loads a trained model and shows what it costs on this machine (size, loading, latency, memory) and what it says to six queries.

examples:
  python ultra_light_predictor_example.py                       the model of this repository
  python ultra_light_predictor_example.py outputs/my_data       yours"""
QUERIES = [
    "我需要一辆经济实惠、油耗低的城市代步车",
    "老二下个月出生，岳父岳母也搬来一起住",
    "跑滴滴用，电费要便宜，二手的也行",
    "周末去露营，后备箱要塞得下帐篷和狗",
    "刚拿本不敢停车，最好自己会倒库",
    "今天天气真好",
]
FIRST_ANSWER = "from ultra_light_predictor import UltraLightPredictor as P; import sys; P(sys.argv[1]).predict(sys.argv[2])"


def first_answer_seconds(model: str | Path) -> float:
    """Median seconds from process start to the first answer and process end, over five processes."""
    times = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", FIRST_ANSWER, model, QUERIES[0]], check=True, cwd=Path(__file__).parent)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    """Measures, then predicts."""
    parser = make_parser(USAGE)
    parser.add_argument("model", nargs="?", help="model folder; default: the model of this repository")
    model = add_output_flags(parser).parse_args().model or Path(__file__).parent
    start = time.perf_counter()
    try:
        predictor = UltraLightPredictor(model)
    except ValueError as error:
        raise InputError(str(error)) from error
    loading = time.perf_counter() - start
    times = latencies_ms(predictor, QUERIES)
    folder = Path(model)
    size = sum(path.stat().st_size for path in (predictor.onnx_path, folder / "config.json", folder / "tokenizer.json") if path.is_file())
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)
    print(f"size of all that ships     {size / 1e6:.2f} MB")
    print(f"loading                    {1e3 * loading:.0f} ms")
    print(f"process start to answer    {first_answer_seconds(model):.2f} s")
    print(f"one query, one thread      {statistics.median(times):.2f} ms median, {times[int(0.99 * len(times))]:.2f} ms 99th percentile")
    print(f"peak memory of the process {memory:.0f} MB\n")
    for query in QUERIES:
        print(query, json.dumps(predictor.predict(query), ensure_ascii=False))


if __name__ == "__main__":
    run_command(main)
