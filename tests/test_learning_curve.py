import json

import pytest

from tests.conftest import SMALL_MODEL, run_script

SETTINGS = [f"{name}={value}" for name, value in {**SMALL_MODEL, "epochs": 12}.items()]


def measure(orders, folder, *flags, sizes=(20, "all"), settings=SETTINGS):
    return run_script(
        "-m", "benchmarks.learning_curve", "--dataset", orders, "--sizes", *sizes, "--results", folder, "--output_dir", folder / "models",
        *flags, "--set", *settings,
    )  # fmt: skip


@pytest.fixture(scope="module")
def curve(orders, tmp_path_factory):
    folder = tmp_path_factory.mktemp("curve")
    result = measure(orders, folder)
    assert result.returncode == 0, result.stderr[-2000:]
    return folder, result.stdout, json.loads((folder / "learning_curve.json").read_text(encoding="utf-8"))


def test_more_queries_bring_more(curve):
    folder, shown, results = curve
    assert [point["queries"] for point in results["points"]] == [20, 90]
    for kind in ("linear", "network"):
        few, many = (point[kind]["micro_f1"] for point in results["points"])
        assert many > few
    assert results["points"][0]["rows_a_value"] < results["points"][1]["rows_a_value"]
    assert results["validation_queries"] == 11
    table = (folder / "learning_curve.md").read_text(encoding="utf-8")
    assert table in shown
    assert f"| {results['points'][1]['linear']['micro_f1']:.3f} |" in table
    assert (folder / "learning_curve.png").stat().st_size > 10_000
    assert not list(folder.glob("models/*/checkpoints"))


def test_what_is_measured_is_kept_with_resume_only(curve, orders, tmp_path):
    _, _, results = curve
    again = tmp_path / "again"
    again.mkdir()
    # As if the run had stopped after the first point, with another time to recognise it by.
    results["points"] = [{**results["points"][0], "seconds": 123.0}]
    (again / "learning_curve.json").write_text(json.dumps(results), encoding="utf-8")
    other = measure(orders, again, "--resume", settings=[*SETTINGS, "joining=0"])
    assert other.returncode == 2
    assert "was measured with other settings; accepted: the same, or without --resume" in other.stderr
    resumed = measure(orders, again, "--resume", sizes=(20, 60))
    assert resumed.returncode == 0, resumed.stderr[-2000:]
    points = json.loads((again / "learning_curve.json").read_text(encoding="utf-8"))["points"]
    assert [(point["queries"], point["seconds"] == 123.0) for point in points] == [(20, True), (60, False)]
    anew = measure(orders, again, sizes=(20,))
    assert anew.returncode == 0, anew.stderr[-2000:]
    points = json.loads((again / "learning_curve.json").read_text(encoding="utf-8"))["points"]
    assert [(point["queries"], point["seconds"] == 123.0) for point in points] == [(20, False)]


def test_more_queries_than_there_are_is_a_mistake(orders, tmp_path):
    result = measure(orders, tmp_path, sizes=(1000,))
    assert result.returncode == 2
    assert "--sizes 1000: there are 90 training queries" in result.stderr
