import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import order_rows, run_script, write_jsonl
from ultra_light_predictor import UltraLightPredictor
from ultralight.schema import LabelSchema
from ultralight.scores import score

ROWS = order_rows()[::3]


@pytest.fixture(scope="module")
def expected(trained):
    answers = UltraLightPredictor(trained[0]).predict_batch([row["query"] for row in ROWS])
    return [{"query": row["query"], "labels": answer} for row, answer in zip(ROWS, answers, strict=True)]


def write(folder, form):
    path = folder / f"queries.{form}"
    if form == "txt":
        path.write_text("\n\n".join(row["query"] for row in ROWS), encoding="utf-8")
    elif form == "jsonl":
        write_jsonl(path, ROWS)
    elif form == "csv":
        with path.open("w", encoding="utf-8-sig", newline="") as file:
            writer = csv.DictWriter(file, ["query", "饮料", "冷热", "带走"])
            writer.writeheader()
            writer.writerows({"query": row["query"], **row["labels"]} for row in ROWS)
    else:
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    return path


def parse(text):
    return [json.loads(line) for line in text.splitlines()]


def test_queries_of_the_command_line(trained):
    result = run_script("predict.py", "--model", trained[0], "来1杯拿铁加冰", "--scores", "--include_none")
    assert result.returncode == 0, result.stderr
    (answer,) = parse(result.stdout)
    assert answer["labels"]["饮料"]["value"] == "咖啡"
    assert answer["labels"]["带走"]["value"] == "无"


@pytest.mark.parametrize("form", ["txt", "jsonl", "csv", "parquet"])
def test_files_are_answered_in_order(trained, expected, tmp_path, form):
    output, metrics = tmp_path / "answers.jsonl", tmp_path / "metrics.json"
    extra = () if form == "txt" else ("--metrics", metrics)
    result = run_script(
        "predict.py", "--model", trained[0], "--input", write(tmp_path, form), "--output", output, "--num_workers", 2, *extra
    )
    assert result.returncode == 0, result.stderr
    assert parse(output.read_text(encoding="utf-8")) == expected
    if extra:
        schema = LabelSchema.from_dict(UltraLightPredictor(trained[0]).label_schema)
        wanted = score([schema.encode(answer["labels"]) for answer in expected], [schema.encode(row["labels"]) for row in ROWS], schema)
        assert json.loads(metrics.read_text(encoding="utf-8"))["micro_f1"] == pytest.approx(wanted["micro_f1"], abs=1e-4)


def test_standard_input_to_standard_output(trained, expected):
    result = run_script("predict.py", "--model", trained[0], "--input", "-", stdin="\n".join(row["query"] for row in ROWS))
    assert result.returncode == 0, result.stderr
    assert parse(result.stdout) == expected


@pytest.mark.parametrize(
    ("name", "content", "expected_message"),
    [
        ("q.jsonl", '{"query": "来一杯"}\n{"query": 3}\n', "line 2: 'query' is a number (3)"),
        ("q.jsonl", '{"query": "来一杯"}\n{"query"\n', "line 2: not JSON"),
        ("q.csv", "query,x\na,b,c\n", "row 1: has not 2 columns"),
        ("q.doc", "来一杯", "type 'doc' is not known"),
        ("q.txt", b"\xff\xfe", "not UTF-8"),
        ("q.parquet", "no", "not a readable parquet file"),
    ],
)
def test_wrong_input_is_explained_and_leaves_nothing(trained, tmp_path, name, content, expected_message):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    result = run_script("predict.py", "--model", trained[0], "--input", tmp_path / name, "--output", tmp_path / "out.jsonl")
    assert result.returncode == 2
    assert expected_message in result.stderr
    assert "Traceback" not in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_labels_that_the_model_does_not_have_are_explained(trained, tmp_path):
    path = write_jsonl(tmp_path / "q.jsonl", [{"query": "来一杯", "labels": {"饮料": "花茶"}}])
    result = run_script("predict.py", "--model", trained[0], "--input", path, "--metrics", tmp_path / "m.json")
    assert result.returncode == 2
    assert "'饮料' has the unknown value '花茶'; did you mean '茶'?" in result.stderr
    assert not (tmp_path / "m.json").exists()


def test_a_missing_model_is_explained(tmp_path):
    result = run_script("predict.py", "--model", tmp_path / "none", "x")
    assert result.returncode == 2
    assert "does not exist" in result.stderr
