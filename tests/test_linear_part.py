import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from tests.conftest import order_rows
from ultralight.evidence import gather_evidence, known_values
from ultralight.linear_part import NEVER_MET, fit_label, fit_linear_part
from ultralight.model_builder import from_scratch
from ultralight.ngrams import select_ngrams

SHAPE = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32, "num_hidden_layers": 1, "embedding_size": 8}


@pytest.fixture
def rows(schema):
    return {"query": [row["query"] for row in order_rows()], "labels": [schema.encode(row["labels"]) for row in order_rows()]}


def fitted(rows, schema, **shape):
    """A network that was not trained, and a linear part that was."""
    torch.manual_seed(0)
    model, tokenizer = from_scratch(rows["query"], schema, 24, linear_share=0.75, **SHAPE, **shape)
    evidence = gather_evidence(tokenizer, rows, schema)
    if model.config.ngram_rows:
        select_ngrams(model, evidence, model.config.ngram_rows)
    fit_linear_part(model, evidence, schema)
    return model.eval(), tokenizer


def chosen(model, tokenizer, queries, schema):
    """The likeliest value of each label for each query."""
    with torch.inference_mode():
        logits = model(**tokenizer(queries, padding=True, return_tensors="pt")).logits
    return [[int(row[columns].argmax()) for _, columns in schema.slices()] for row in logits]


@pytest.mark.parametrize("ngram_rows", [0, 101])
def test_words_settle_a_label_before_the_network_has_learnt_anything(rows, schema, ngram_rows):
    model, tokenizer = fitted(rows, schema, ngram_rows=ngram_rows)
    queries = ["来3杯乌龙加冰打包", "来一杯热乎的拿铁", "今天天气真不错"]
    assert chosen(model, tokenizer, queries, schema) == [[1, 1, 1], [2, 2, 0], [0, 0, 0]]


@torch.inference_mode()
def test_scores_are_the_weighted_mean_of_network_and_linear_part(rows, schema):
    model, tokenizer = fitted(rows, schema, ngram_rows=101)
    ids = tokenizer("来3杯乌龙加冰打包", return_tensors="pt")["input_ids"]
    found = model.linear.tokens[ids[0]].sum(0) + model.linear.ngrams[model.chosen_ngrams(ids)[0][0]].sum(0)
    bias = model.linear.bias
    mixed, model.linear = model(ids).logits[0].double(), None
    network = model(ids).logits[0].double()
    start = 0
    for _, columns in schema.slices():
        values = columns.stop - columns.start - 1
        linear = torch.cat([torch.zeros(1), found[start : start + values]]).double() + bias[columns]
        scores = 0.25 * network[columns].sigmoid().log() + 0.75 * linear
        torch.testing.assert_close(mixed[columns].sigmoid(), scores.softmax(-1), atol=1e-6, rtol=0)
        start += values


@torch.inference_mode()
def test_padding_and_what_is_masked_say_nothing(rows, schema):
    model, tokenizer = fitted(rows, schema, ngram_rows=101)
    batch = tokenizer("来3杯乌龙加冰", return_tensors="pt")
    padded = torch.nn.functional.pad(batch["input_ids"], (0, 5))
    torch.testing.assert_close(model(padded).logits, model(**batch).logits)
    padded[0, -5:] = batch["input_ids"][0, 3]
    mask = torch.nn.functional.pad(batch["attention_mask"], (0, 5))
    torch.testing.assert_close(model(padded, mask).logits, model(**batch).logits)


def test_the_network_is_trained_by_itself(rows, schema):
    model, tokenizer = fitted(rows, schema)
    ids = tokenizer(["来3杯乌龙加冰", "今天天气真不错"], padding=True, return_tensors="pt")["input_ids"]
    labels = torch.tensor([[1, 1, 0], [0, 0, 0]])
    with torch.no_grad():
        together, linear = model(ids, labels=labels).loss, model.linear
        alone = model.train()(ids, labels=labels).loss
        model.linear = None
        assert together < 0.7 * model(ids, labels=labels).loss == pytest.approx(float(alone), rel=0.3)
    assert not list(linear.parameters()), "nothing for an optimizer to change"


def test_values_that_no_row_has_are_unlikely_and_a_label_that_never_varies_is_left_to_the_network():
    features, values = csr_array(np.eye(4)), np.array([[1.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0]])
    coefficients, intercepts = fit_label(features, values)
    assert intercepts[2] == NEVER_MET
    assert (coefficients[:2, 1] < 0).all()
    assert (coefficients[2:, 1] > 0).all()
    assert not coefficients[:, 2].any()
    coefficients, intercepts = fit_label(features, np.array([[1.0, 0]] * 4))
    assert not coefficients.any()
    assert not intercepts.any()


def test_teachers_say_what_is_not_labelled(schema):
    said = [[0.1] * 9, [0.25] * 9]
    rows = {"labels": [[3, 0, 1], [-100, -100, -100]], "teacher_probabilities": said}
    assert known_values(rows, schema).tolist() == [[0, 0, 0, 1, 1, 0, 0, 0, 1], said[1]]
