"""The runtime splits queries as the library does that training uses."""

import json
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tests.conftest import ROOT, order_rows
from tests.test_vocabulary import bert_tokenizer
from ultra_light_predictor import UltraLightPredictor
from ultralight.vocabulary import common_chinese_characters, prune_tokenizer

LENGTH = 32


@pytest.fixture(scope="module")
def shipped():
    predictor = UltraLightPredictor(ROOT, max_seq_length=LENGTH)
    library = Tokenizer.from_file(str(ROOT / "tokenizer.json"))
    library.enable_truncation(LENGTH)
    return predictor, library


def assert_equal(pair, query):
    predictor, library = pair
    assert predictor.token_ids(query).tolist() == [library.encode(query).ids], query


def in_both_tables(character):
    """Whether Unicode has had a character for so long, and unchanged, that every library knows it."""
    return unicodedata.ucd_3_2_0.category(character) == unicodedata.category(character) not in ("Cn", "Cs")


def test_every_character_of_the_basic_plane(shipped):
    for start in range(0, 0x10000, 8):
        characters = filter(in_both_tables, map(chr, range(start, start + 8)))
        assert_equal(shipped, "".join(f"a{character}" for character in characters))


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.text(st.characters(exclude_categories=["Cs", "Cn"]).filter(in_both_tables), max_size=6),
            st.sampled_from(["[SEP]", "[sep]", "[MASK]", "[", " ", "\u3000", "SUV", "20万", "１０", "é", "e\u0301", "，", "?!", "x" * 101]),
        ),
        max_size=12,
    ).map("".join)
)
def test_any_text(shipped, query):
    assert_equal(shipped, query)


def test_another_checkpoint(tmp_path, trained):
    texts = [row["query"] for row in order_rows()]
    pruned, _ = prune_tokenizer(bert_tokenizer([*common_chinese_characters(), *"abcdefg0123", "##b", "##1"]), texts, LENGTH)
    library = pruned.backend_tokenizer
    library.save(str(tmp_path / "tokenizer.json"))
    for name in ("config.json", "model_quantized.onnx"):
        source = trained[0] / name if name == "config.json" else trained[0] / "onnx" / name
        (tmp_path / name).write_bytes(source.read_bytes())
    predictor = UltraLightPredictor(tmp_path / "model_quantized.onnx", max_seq_length=24)
    library.enable_truncation(24)
    for query in [*texts, "Éab1 ﬁ", "ＡＢ３", "龘"]:
        assert_equal((predictor, library), query)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda described: described["model"].update(type="BPE"), "its steps are NFKC, BertNormalizer, BertPreTokenizer, BPE"),
        (lambda described: described["normalizer"]["normalizers"].pop(), "its steps are NFKC, BertPreTokenizer"),
        (lambda described: described.pop("post_processor"), "post_processor"),
    ],
)
def test_other_kinds_are_refused(trained, tmp_path, change, expected):
    described = json.loads((trained[0] / "tokenizer.json").read_text(encoding="utf-8"))
    change(described)
    (tmp_path / "tokenizer.json").write_text(json.dumps(described), encoding="utf-8")
    (tmp_path / "config.json").write_bytes((trained[0] / "config.json").read_bytes())
    (tmp_path / "model.onnx").write_bytes((trained[0] / "onnx" / "model_quantized.onnx").read_bytes())
    with pytest.raises(ValueError, match=f"tokenizer.json: no tokenizer of BERT's kind can be read from it .*{expected}"):
        UltraLightPredictor(tmp_path / "model.onnx")
