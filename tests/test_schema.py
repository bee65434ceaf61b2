import json

import pytest

from ultralight.problems import InputError
from ultralight.schema import LabelSchema


def read(tmp_path, content):
    path = tmp_path / "labels.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return LabelSchema.from_file(path)


def test_encode_and_decode_are_inverse(schema):
    labels = {"饮料": "咖啡", "带走": "是"}
    assert schema.encode(labels) == [2, 0, 1]
    assert schema.decode([2, 0, 1]) == labels


def test_slices_cover_a_row_of_logits(schema):
    assert dict(schema.slices()) == {"饮料": slice(0, 4), "冷热": slice(4, 7), "带走": slice(7, 9)}
    assert schema.num_values == 9


def test_any_word_may_be_the_absent_one(tmp_path):
    schema = read(tmp_path, '{"类别": ["其他", "书"]}')
    assert schema.encode({}) == schema.encode({"类别": "其他"}) == [0]
    assert schema.unusual_absent_values() == ["label '类别': its first value '其他' is taken as the absent one"]


def test_a_byte_order_mark_is_no_part_of_the_file(tmp_path):
    assert read(tmp_path, b"\xef\xbb\xbf" + b'{"a": ["none", "x"]}').labels == ("a",)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "the file is empty"),
        (b'{"a": ["none", "\xff"]}', "line 1: not UTF-8"),
        ('{\n"a": ["none" "x"]}', "line 2: not JSON"),
        ("[1]", "holds a list; accepted: a JSON object"),
        ("{}", "accepted is a JSON object"),
        ('{"a": "none"}', "its values are 'none'; accepted: a list"),
        ('{"a": ["none", 3]}', "accepted: a list of non-empty strings"),
        ('{"a": ["none"]}', "it has 1 value(s); accepted: the absent value and at least one more"),
        ('{"a": []}', "it has 0 value(s)"),
        ('{"a": ["none", "x", "x"]}', "the value 'x' stands twice"),
        ('{"a": ["none", "x"], "a": ["none", "y"]}', "label 'a' stands twice"),
        ('{"a": ["x", "none"]}', "'none' is not the first of its values"),
        (
            '{"a": ["none", "x"], "b": ["y", "z"]}',
            "label 'b': its first value 'y' would be the absent one, while other labels begin with 'none'",
        ),
        ('{" ": ["none", "x"]}', "its name is empty"),
        ('{"a": ["none", "x "]}', "the value 'x ' has white space around it; accepted: 'x'"),
    ],
)
def test_a_wrong_labels_file_is_explained(tmp_path, content, expected):
    with pytest.raises(InputError) as error:
        read(tmp_path, content)
    assert expected in str(error.value)
    assert "labels.json" in str(error.value)


def test_a_missing_labels_file_is_named(tmp_path):
    with pytest.raises(InputError, match="no_such"):
        LabelSchema.from_file(tmp_path / "no_such.json")


def test_all_wrong_labels_are_shown_together():
    with pytest.raises(InputError) as error:
        LabelSchema.from_dict(json.loads('{"a": ["none"], "b": [], "c": ["none", "x"]}'), "L")
    assert "L: 2 problems" in str(error.value)
