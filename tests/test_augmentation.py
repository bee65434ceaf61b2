import numpy as np
import pytest
import torch

from tests.conftest import order_rows
from ultralight.augmentation import JoiningCollator, join_probabilities
from ultralight.vocabulary import build_tokenizer

TOKENIZER = build_tokenizer([row["query"] for row in order_rows()], 24)


def row(query, *labels, **more):
    return {**TOKENIZER(query), "labels": list(labels), **more}


def tokens_of(batch):
    return [TOKENIZER.decode(ids[mask.bool()], skip_special_tokens=True).replace(" ", "") for ids, mask in zip(*batch, strict=True)]


def collate(schema, rows, share=1.0):
    """Several batches, as training would see them: texts and labels."""
    collator = JoiningCollator(TOKENIZER, schema, share, seed=0)
    for _ in range(20):
        batch = collator(rows)
        texts = tokens_of((batch["input_ids"], batch["attention_mask"]))
        yield dict(zip(texts, batch["labels"].tolist(), strict=True))


def test_joined_queries_imply_what_each_implies(schema):
    seen = {}
    for batch in collate(schema, [row("来杯龙井", 1, 0, 0), row("打包", 0, 0, 1)]):
        seen |= batch
    assert seen == {"来杯龙井": [1, 0, 0], "打包": [0, 0, 1], "来杯龙井打包": [1, 0, 1], "打包来杯龙井": [1, 0, 1]}


@pytest.mark.parametrize(
    "other",
    [row("来杯拿铁", 2, 0, 0), row("随便来点什么吧", -100, -100, -100), row("打包" * 10, 0, 0, 1)],
    ids=["another value", "no labels", "too long"],
)
def test_queries_that_do_not_fit_stay_apart(schema, other):
    first = row("来杯龙井", 1, 0, 0)
    for batch in collate(schema, [first, other]):
        assert len(batch) == 2
        assert batch["来杯龙井"] == [1, 0, 0]


def test_without_a_share_nothing_is_joined(schema):
    for batch in collate(schema, [row("来杯龙井", 1, 0, 0), row("打包", 0, 0, 1)], share=0.0):
        assert list(batch) == ["来杯龙井", "打包"]


def test_teachers_answers_are_joined_too(schema):
    first = np.array([0.2, 0.8, 0, 0, 1, 0, 0, 0.5, 0.5])
    second = np.array([0.5, 0.1, 0.4, 0, 0.3, 0.7, 0, 0.5, 0.5])
    expected = np.array([0.1, 0.82, 0.08, 0, 0.3, 0.7, 0, 0.25, 0.75])
    assert join_probabilities(first, second, schema) == pytest.approx(expected)
    rows = [row("来杯龙井", 1, 0, 0, teacher_probabilities=first.tolist()), row("冰的", 0, 1, 0, teacher_probabilities=second.tolist())]
    collator = JoiningCollator(TOKENIZER, schema, 1.0, seed=0)
    answers = torch.cat([collator(rows)["teacher_probabilities"] for _ in range(20)]).numpy()
    assert any(np.allclose(answer, expected) for answer in answers)
