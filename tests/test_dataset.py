import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import order_rows, write_jsonl
from ultralight.dataset import find_labels_file, load_splits
from ultralight.problems import InputError
from ultralight.streaming import load_streamed
from ultralight.text import text_key


def as_json(folder, rows):
    path = folder / "rows.json"
    path.write_text(json.dumps(rows, ensure_ascii=False, indent=1), encoding="utf-8")
    return path


def as_csv(folder, rows):
    path = folder / "rows.csv"
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, ["query", "饮料", "冷热", "带走"])
        writer.writeheader()
        writer.writerows({"query": row["query"], **row["labels"]} for row in rows)
    return path


def as_parquet(folder, rows):
    path = folder / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def as_parquet_columns(folder, rows):
    path = folder / "columns.parquet"
    pq.write_table(
        pa.Table.from_pylist([{"query": row["query"], "饮料": None, "冷热": None, "带走": None, **row["labels"]} for row in rows]), path
    )
    return path


def contents(splits):
    return {name: sorted(zip(split["query"], map(tuple, split["labels"]), strict=True)) for name, split in splits.items()}


@pytest.mark.parametrize("write", [as_json, as_csv, as_parquet, as_parquet_columns])
def test_every_form_of_a_dataset_reads_the_same(tmp_path, schema, write):
    rows = order_rows()
    expected, _ = load_splits(str(write_jsonl(tmp_path / "rows.jsonl", rows)), schema)
    actual, _ = load_splits(str(write(tmp_path, rows)), schema)
    assert contents(actual) == contents(expected)
    assert sum(len(split) for split in actual.values()) == len(rows)


def test_white_space_around_a_value_says_nothing(tmp_path, schema):
    path = tmp_path / "rows.csv"
    path.write_text("query,饮料,冷热\n" + "".join(f"q{n}, 茶\t,  \n" for n in range(20)), encoding="utf-8")
    splits, _ = load_splits(str(path), schema)
    assert {tuple(labels) for labels in splits["train"]["labels"]} == {tuple(schema.encode({"饮料": "茶"}))}


def test_a_blank_cell_of_json_labels_implies_nothing(tmp_path, schema):
    path = tmp_path / "rows.csv"
    path.write_text("query,labels\n" + "".join(f"q{n},{' ' * (n % 3)}\n" for n in range(20)), encoding="utf-8")
    splits, _ = load_splits(str(path), schema)
    assert {tuple(labels) for labels in splits["train"]["labels"]} == {tuple(schema.encode({}))}


def test_rows_of_blank_cells_are_left_out(tmp_path, schema):
    path = tmp_path / "rows.csv"
    path.write_text("query,饮料,冷热\n" + "".join(f"q{n},茶,\n,,\n , \t,\n" for n in range(20)), encoding="utf-8")
    for load in (load_splits, load_streamed):
        splits, _ = load(str(path), schema)
        assert sum(len(rows) for rows in splits.values()) == 20


def test_a_row_that_somebody_wrote_is_not_left_out(tmp_path, schema):
    path = write_jsonl(tmp_path / "rows.jsonl", [*order_rows(), {"query": ""}])
    for load in (load_splits, load_streamed):
        with pytest.raises(InputError, match="'query' is empty"):
            load(str(path), schema)


def test_a_csv_value_that_pandas_reads_as_missing_stays_a_value(tmp_path):
    from ultralight.schema import LabelSchema

    path = tmp_path / "rows.csv"
    path.write_text("query,a\n" + "".join(f"q{n},{'NA' if n % 2 else 'none'}\n" for n in range(20)), encoding="utf-8")
    splits, _ = load_splits(str(path), LabelSchema.from_dict({"a": ["none", "NA"]}))
    assert {tuple(labels) for labels in splits["train"]["labels"]} == {(0,), (1,)}


def test_given_splits_are_kept_and_missing_ones_cut(tmp_path, schema):
    rows = order_rows()
    write_jsonl(tmp_path / "train.jsonl", rows[:60])
    as_csv(tmp_path, rows[60:80]).rename(tmp_path / "test.csv")
    splits, _ = load_splits(str(tmp_path), schema)
    assert splits["test"]["query"][:] == [row["query"] for row in rows[60:80]]
    assert {name: len(split) for name, split in splits.items()} == {"train": 54, "validation": 6, "test": 20}


def test_the_cut_depends_on_its_seed_alone(tmp_path, schema):
    path = str(write_jsonl(tmp_path / "rows.jsonl", order_rows()))
    first, again, other = (contents(load_splits(path, schema, split_seed=seed)[0]) for seed in (1, 1, 2))
    assert first == again != other


@given(st.lists(st.tuples(st.sampled_from("abcdefghijklmnop"), st.sampled_from(["", " ", "　"]), st.booleans()), min_size=1, max_size=60))
def test_no_text_stands_in_two_splits(tmp_path_factory, schema, drawn):
    rows = [
        {"query": f"{space}{letter.upper() if wide else letter}{space}咖啡", "labels": {"饮料": "咖啡"}} for letter, space, wide in drawn
    ]
    rows += [{"query": f"第{number}杯", "labels": {}} for number in range(10)]
    folder = tmp_path_factory.mktemp("splits")
    write_jsonl(folder / "train.jsonl", rows)
    write_jsonl(folder / "test.jsonl", rows[:1])
    splits, _ = load_splits(str(folder), schema)
    keys = [text_key(query) for split in splits.values() for query in split["query"]]
    assert sorted(keys) == sorted({text_key(row["query"]) for row in rows})
    assert [text_key(query) for query in splits["test"]["query"]] == [text_key(rows[0]["query"])]


WRONG_ROWS = [
    ({"query": "一杯", "labels": {"饮品": "茶"}}, "unknown label '饮品'; did you mean '饮料'?"),
    (
        {"query": "一杯", "labels": {"饮料": "花茶"}},
        "'饮料' has the unknown value '花茶'; did you mean '茶'? accepted: '无', '茶', '咖啡', '果汁'",
    ),
    ({"query": "一杯", "labels": {"饮料": 7}}, "'饮料' is a number (7); accepted: a string"),
    ({"query": "  　", "labels": {}}, "'query' is empty"),
    ({"query": 5, "labels": {}}, "'query' is a number (5); accepted: a string"),
    ({"query": None, "labels": {}}, "'query' is null; accepted: a string"),
    ({"text": "一杯"}, "has no 'query' but 'text'"),
    ({"query": "一杯", "labels": ["茶"]}, "'labels' is a list (['茶'])"),
    ({"query": "一杯", "labels": "茶"}, "'labels' is a string ('茶')"),
    ({"query": "一杯", "饮品": "茶"}, "unknown label '饮品'"),
    (["一杯"], "is a list (['一杯'])"),
]


@pytest.mark.parametrize(("row", "expected"), WRONG_ROWS)
def test_a_wrong_row_is_named_and_explained(tmp_path, schema, row, expected):
    path = write_jsonl(tmp_path / "rows.jsonl", [*order_rows()[:12], row])
    with pytest.raises(InputError) as error:
        load_splits(str(path), schema)
    assert f"{path}, line 13: {expected}" in str(error.value)


def test_a_wrong_column_is_shown_once(tmp_path, schema):
    path = tmp_path / "rows.csv"
    path.write_text("query,饮料,备注\n来杯茶,茶,急\n来杯水,水,急\n来杯咖啡,咖啡,\n", encoding="utf-8")
    with pytest.raises(InputError) as error:
        load_splits(str(path), schema)
    assert "2 problems" in str(error.value)
    assert f"{path}, row 1: unknown label '备注', a column; accepted: '饮料', '冷热', '带走'" in str(error.value)
    assert "row 2: '饮料' has the unknown value '水'" in str(error.value)


def test_all_wrong_rows_are_shown_together(tmp_path, schema):
    path = write_jsonl(tmp_path / "rows.jsonl", order_rows()[:12] + [row for row, _ in WRONG_ROWS] * 3)
    with path.open("a", encoding="utf-8") as file:
        file.write('{"query": \n')
    with pytest.raises(InputError) as error:
        load_splits(str(path), schema)
    message = str(error.value)
    assert "32 problems" in message
    assert message.count("\n") == 21
    assert message.endswith("... and 12 more")


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("rows.jsonl", b'{"query": "a"}\n{"query": }\n', "line 2: not JSON"),
        ("rows.json", b'[{"query": "a"},\n{]', "line 2: not JSON"),
        ("rows.json", b'{"query": "a"}\n{"query": "b"}', "a file with one object a line is named .jsonl"),
        ("rows.json", b'{"query": "a"}', "holds a dict; accepted: a list"),
        ("rows.json", b"[]", "holds no row"),
        ("rows.jsonl", b"\n\n", "the file is empty"),
        ("rows.jsonl", b'{"query": "a"}\n{"query": "\xb2\xe8"}', "line 2: not UTF-8"),
        ("rows.csv", b"query,a\n\xff,b", "line 2: not UTF-8"),
        ("rows.csv", b"query,a\nx,y\nx,y,z\n", "line 3"),
        ("rows.parquet", b"not parquet", "not a readable parquet file"),
        ("rows.xlsx", b"x", "accepted: .json, .jsonl, .csv, .parquet"),
    ],
)
def test_an_unreadable_file_is_explained(tmp_path, schema, name, content, expected):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as error:
        load_splits(str(tmp_path / name), schema)
    assert expected in str(error.value)
    assert name in str(error.value)


@pytest.mark.parametrize("dataset", ["no/such/folder/at/all", "./nothing.jsonl", "nothing.csv"])
def test_a_missing_path_is_no_hub_dataset(schema, dataset):
    with pytest.raises(InputError, match="no such file or folder"):
        load_splits(dataset, schema)


def test_a_hub_dataset_that_cannot_be_had_is_explained(schema):
    with pytest.raises(InputError, match="neither a local file or folder nor a dataset that the Hub gives"):
        load_splits("nobody/nothing", schema)


def test_a_folder_without_training_rows_is_explained(tmp_path, schema):
    write_jsonl(tmp_path / "test.jsonl", order_rows())
    with pytest.raises(InputError, match="no training file"):
        load_splits(str(tmp_path), schema)


def contradictory(tmp_path):
    rows = [*order_rows()[:20], {"query": "来一杯 热的", "labels": {"冷热": "热的"}}, {"query": "来一杯热的", "labels": {"冷热": "冰的"}}]
    return str(write_jsonl(tmp_path / "rows.jsonl", rows))


def test_contradictions_are_listed(tmp_path, schema):
    with pytest.raises(InputError) as error:
        load_splits(contradictory(tmp_path), schema)
    assert "line 22: contradicts" in str(error.value)
    assert '"冰的"} here and {"冷热": "热的"} there' in str(error.value)


@pytest.mark.parametrize(("choice", "kept"), [("first", 1), ("drop", 0)])
def test_contradictions_can_be_settled(tmp_path, schema, choice, kept):
    splits, warnings = load_splits(contradictory(tmp_path), schema, contradictions=choice)
    labels = [row["labels"] for split in splits.values() for row in split if text_key(row["query"]) == "来一杯热的"]
    assert labels == [[0, 2, 0]] * kept
    assert any("left out" in warning for warning in warnings)


def test_what_cannot_be_learnt_is_a_warning(tmp_path, schema):
    rows = [{"query": f"第{number}杯茶", "labels": {"饮料": "茶"}} for number in range(20)]
    _, warnings = load_splits(str(write_jsonl(tmp_path / "rows.jsonl", rows)), schema)
    assert "label '冷热' is '无' in every training row: it will never be predicted" in warnings
    assert "label '饮料': no training row has '咖啡', '果汁'" in warnings


def test_too_few_rows_to_cut_from_are_an_error(tmp_path, schema):
    with pytest.raises(InputError, match="accepted: at least 10"):
        load_splits(str(write_jsonl(tmp_path / "rows.jsonl", order_rows()[:9])), schema)


def test_the_labels_file_is_found_beside_the_dataset(orders, tmp_path):
    assert find_labels_file(str(orders)) == find_labels_file(str(orders / "train.jsonl")) == orders / "QueryLabels.json"
    with pytest.raises(InputError, match="--config"):
        find_labels_file(str(tmp_path))
