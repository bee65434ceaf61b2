"""Tokenizers small enough for a 1 MB model: a character vocabulary made from scratch, or the useful part of a checkpoint's.

Both are WordPiece vocabularies over single Chinese characters, as BERT's own Chinese ones: every Chinese character is a
token, Latin words and numbers are split into pieces.
"""

from __future__ import annotations

import itertools
import string
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

SPECIAL_TOKENS = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
CONTINUATION = "##"
CHINESE_PUNCTUATION = "，。？！、；：“”‘’（）《》〈〉【】「」『』…—～·￥％"
# A Latin word or number gets a token of its own when the training texts hold it this often.
WORD_MIN_COUNT = 3
WORD_LIMIT = 400
# Different words that are counted at a time: texts of any length then need the same memory.
COUNTED_WORDS = 1_000_000
# A character that a base does not know gets a row of its own when the training queries hold it this often, and of many queries
# once in so many: the model does not grow with them.
CHARACTER_MIN_COUNT = 3
QUERIES_A_CHARACTER = 5000


def common_chinese_characters() -> list[str]:
    """The 3,755 most common simplified characters: level 1 of the national standard GB 2312-1980, rows 16 to 55."""
    rows = (bytes([0xA0 + row, 0xA0 + cell]) for row in range(16, 56) for cell in range(1, 95))
    return [pair.decode("gb2312") for pair in rows if not 0xD7FA <= int.from_bytes(pair, "big") <= 0xD7FE]


def basic_tokens() -> list[str]:
    """Digits, Latin letters (each also as a continuation) and punctuation: with them no word is unknown as a whole."""
    letters = string.digits + string.ascii_lowercase
    return [*letters, *(CONTINUATION + letter for letter in letters), *string.punctuation, *CHINESE_PUNCTUATION]


def build_tokenizer(texts: Iterable[str], max_seq_length: int, vocab_size: int | None = None) -> PreTrainedTokenizerFast:
    """Makes a character-level WordPiece tokenizer.

    It knows the characters of `texts`, the common Chinese characters that `texts` lack, digits, Latin letters,
    punctuation and the frequent Latin words and numbers of `texts`.

    Args:
        texts: training queries, or the lines of a corpus.
        max_seq_length: length that sequences are cut to, in tokens.
        vocab_size: rows at most; the characters that are rare in `texts` give way.
    """
    normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.BertNormalizer(clean_text=True, handle_chinese_chars=True, strip_accents=True, lowercase=True)]
    )
    pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words = _count_words(texts, normalizer, pre_tokenizer)
    frequent = [word for word, count in words.most_common() if len(word) > 1 and count >= WORD_MIN_COUNT and word.isascii()]
    characters: Counter[str] = Counter()
    for word, count in words.items():
        characters.update(dict.fromkeys(word, count))
    tokens = [
        *SPECIAL_TOKENS.values(),
        *basic_tokens(),
        *frequent[:WORD_LIMIT],
        *(name for name, _ in characters.most_common()),
        *common_chinese_characters(),
    ]
    # As the normaliser leaves them: a token that it never produces would be a dead row.
    reachable = [token for token in dict.fromkeys(tokens) if token in SPECIAL_TOKENS.values() or _is_stable(token, normalizer)][:vocab_size]
    tokenizer = Tokenizer(
        models.WordPiece({token: index for index, token in enumerate(reachable)}, unk_token="[UNK]", max_input_chars_per_word=100)
    )
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    return _finish(tokenizer, SPECIAL_TOKENS, max_seq_length)


def prune_tokenizer(
    tokenizer: PreTrainedTokenizerFast, texts: Iterable[str], max_seq_length: int
) -> tuple[PreTrainedTokenizerFast, list[int]]:
    """Keeps of a BERT tokenizer what `texts` use and what a new query is likely to need.

    WordPiece takes the longest piece that fits. The pieces that `texts` use all stay, and no piece is added, so the
    longest that fits stays the same at every place: `texts` are split exactly as before.

    Args:
        tokenizer: a fast tokenizer with a WordPiece vocabulary.
        texts: training queries.
        max_seq_length: length that sequences are cut to, in tokens.

    Returns:
        The smaller tokenizer, and for each of its rows the row of the old vocabulary.

    Raises:
        ValueError: the tokenizer is not a WordPiece one.
    """
    backend = tokenizer.backend_tokenizer
    if not isinstance(backend.model, models.WordPiece):
        raise ValueError(f"the checkpoint's tokenizer is a {type(backend.model).__name__}; accepted: WordPiece, as BERT's")
    specials = {name: getattr(tokenizer, name) for name in SPECIAL_TOKENS}
    vocabulary = tokenizer.get_vocab()
    used = {token for text in texts for token in backend.encode(text, add_special_tokens=False).tokens}
    wanted = used | set(specials.values()) | set(basic_tokens()) | set(common_chinese_characters())
    kept = sorted((vocabulary[token], token) for token in wanted if token in vocabulary)
    model = models.WordPiece({token: index for index, (_, token) in enumerate(kept)}, unk_token=specials["unk_token"])
    model.max_input_chars_per_word = backend.model.max_input_chars_per_word
    pruned = Tokenizer(model)
    pruned.normalizer = backend.normalizer
    pruned.pre_tokenizer = backend.pre_tokenizer
    return _finish(pruned, specials, max_seq_length), [row for row, _ in kept]


def extend_tokenizer(
    tokenizer: PreTrainedTokenizerFast, texts: Iterable[str], max_seq_length: int
) -> tuple[PreTrainedTokenizerFast, list[int]]:
    """Adds the single characters of `texts` that an UltraLight tokenizer does not know, behind its own rows.

    Its own rows keep their numbers: hashes of n-grams are made of them.

    Args:
        tokenizer: a tokenizer that `build_tokenizer` made.
        texts: training queries.
        max_seq_length: length that sequences are cut to, in tokens.

    Returns:
        The larger tokenizer, and the rows that it has from the old one: all of them.
    """
    backend = tokenizer.backend_tokenizer
    vocabulary = tokenizer.get_vocab()
    numbers = itertools.count()
    numbered = (text for text, _ in zip(texts, numbers, strict=False))  # texts may be a stream, which has no length
    counts = _count_words(numbered, backend.normalizer, backend.pre_tokenizer)
    least = max(CHARACTER_MIN_COUNT, next(numbers) / QUERIES_A_CHARACTER)
    unknown = [word for word, count in counts.most_common() if len(word) == 1 and count >= least and word not in vocabulary]
    larger = Tokenizer(
        models.WordPiece(
            {**vocabulary, **{word: len(vocabulary) + index for index, word in enumerate(unknown)}},
            unk_token="[UNK]",
            max_input_chars_per_word=backend.model.max_input_chars_per_word,
        )
    )
    larger.normalizer, larger.pre_tokenizer = backend.normalizer, backend.pre_tokenizer
    return _finish(larger, SPECIAL_TOKENS, max_seq_length), sorted(vocabulary.values())


def save_compact(tokenizer: PreTrainedTokenizerFast, folder: str | Path) -> None:
    """Saves a tokenizer with its `tokenizer.json` on one line: half the bytes of the indented file."""
    tokenizer.save_pretrained(folder)
    tokenizer.backend_tokenizer.save(str(Path(folder) / "tokenizer.json"), pretty=False)


def _count_words(texts: Iterable[str], normalizer: normalizers.Normalizer, pre_tokenizer: pre_tokenizers.PreTokenizer) -> Counter[str]:
    words: Counter[str] = Counter()
    for text in texts:
        words.update(word for word, _ in pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(text)))
        if len(words) > COUNTED_WORDS:  # the rarer half cannot be among the few that are kept
            words = Counter(dict(words.most_common(COUNTED_WORDS // 2)))
    return words


def _is_stable(token: str, normalizer: normalizers.Normalizer) -> bool:
    plain = token.removeprefix(CONTINUATION)
    return normalizer.normalize_str(plain).strip() == plain


def _finish(tokenizer: Tokenizer, specials: dict[str, str], max_seq_length: int) -> PreTrainedTokenizerFast:
    tokenizer.decoder = decoders.WordPiece(prefix=CONTINUATION)
    start, end = specials["cls_token"], specials["sep_token"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}",
        pair=f"{start} $A {end} $B:1 {end}:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (start, end)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=max_seq_length,
        # Token types are all zero for a single query: the graph has no input for them.
        model_input_names=["input_ids", "attention_mask"],
        **specials,
    )
