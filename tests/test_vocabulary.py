import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from ultralight.vocabulary import (
    SPECIAL_TOKENS,
    build_tokenizer,
    common_chinese_characters,
    extend_tokenizer,
    prune_tokenizer,
    save_compact,
)

TEXTS = ["我想买SUV，预算15万", "suv 和 mpv 都行", "SUV最好", "靐龘少见"]


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(TEXTS, max_seq_length=12)


def bert_tokenizer(pieces):
    """A tokenizer like those of Chinese BERT checkpoints, unused rows and unreachable pieces included."""
    tokens = [*SPECIAL_TOKENS.values(), *(f"[unused{n}]" for n in range(9)), *dict.fromkeys([*pieces, *(f"##{piece}" for piece in pieces)])]
    backend = Tokenizer(models.WordPiece({token: index for index, token in enumerate(tokens)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return PreTrainedTokenizerFast(tokenizer_object=backend, **SPECIAL_TOKENS)


def test_the_common_characters_are_those_of_the_standard():
    characters = common_chinese_characters()
    assert len(set(characters)) == 3755
    assert (characters[0], characters[-1]) == ("啊", "座")


def test_characters_are_tokens_and_frequent_words_too(tokenizer):
    assert tokenizer.tokenize("想买ＳＵＶ，15") == ["想", "买", "suv", ",", "1", "##5"]
    assert 3800 < len(tokenizer) < 4200


def test_a_new_query_is_not_unknown(tokenizer):
    assert "[UNK]" not in tokenizer.tokenize("熊猫钢琴 Tesla Model-3 ２０２６款？10.5％")


def test_rare_characters_of_the_texts_are_known(tokenizer):
    assert "[UNK]" not in tokenizer.tokenize("靐龘")


def test_every_row_can_be_reached(tokenizer):
    for token in tokenizer.get_vocab():
        if token not in SPECIAL_TOKENS.values():
            plain = token.removeprefix("##") if len(token) > 2 else token
            assert token in (tokenizer.tokenize(plain) + tokenizer.tokenize("a" + plain)), token


def test_the_vocabulary_keeps_to_its_size():
    tokenizer = build_tokenizer(TEXTS, 12, vocab_size=300)
    assert len(tokenizer) == 300
    assert "[UNK]" not in tokenizer.tokenize("我想买")


def test_long_queries_are_cut(tokenizer):
    assert len(tokenizer("很长" * 50, truncation=True)["input_ids"]) == 12


def test_the_compact_file_loads_the_same(tokenizer, tmp_path):
    save_compact(tokenizer, tmp_path)
    assert (tmp_path / "tokenizer.json").read_text(encoding="utf-8").count("\n") == 0
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded(TEXTS)["input_ids"] == tokenizer(TEXTS)["input_ids"]
    assert loaded.model_input_names == ["input_ids", "attention_mask"]


words = st.text(st.sampled_from("abcde我想买车十万0123 ，"), min_size=1, max_size=20)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text("abcde01", min_size=1, max_size=4), max_size=25), st.lists(words, min_size=1, max_size=6))
def test_pruning_splits_the_texts_as_before(pieces, texts):
    full = bert_tokenizer([*pieces, *"abcde我想买车十万0123，"])
    pruned, rows = prune_tokenizer(full, texts, max_seq_length=32)
    assert [pruned.tokenize(text) for text in texts] == [full.tokenize(text) for text in texts]
    old = {index: token for token, index in full.get_vocab().items()}
    new = {index: token for token, index in pruned.get_vocab().items()}
    assert [new[index] for index in range(len(pruned))] == [old[row] for row in rows]


def test_pruning_drops_what_cannot_be_reached():
    full = bert_tokenizer([*common_chinese_characters(), *"abc"])
    pruned, _ = prune_tokenizer(full, ["我abc"], max_seq_length=32)
    assert not any(token.startswith("[unused") or token == "##我" for token in pruned.get_vocab())
    assert pruned("我abc")["input_ids"][0] == pruned.cls_token_id


def test_rare_characters_get_no_row_of_many_queries(tokenizer):
    few, many = ["鼍"] * 3, ["鼍"] * 3 + ["我想买"] * 17_000
    sizes = [len(extend_tokenizer(tokenizer, iter(texts), 12)[0]) - len(tokenizer) for texts in (few[1:], few, many, [*many, "鼍"])]
    assert sizes == [0, 1, 0, 1]


def test_other_tokenizers_are_refused():
    backend = Tokenizer(models.BPE(unk_token="[UNK]"))
    with pytest.raises(ValueError, match="a BPE; accepted: WordPiece"):
        prune_tokenizer(PreTrainedTokenizerFast(tokenizer_object=backend, **SPECIAL_TOKENS), ["a"], 32)
