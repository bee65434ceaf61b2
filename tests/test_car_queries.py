"""What the embedded dataset promises."""

import json
import random
from collections import Counter

import pytest

from tests.conftest import ROOT, SHARED
from ultralight.dataset import load_splits
from ultralight.schema import LabelSchema
from ultralight.text import text_key

FOLDER = ROOT / "data" / "car_queries"
MOST_SIMILAR = 0.6


def rows(split):
    return [json.loads(line) for line in (FOLDER / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def car_schema():
    return LabelSchema.from_file(FOLDER / "QueryLabels.json")


def four_grams(text):
    key = text_key(text)
    return {key[start : start + 4] for start in range(max(1, len(key) - 3))}


def test_the_files_are_right_and_nothing_is_left_out(car_schema):
    splits, warnings = load_splits(str(FOLDER), car_schema)
    assert warnings == []
    assert len(splits["train"]) + len(splits["validation"]) == len(rows("train")) >= 3000
    assert len(splits["test"]) == len(rows("test")) >= 300


def test_the_schema_is_the_shared_one():
    shared = SHARED / "car_queries" / "QueryLabels.json"
    if not shared.is_file():
        pytest.skip("the shared schema is not here")
    assert json.loads(shared.read_text(encoding="utf-8")) == json.loads((FOLDER / "QueryLabels.json").read_text(encoding="utf-8"))


def test_every_value_is_there_often_enough(car_schema):
    for split, least in (("train", 40), ("test", 5)):
        counts = Counter(pair for row in rows(split) for pair in row["labels"].items())
        for label, values in car_schema.values.items():
            for value in values[1:]:
                assert counts[label, value] >= least, (split, label, value)


def test_about_a_tenth_has_no_label():
    for split in ("train", "test"):
        share = sum(not row["labels"] for row in rows(split)) / len(rows(split))
        assert 0.08 <= share <= 0.15


def test_lengths_are_those_of_queries():
    lengths = [len(row["query"]) for split in ("train", "test") for row in rows(split)]
    assert min(lengths) >= 4
    assert max(lengths) <= 70
    assert sum(length <= 10 for length in lengths) / len(lengths) > 0.1
    assert sum(length > 30 for length in lengths) / len(lengths) > 0.1


def test_no_two_queries_are_alike():
    grams = [four_grams(row["query"]) for split in ("train", "test") for row in rows(split)]
    holders = {}
    for number, own in enumerate(grams):
        shared = Counter(other for gram in own for other in holders.get(gram, ()))
        for other, count in shared.items():
            assert count < MOST_SIMILAR * (len(own) + len(grams[other]) - count), (own, grams[other])
        for gram in own:
            holders.setdefault(gram, []).append(number)


def test_queries_are_not_made_from_templates():
    """A generator repeats its phrases: here, more than nine four-character sequences in ten occur in one query only, of ten thousand."""
    sample = random.Random(0).sample(rows("train"), 10_000)
    counts = Counter(gram for row in sample for gram in four_grams(row["query"]))
    assert sum(count == 1 for count in counts.values()) / len(counts) > 0.92
    openings = Counter(text_key(row["query"])[:3] for row in rows("train"))
    assert openings.most_common(1)[0][1] / len(rows("train")) < 0.01
