"""When two texts are the same text."""

from __future__ import annotations

import unicodedata


def text_key(text: str) -> str:
    """What two queries share when they differ in white space, character width or case only."""
    return "".join(unicodedata.normalize("NFKC", text).lower().split())


def bare_key(text: str) -> str:
    """What two texts share when they differ in punctuation as well: letters, digits and Chinese characters only."""
    return "".join(character for character in text_key(text) if character.isalnum())
