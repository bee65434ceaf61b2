"""compare.md: what `python -m benchmarks.compare` measured, as Markdown tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.figures import significant, spread
from benchmarks.measuring import ALL, BATCHES, LENGTHS, ONE
from benchmarks.targets import LONGEST_BATCH, TYPICAL, verdicts

SCORES = {"micro_f1": "micro-F1", "macro_f1": "macro-F1", "exact_match": "every label right"}
NOTES = (
    "**ships**: the files of the model, tokenizer, labels and configuration included; not the Python packages that read them.",
    "**start**: from the start of the process to its first answer, imports and loading included; files were in the system's cache.",
    "**p50 / p99**: one query on one thread, text in, label values out, in milliseconds; of slow models, p99 is the slowest of"
    " {fewest_calls} calls.",
    "**peak memory**: of a process that starts and answers single queries; **loading** is what loading the model and answering once"
    " added to the imports.",
    "**queries/s**: real queries (median {typical_length} characters) in batches, text in, label values out. fastText and scikit-learn"
    " predict on one thread, whatever they may use.",
    "BERT with random weights stands for its size, start, latency and memory; it is not scored and not asked for batches.",
    "The old recipe starts from random weights, so its accuracy is that of training from nothing: the original's were pre-trained, on"
    " English. Its 30,522 rows know all Chinese characters. It reads {old_length} tokens of a car query.",
    "Every trained alternative got its setting from a grid, and its thresholds, on the validation split; the test split was read once.",
    "What each was trained with is in compare.json under `trained`.",
)


def markdown(results: dict[str, Any]) -> str:
    """The whole report."""
    parts = [
        "# This model and its alternatives",
        f"`python -m benchmarks.compare`, {_conditions(results)}. Each figure is the median of {_rounds(results)} round(s), each in a fresh"
        " process, in turns; in brackets the smallest and the largest.",
        _summary(results),
        "## Against the old recipe",
        _table(["figure of micro", "must be", "ratio", "", "old recipe", "micro", "guide"], verdicts(results)),
        "## Accuracy on the test splits",
        _accuracy(results),
        "## Start, latency, memory",
        _cost(results),
        "## Throughput, queries/s",
        _throughput(results),
        "## How it was measured",
        "\n".join(f"- {note.format_map(results)}" for note in NOTES),
        *(f"![{name}]({name}.png)" for name in results["plots"]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _conditions(results: dict[str, Any]) -> str:
    machine = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return f"{machine['processor']}, {machine['cores']} core(s), Python {machine['python']}, {versions}"


def _rounds(results: dict[str, Any]) -> int:
    return 1 + max((row["round"] for row in results["rounds"]), default=-1)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, ["---"] * len(header), *rows])


def _entry_rows(results: dict[str, Any], cells: Callable[[str], list[str]]) -> list[list[str]]:
    return [[entry["title"], *cells(name)] for name, entry in results["entries"].items()]


def _size(results: dict[str, Any], name: str) -> str:
    return f"{significant(results['entries'][name]['bytes'] / 1e6)} MB"


def _score(results: dict[str, Any], name: str, dataset: str, score: str) -> str:
    scores = results["entries"][name]["scores"].get(dataset)
    return f"{scores[score]:.3f}" if scores else "–"


def _figure(results: dict[str, Any], name: str, figure: str, form: Callable[[float], str] = significant) -> str:
    measured = spread(results["rounds"], name, figure)
    return measured.shown(form) if measured else "–"


def _median(results: dict[str, Any], name: str, figure: str) -> str:
    measured = spread(results["rounds"], name, figure)
    return significant(measured.median) if measured else "–"


def _summary(results: dict[str, Any]) -> str:
    """Medians of the figures that matter most, for the README."""
    datasets = results["datasets"]
    header = ["", *(f"micro-F1 {dataset}" for dataset in datasets), "ships", "start, s", f"p50 of {TYPICAL} characters, ms"]
    header += ["peak memory, MB", "queries/s, one thread"]

    def cells(name: str) -> list[str]:
        scores = [_score(results, name, dataset, "micro_f1") for dataset in datasets]
        figures = ("start_s", f"p50_ms_{TYPICAL}", "peak_mb", f"qps_{LONGEST_BATCH}_{ONE}")
        return [*scores, _size(results, name), *(_median(results, name, figure) for figure in figures)]

    return _table(header, _entry_rows(results, cells))


def _accuracy(results: dict[str, Any]) -> str:
    columns = [(dataset, score) for dataset in results["datasets"] for score in SCORES]
    scored = {name: entry for name, entry in results["entries"].items() if entry["scores"]}
    header = ["", *(f"{dataset}: {SCORES[score]}" for dataset, score in columns)]
    return _table(header, [[entry["title"], *(_score(results, name, *column) for column in columns)] for name, entry in scored.items()])


def _cost(results: dict[str, Any]) -> str:
    header = ["", "ships", "start, s", *(f"{length} characters: p50 / p99, ms" for length in LENGTHS)]
    header += ["peak memory, MB", "loading, MB"]

    def cells(name: str) -> list[str]:
        times = [f"{_figure(results, name, f'p50_ms_{length}')} / {_median(results, name, f'p99_ms_{length}')}" for length in LENGTHS]
        memory = [_figure(results, name, figure) for figure in ("peak_mb", "loading_mb")]
        return [_size(results, name), _figure(results, name, "start_s"), *times, *memory]

    return _table(header, _entry_rows(results, cells))


def _throughput(results: dict[str, Any]) -> str:
    columns = [(batch, threads) for threads in (ONE, ALL) for batch in BATCHES]
    names = {ONE: "one thread", ALL: f"{results['machine']['cores']} threads"}
    header = ["", *(f"{names[threads]}, batch {batch}" for batch, threads in columns)]
    rows = _entry_rows(results, lambda name: [_figure(results, name, f"qps_{batch}_{threads}") for batch, threads in columns])
    return _table(header, [row for row in rows if set(row[1:]) != {"–"}])
