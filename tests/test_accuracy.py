import json

import pytest

from benchmarks import accuracy


def test_runs_that_have_ended_are_kept_when_a_later_one_fails(orders, tmp_path, monkeypatch):
    def run(settings, lesson):
        if settings.seed == 3:
            raise KeyboardInterrupt
        scores = {"micro_f1": 0.5 + 0.1 * settings.seed, "macro_f1": 0.25, "exact_match": 0.125}
        return {"validation": scores, "test": scores, "test_int8": scores, "deployable_bytes": 840_000, "seconds": {"total": 1.0}}

    monkeypatch.setattr(accuracy, "run", run)
    flags = ["--dataset", str(orders), "--seeds", "1", "2", "3", "--results", str(tmp_path), "--set", "distillation=false"]
    monkeypatch.setattr("sys.argv", ["accuracy", *flags])
    with pytest.raises(KeyboardInterrupt):
        accuracy.main()
    kept = json.loads((tmp_path / "accuracy.json").read_text(encoding="utf-8"))[orders.name]
    assert [measured["seed"] for measured in kept["runs"]] == [1, 2]
    row = (tmp_path / "accuracy.md").read_text(encoding="utf-8").splitlines()[2]
    assert row.startswith(f"| {orders.name} | {kept['linear']['micro_f1']:.3f} |")
    assert row.endswith("| 2 | 0.650 ± 0.050 | 0.250 ± 0.000 | 0.125 ± 0.000 | 0.650 ± 0.050 | 0.84 MB |")
