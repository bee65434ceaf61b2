"""The comparison's own logic; what it measures is measured by running it."""

import importlib.util
import json
import shutil
import time

import numpy as np
import pytest

from benchmarks.compare_report import markdown
from benchmarks.entries import ENTRIES, MICRO, NANO, OLD_RECIPE, PEERS, choose_entries
from benchmarks.figures import Spread, ratio, significant, spread
from benchmarks.measuring import Subject, Task, measure, pending
from benchmarks.peers.job import Job, tune
from benchmarks.preparing import Preparation, check_prepared, group_products
from benchmarks.random_models import make_schema
from benchmarks.runtimes.answers import Answers, softmax_within
from benchmarks.targets import verdicts
from benchmarks.train_peer import FACTS, fingerprint_of
from benchmarks.training_time import write_rows
from benchmarks.worker import latencies, memory_mb, queries_per_second
from benchmarks.workload import of_length
from tests.conftest import ROOT, run_script
from ultra_light_predictor import decide
from ultralight.problems import CheckError, InputError
from ultralight.report import write_metrics

FIGURES = {"start_s": 4.0, "p50_ms_20": 6.0, "peak_mb": 490.0, "qps_256_one": 500.0}


def rows_of(entry, *factors):
    """A row a round, the old recipe's figures times a factor."""
    return [
        {"round": number, "entry": entry, "fingerprint": "f", "figures": {name: value * factor for name, value in FIGURES.items()}}
        for number, factor in enumerate(factors)
    ]


def results_of(rounds, micro_bytes, nano_f1):
    scores = {MICRO: 0.85, NANO: nano_f1, OLD_RECIPE: 0.7}
    sizes = {MICRO: micro_bytes, NANO: 390_000, OLD_RECIPE: 16_000_000}
    entries = {
        name: {"title": name, "bytes": sizes[name], "scores": {"cars": {"micro_f1": f1, "macro_f1": f1, "exact_match": f1}}}
        for name, f1 in scores.items()
    }
    machine = {"processor": "a processor", "cores": 2, "python": "3.11", "versions": {"numpy": "2"}}
    facts = {"fewest_calls": 20, "typical_length": 19, "old_length": 32, "plots": ["memory"]}
    return {"machine": machine, "datasets": ["cars"], "entries": entries, "rounds": rounds, **facts}


def test_a_spread_is_shown_with_its_ends_where_they_differ():
    assert Spread.of([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)
    assert Spread.of([1.0, 0.9, 1.3]).shown(significant) == "1.00 [0.900–1.30]"
    assert Spread.of([1.0, 1.001]).shown(significant) == "1.00"
    assert [significant(value) for value in (0.1234, 1.234, 12.34, 12345.6)] == ["0.123", "1.23", "12.3", "12,346"]


def test_ratios_are_those_of_the_same_round():
    rounds = [*rows_of(OLD_RECIPE, 1.0, 2.0, 4.0), *rows_of(MICRO, 0.1, 0.2, 0.4)]
    # Rounds that were slow for both: their ratio is steady.
    assert ratio(rounds, MICRO, OLD_RECIPE, "start_s") == Spread(pytest.approx(0.1), pytest.approx(0.1), pytest.approx(0.1))
    assert spread(rounds, MICRO, "start_s").high == pytest.approx(1.6)
    assert spread(rounds, MICRO, "unmeasured") is None
    assert ratio(rounds, MICRO, NANO, "start_s") is None


def test_turns_go_round_and_a_resumed_run_measures_what_is_missing():
    subjects = [Subject(name, "f", ()) for name in "abc"]
    assert [(number, subject.entry) for number, subject in pending([], subjects, 2)] == [(n, e) for n in (0, 1) for e in "abc"]
    done = [{"round": 0, "entry": "a", "fingerprint": "f"}, {"round": 0, "entry": "b", "fingerprint": "older"}]
    # What was trained anew is measured anew.
    assert [(number, subject.entry) for number, subject in pending(done, subjects, 2)][:3] == [(0, "b"), (0, "c"), (1, "a")]


def test_what_was_trained_on_other_data_is_not_measured(orders, tmp_path):
    data, how, entries = tmp_path / "orders", Preparation(tmp_path / "models"), choose_entries(["static"])
    shutil.copytree(orders, data)
    folder = how.folder(str(data), "static")
    with pytest.raises(InputError, match=r"static: not trained on .* as it is now; accepted: a run without --measure"):
        check_prepared(entries, [str(data)], how)
    fingerprint = fingerprint_of(Job(str(data), "static", folder))
    write_metrics(folder / FACTS, {"fingerprint": fingerprint})
    check_prepared(entries, [str(data)], how)
    with (data / "train.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"query": "来杯白开水", "labels": {}}\n')
    with pytest.raises(InputError, match="1 problem"):
        check_prepared(entries, [str(data)], how)


def test_every_process_is_measured_and_kept(tmp_path):
    """With a runtime that is made of nothing: the harness itself, over two rounds and a resumption."""
    runtimes = tmp_path / "echo_runtime.py"
    runtimes.write_text(
        "class Runtime:\n"
        "    def __init__(self, folder, threads): self.threads = threads\n"
        "    def predict(self, query): return {}\n"
        "    def predict_batch(self, queries): return [{} for _ in queries]\n",
        encoding="utf-8",
    )
    workload = tmp_path / "workload.json"
    workload.write_text(json.dumps({"real": ["一", "二"], "by_length": {"16": ["一" * 16]}}), encoding="utf-8")
    table, results = tmp_path / "compare.json", {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path))
        single = Task("echo_runtime", str(tmp_path), {}, str(workload), 0.01, lengths=(16,), batches=(1, 4))
        both = (single, Task("echo_runtime", str(tmp_path), {}, str(workload), 0.01, batches=(4,), threads=2, suffix="all"))
        measure(results, table, [Subject("echo", "f", both)], 1)
        first = json.loads(table.read_text(encoding="utf-8"))["rounds"]
        measure(results, table, [Subject("echo", "f", both), Subject("other", "f", (single,))], 2)
    figures = first[0]["figures"]
    assert {"start_s", "p50_ms_16", "p99_ms_16", "qps_1_one", "qps_4_one", "qps_4_all", "peak_mb", "loading_mb"} <= set(figures)
    # An interpreter and nothing else.
    assert 0 < figures["start_s"] < 30
    assert 3 < figures["peak_mb"] < 60
    written = json.loads(table.read_text(encoding="utf-8"))["rounds"]
    assert [(row["round"], row["entry"]) for row in written] == [(0, "echo"), (0, "other"), (1, "echo"), (1, "other")]
    assert written[0] == first[0]


def test_a_failing_process_stops_the_run_with_its_message(tmp_path):
    with pytest.raises(CheckError, match="No module named 'no_such_runtime'"):
        measure({}, tmp_path / "compare.json", [Subject("x", "f", (Task("no_such_runtime", str(tmp_path), {}),))], 1)


def test_clocks_measure_what_they_are_given():
    times = latencies(lambda _: time.sleep(0.002), ["一"], 0.0)
    assert len(times) == 20
    assert times[0] >= 2.0
    assert times == sorted(times)
    assert 100 < queries_per_second(lambda part: time.sleep(0.001 * len(part)), ["一", "二", "三"], 4, 0.02) <= 1000


def test_memory_of_a_fresh_process_is_its_own():
    """Not that of the process that started it, of which `ru_maxrss` begins."""
    before, _ = memory_mb()
    ballast = np.ones(40_000_000)
    assert memory_mb()[0] > before + 250
    code = "from benchmarks.worker import memory_mb; now, peak = memory_mb(); print(now, peak)"
    now, peak = map(float, run_script("-c", code).stdout.split())
    assert now <= peak < 100
    del ballast


def test_answers_are_decided_as_the_predictor_decides(schema):
    random = np.random.default_rng(0)
    probabilities = softmax_within(random.normal(size=(300, schema.num_values)) * 3, schema.sizes)
    for _, columns in schema.slices():
        assert probabilities[:, columns].sum(axis=1) == pytest.approx(1.0)
    thresholds = dict(zip(schema.labels, (0.3, 0.5, 0.7), strict=True))
    answers = Answers(schema.to_dict(), thresholds)
    expected = decide(probabilities, schema.sizes, np.array(list(thresholds.values())))
    assert (answers.decide(probabilities) == expected).all()
    assert answers.name(probabilities) == [schema.decode(row) for row in expected]


def test_targets_are_reached_or_missed(schema):
    rounds = [*rows_of(OLD_RECIPE, 1.0, 1.0), *rows_of(MICRO, 1 / 40, 1 / 40)]
    said = {row[0]: row for row in verdicts(results_of(rounds, 790_000, 0.84))}
    assert said["deployable size"][1:4] == ["at most 1/20", "1/20.3", "reached"]
    assert said["one query of 20 characters, p50"][2:4] == ["1/40.0", "reached"]
    assert said["throughput, batches of 256, one thread"][2:4] == ["0.0x", "**missed**"]
    assert said["nano, micro-F1 on cars"][3] == "reached"
    worse = {row[0]: row[3] for row in verdicts(results_of(rounds, 810_000, 0.83))}
    assert worse["deployable size"] == worse["nano, micro-F1 on cars"] == "**missed**"


def test_the_report_holds_every_entry_and_says_what_was_not_measured():
    rounds = [*rows_of(OLD_RECIPE, 1.0, 1.2), *rows_of(MICRO, 0.5, 0.6)]
    text = markdown(results_of(rounds, 800_000, 0.84))
    assert f"| {OLD_RECIPE} | 0.700 | 16.0 MB | 4.40 | 6.60 | 539 | 550 |" in text
    assert f"| {NANO} | 0.840 | 0.390 MB | – | – | – | – |" in text
    assert "4.40 [4.00–4.80]" in text
    assert "2 round(s)" in text


def test_entries_name_what_exists():
    assert len({entry.name for entry in ENTRIES}) == len(ENTRIES)
    for entry in ENTRIES:
        assert entry.product in PEERS
        assert (ROOT / "benchmarks" / "runtimes" / f"{entry.runtime}.py").is_file()
        assert (ROOT / "benchmarks" / "peers" / f"{PEERS[entry.product]}.py").is_file()
    with pytest.raises(InputError, match="did you mean 'nano_int8'"):
        choose_entries(["nano_int4"])


def test_the_presets_are_trained_together_and_random_weights_once():
    entries = [entry for entry in ENTRIES if entry.name in ("bert", "tfidf", "micro_int8", "nano_int8")]
    assert group_products(entries, "cars", True) == [("cars", ["micro", "nano"]), ("cars", ["tfidf"]), ("cars", ["bert"])]
    assert group_products(entries, "posts", False) == [("posts", ["micro", "nano"]), ("posts", ["tfidf"])]


def test_timed_queries_have_their_length():
    queries = ["想买车", "省油", "七座"]
    texts = of_length(queries, 16, 5)
    assert {len(text) for text in texts} == {16}
    assert len(set(texts)) == 3


def test_generated_rows_are_as_many_as_asked_for_and_all_different(orders, tmp_path):
    write_rows(tmp_path / "train.jsonl", orders / "train.jsonl", 300)
    rows = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len({row["query"] for row in rows}) == len(rows) == 300
    assert make_schema(3, 4).sizes == [4, 4, 4]


def test_the_linear_graph_and_scikit_learn_agree(orders, tmp_path):
    pytest.importorskip("skl2onnx")
    from benchmarks.peers import tfidf
    from benchmarks.runtimes import tfidf as sklearn_runtime
    from benchmarks.runtimes import tfidf_onnx

    job = Job(str(orders), "tfidf", tmp_path, quick=True)
    tfidf.train(job)
    queries = [*job.queries("test"), "没见过的  词 # A"]
    one, other = sklearn_runtime.Runtime(tmp_path, 1), tfidf_onnx.Runtime(tmp_path, 1)
    assert np.abs(one.probabilities(queries) - other.probabilities(queries)).max() < 1e-4
    assert tune(one.probabilities, job).micro_f1 > 0.8


@pytest.mark.slow
def test_a_smoke_run_trains_and_measures_everything(tmp_path):
    names = [entry.name for entry in ENTRIES if entry.needs is None or importlib.util.find_spec(entry.needs)]
    folders = ["--models", tmp_path / "models", "--results", tmp_path / "results"]
    result = run_script("-m", "benchmarks.compare", "--quick", "--seconds", 0.05, "--only", *names, *folders)
    assert result.returncode == 0, result.stderr[-3000:]
    results = json.loads((tmp_path / "results" / "compare.json").read_text(encoding="utf-8"))
    assert [row["entry"] for row in results["rounds"]] == names
    for row in results["rounds"]:
        assert 0 < row["figures"]["p50_ms_20"] <= row["figures"]["p99_ms_20"]
        assert row["figures"]["peak_mb"] > row["figures"]["imports_mb"] > 0
    assert all(entry["bytes"] > 0 for entry in results["entries"].values())
    for plot in results["plots"]:
        assert (tmp_path / "results" / f"{plot}.png").stat().st_size > 1000
    assert "process start to first answer" in (tmp_path / "results" / "compare.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_smoke_run_of_the_growing_work(tmp_path):
    result = run_script(
        "-m", "benchmarks.scaling", "--quick", "--seconds", 0.05, "--models", tmp_path / "models", "--results", tmp_path / "results"
    )
    assert result.returncode == 0, result.stderr[-3000:]
    text = (tmp_path / "results" / "scaling.md").read_text(encoding="utf-8")
    for growth in ("characters", "labels", "values", "cores", "queries"):
        assert f"_over_{growth}.png)" in text
