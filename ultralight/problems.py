"""Wrong input, collected and shown together."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

SHOWN = 20


class InputError(ValueError):
    """Wrong input of a user: the message names the place, what is wrong and what is accepted."""


class CheckError(RuntimeError):
    """What was asked for is not done, and no mistake of the user is the cause: a check or a push failed."""


class Problems:
    """Collects what is wrong with an input, so that one run shows all of it."""

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self.found: list[str] = []
        self._shared: set[str] = set()

    def add(self, place: str, what: str) -> None:
        """Notes one problem at `place`, such as "train.jsonl, line 7"."""
        self.found.append(f"{place}: {what}")

    def add_once(self, place: str, what: str) -> None:
        """Notes a problem that every row of a file shares, at the first place where it is met."""
        if what not in self._shared:
            self._shared.add(what)
            self.add(place, what)

    def raise_if_any(self) -> None:
        """Raises an InputError with the first problems and their number, if there are any."""
        if not self.found:
            return
        shown = [f"  {problem}" for problem in self.found[:SHOWN]]
        if len(self.found) > SHOWN:
            shown.append(f"  ... and {len(self.found) - SHOWN} more")
        count = "1 problem" if len(self.found) == 1 else f"{len(self.found)} problems"
        raise InputError("\n".join([f"{self.subject}: {count}", *shown]))


def nearest(word: str, accepted: Iterable[str]) -> str:
    """A hint such as "did you mean '经济'? accepted: '经济', '高端'"."""
    accepted = list(accepted)
    # A low cutoff: Chinese words are short, one character in two is a near miss.
    close = difflib.get_close_matches(word, accepted, n=1, cutoff=0.4)
    listed = ", ".join(repr(name) for name in accepted[:30]) + (", ..." if len(accepted) > 30 else "")
    return (f"did you mean {close[0]!r}? " if close else "") + f"accepted: {listed}"
