"""When two texts are the same text."""

from __future__ import annotations

import unicodedata


def text_key(text: str) -> str:
    """What two queries share when they differ in white space, character width or case only."""
    return "".join(unicodedata.normalize("NFKC", text).lower().split())
