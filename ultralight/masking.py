"""Span masking for masked language modelling."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

# Probabilities of masking 1, 2, 3 or 4 characters in a row. Most Chinese words have two: a character whose word is
# half visible is guessed from spelling alone (Cui et al., 2021, "Pre-Training with Whole Word Masking for Chinese BERT").
SPAN_LENGTHS = (0.4, 0.35, 0.15, 0.1)


class SpanMasking:
    """Collates token ids to padded batches with masked spans, drawn anew each time.

    Of the masked tokens 80 % become [MASK], 10 % a random token and 10 % stay (Devlin et al., 2019).

    Args:
        tokenizer: names the special tokens, which are never masked.
        share: share of the tokens to mask.
        seed: of the masks.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, share: float, seed: int) -> None:
        self.share = share
        self.random = np.random.default_rng(seed)
        self.pad, self.mask = int(tokenizer.pad_token_id), int(tokenizer.mask_token_id)
        self.special = np.array(sorted(tokenizer.all_special_ids))
        self.vocab_size = len(tokenizer)

    def __call__(self, rows: Sequence[dict[str, list[int]]]) -> dict[str, Tensor]:
        """Masks a batch.

        Args:
            rows: `input_ids` of each line, of any length.

        Returns:
            `input_ids` with masks, `attention_mask`, and `labels`: the token before masking, -100 where it was not
            masked; all (batch, seq_len).
        """
        width = max(len(row["input_ids"]) for row in rows)
        ids = np.full((len(rows), width), self.pad, dtype=np.int64)
        for number, row in enumerate(rows):
            ids[number, : len(row["input_ids"])] = row["input_ids"]
        chosen = self._spans(~np.isin(ids, self.special))
        labels = np.where(chosen, ids, -100)
        draw = self.random.random(ids.shape)
        masked = np.where(chosen & (draw < 0.8), self.mask, ids)
        replaced = chosen & (draw >= 0.8) & (draw < 0.9)
        masked = np.where(replaced, self.random.integers(len(self.special), self.vocab_size, ids.shape), masked)
        return {
            "input_ids": torch.from_numpy(masked),
            "attention_mask": torch.from_numpy((ids != self.pad).astype(np.int64)),
            "labels": torch.from_numpy(labels),
        }

    def _spans(self, maskable: np.ndarray) -> np.ndarray:
        """Chooses places of spans (batch, seq_len); at least one in the batch."""
        mean_length = float(np.dot(SPAN_LENGTHS, np.arange(1, len(SPAN_LENGTHS) + 1)))
        starts = maskable & (self.random.random(maskable.shape) < self.share / mean_length)
        if not starts.any() and maskable.any():
            starts[tuple(self.random.choice(np.argwhere(maskable)))] = True
        lengths = self.random.choice(len(SPAN_LENGTHS), size=maskable.shape, p=SPAN_LENGTHS) + 1
        chosen = starts.copy()
        for offset in range(1, len(SPAN_LENGTHS)):
            chosen[:, offset:] |= (starts & (lengths > offset))[:, :-offset]
        return chosen & maskable
