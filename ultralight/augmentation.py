"""More training queries than there are: two of them, said in one breath, imply what each implies."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor
from transformers import DataCollatorWithPadding, PreTrainedTokenizerFast

from ultralight.schema import LabelSchema


class JoiningCollator:
    """Pads batches of queries, some of which it joins with another one of the batch, anew each time.

    Only queries that do not contradict each other are joined: no label may have two different values.

    Args:
        tokenizer: pads, and gives the length that joined queries must keep to.
        schema: the labels.
        share: probability that a query is joined with another one, where one fits.
        seed: of the choice.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, schema: LabelSchema, share: float, seed: int) -> None:
        self.pad = DataCollatorWithPadding(tokenizer)
        self.max_length = int(tokenizer.model_max_length)
        self.schema = schema
        self.share = share
        self.random = np.random.default_rng(seed)

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Joins and pads rows with `input_ids`, `attention_mask`, `labels` and perhaps `teacher_probabilities`."""
        partners = self.random.permutation(len(rows))
        wanted = self.random.random(len(rows)) < self.share
        joined = [
            self._join(row, rows[partner]) if want and self._fit(row, rows[partner]) else row
            for row, partner, want in zip(rows, partners, wanted, strict=True)
        ]
        return self.pad(joined)

    def _fit(self, first: dict[str, Any], second: dict[str, Any]) -> bool:
        if first is second or len(first["input_ids"]) + len(second["input_ids"]) - 2 > self.max_length:
            return False
        # Unlabelled queries (-100) fit none: what is not known cannot be merged.
        return all(
            one >= 0 and other >= 0 and (one == other or 0 in (one, other))
            for one, other in zip(first["labels"], second["labels"], strict=True)
        )

    def _join(self, first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
        # [CLS] first [SEP] + [CLS] second [SEP] -> [CLS] first second [SEP]
        joined = {name: [*first[name][:-1], *second[name][1:]] for name in ("input_ids", "attention_mask")}
        joined["labels"] = [max(pair) for pair in zip(first["labels"], second["labels"], strict=True)]
        if "teacher_probabilities" in first:
            answers = np.array(first["teacher_probabilities"]), np.array(second["teacher_probabilities"])
            joined["teacher_probabilities"] = join_probabilities(*answers, self.schema).tolist()
        return joined


def join_probabilities(first: np.ndarray, second: np.ndarray, schema: LabelSchema) -> np.ndarray:
    """What two queries together imply, from what each implies by itself: the first one's value or, where it has none, the second one's.

    Args:
        first: probability of each value within its label (sum of values,).
        second: the same of the query that follows.
        schema: the labels.
    """
    joined = np.empty_like(first)
    for _, columns in schema.slices():
        one, other = first[columns], second[columns]
        joined[columns] = one + one[0] * other
        joined[columns.start] = one[0] * other[0]
    return joined
