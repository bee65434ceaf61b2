import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from configuration_ultralight import UltraLightConfig
from modeling_ultralight import UltraLightForMaskedLM
from tests.conftest import order_rows
from ultralight.evidence import gather_evidence
from ultralight.model_builder import build, from_scratch
from ultralight.ngrams import NOBODY, seat, select_frequent_ngrams, select_ngrams

ROWS = order_rows()
SHAPE = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32, "num_hidden_layers": 1, "embedding_size": 8}


@given(st.integers(2, 12).flatmap(lambda rows: st.tuples(st.just(rows), st.lists(st.tuples(*[st.integers(0, rows - 1)] * 2), max_size=20))))
def test_the_first_ngrams_get_a_place_before_the_others(case):
    rows, places = case
    holders = seat(places, rows)
    assert holders[0] == NOBODY
    assert all(row in places[ngram] for row, ngram in enumerate(holders) if ngram != NOBODY)
    seated = [ngram for ngram in holders if ngram != NOBODY]
    assert len(set(seated)) == len(seated)
    # However many of the first n-grams are looked at, no other way of placing them has room for more.
    for count in range(1, len(places) + 1):
        wanted = np.zeros((count, rows))
        for ngram in range(count):
            wanted[ngram, [row for row in places[ngram] if row]] = 1
        possible = maximum_bipartite_matching(csr_array(wanted), perm_type="column")
        assert sum(ngram < count for ngram in seated) == (possible != -1).sum()


@pytest.fixture
def made(schema):
    rows = {"query": [row["query"] for row in ROWS], "labels": [schema.encode(row["labels"]) for row in ROWS]}
    model, tokenizer = from_scratch(rows["query"], schema, 12, **SHAPE)
    select_ngrams(model, gather_evidence(tokenizer, rows, schema), 401)
    return model.eval(), tokenizer, rows


@torch.inference_mode()
def test_chosen_ngrams_begin_as_what_they_were_and_others_say_nothing(made, schema):
    model, tokenizer, rows = made
    before = model.bert.embeddings.ngram_embeddings
    select_ngrams(model, gather_evidence(tokenizer, rows, schema), 31)
    table = model.bert.embeddings.ngram_embeddings
    chosen = set()
    for query in rows["query"]:
        ids = torch.tensor([tokenizer(query)["input_ids"]])
        for pair, old, new in zip(zip([0, *ids[0].tolist()], ids[0].tolist(), strict=False), before(ids)[0], table(ids)[0], strict=True):
            if new.any():
                torch.testing.assert_close(new, old)
                chosen.add(tuple(tokenizer.convert_ids_to_tokens(pair)))
    assert 25 <= len(chosen) <= 30, "row 0 is nobody's, and few others are left"
    assert ("打", "包") in chosen, "what tells most comes first"
    assert not table(torch.tensor([[9, 9, 9]])).any()


@torch.inference_mode()
def test_the_most_frequent_ngrams_get_rows_of_their_own():
    pairs = [(first, second) for first in range(10, 20) for second in range(10, 20)]
    lines = [pair for rank, pair in enumerate(pairs) for _ in range(120 - rank)]
    model = build(UltraLightForMaskedLM, UltraLightConfig(vocab_size=30, num_hidden_layers=1))
    select_frequent_ngrams(model, lines, 41)
    table = model.bert.embeddings.ngram_embeddings
    chosen = [bool(table(torch.tensor([pair]))[0, 1].any()) for pair in pairs]
    assert model.config.ngram_rows == len(table.weight) == 41
    assert sum(chosen) > 25
    assert sum(chosen[:20]) > 18, "what is most frequent comes first"
    assert not any(chosen[80:])


@torch.inference_mode()
def test_a_table_can_be_left_out(made, schema):
    model, tokenizer, rows = made
    select_ngrams(model, gather_evidence(tokenizer, rows, schema), 0)
    assert model.bert.embeddings.ngram_embeddings is None
    assert model.config.ngram_rows == 0
