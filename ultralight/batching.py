"""Batches of queries of like length, in random order: little padding, and no batch a neighbour of the one like it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

# Batches that are sorted by length together: enough for little padding, few enough for other neighbours every epoch.
BATCHES_SORTED_TOGETHER = 16


class ShuffledBuckets(Sampler[int]):
    """Orders rows so that every `batch_size` of them have like lengths, anew each epoch.

    The Trainer's own `group_by_length` feeds the batches of a bucket from longest to shortest; shuffling them instead
    scored 4 points of validation micro-F1 more on the car queries.

    Args:
        lengths: tokens of each row.
        batch_size: rows a batch.
        seed: of the order.
        weights: how often each row is drawn, relative to the others; an epoch then has as many draws as there are rows.
            None: each row once an epoch.
    """

    def __init__(self, lengths: Sequence[int] | np.ndarray, batch_size: int, seed: int, weights: np.ndarray | None = None) -> None:
        self.lengths = np.asarray(lengths)
        self.batch_size = batch_size
        self.seed = seed
        self.cumulated = None if weights is None else np.cumsum(weights, dtype=np.float64)
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Makes the order that of an epoch, the same in every process and after a resumption."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        random = np.random.default_rng((self.seed, self.epoch))
        rows = self._draw(random)
        size = self.batch_size * BATCHES_SORTED_TOGETHER
        buckets = [rows[start : start + size] for start in range(0, len(rows), size)]
        ordered = np.concatenate([bucket[np.argsort(self.lengths[bucket], kind="stable")] for bucket in buckets])
        whole = len(ordered) - len(ordered) % self.batch_size
        batches = random.permutation(ordered[:whole].reshape(-1, self.batch_size))
        yield from (int(row) for row in np.concatenate([batches.reshape(-1), ordered[whole:]]))

    def _draw(self, random: np.random.Generator) -> np.ndarray:
        if self.cumulated is None:
            return random.permutation(len(self.lengths))
        return np.searchsorted(self.cumulated, random.random(len(self.lengths)) * self.cumulated[-1], side="right")
