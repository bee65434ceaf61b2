"""When two texts are the same text, and when one holds another."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

# A text that holds the beginning of another, so many letters of it, is taken to hold it: posts are quoted and cut.
BEGINNING = 16


def text_key(text: str) -> str:
    """What two queries share when they differ in white space, character width or case only."""
    return "".join(unicodedata.normalize("NFKC", text).lower().split())


def bare_key(text: str) -> str:
    """What two texts share when they differ in punctuation as well: letters, digits and Chinese characters only."""
    return "".join(character for character in text_key(text) if character.isalnum())


class ForbiddenTexts:
    """Texts that must not be read, such as what a model will be measured on, and how to find them in others.

    Args:
        texts: the forbidden ones.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self.keys = {bare_key(text) for text in texts} - {""}
        self.beginnings = {key[:BEGINNING] for key in self.keys if len(key) >= BEGINNING}

    def equal(self, text: str) -> bool:
        """Whether a text equals a forbidden one, punctuation aside."""
        return bare_key(text) in self.keys

    def held_by(self, text: str) -> bool:
        """Whether a text equals a forbidden one or holds the beginning of one."""
        key = bare_key(text)
        return key in self.keys or any(key[start : start + BEGINNING] in self.beginnings for start in range(len(key) - BEGINNING + 1))
