"""Which n-grams get a row of the table: the most frequent ones of a text, or those that tell most about the labels.

Each has its row at one of the places where it is looked for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from sklearn.feature_extraction.text import CountVectorizer
from torch import nn

from modeling_ultralight import NgramEmbedding, UltraLightForImplicitLabelPrediction, UltraLightForMaskedLM
from ultralight.evidence import Evidence
from ultralight.progress import progress

NOBODY = NgramEmbedding.NOBODY
# What a value that no row has is expected to occur: keeps a division defined.
TINY = 1e-12


def select_ngrams(model: UltraLightForImplicitLabelPrediction, evidence: Evidence, count: int) -> None:
    """Replaces a model's table of n-grams by one that holds those that tell most about the labels, in place.

    An n-gram counts if two queries hold it; how much it tells is its chi-square statistic (Yang and Pedersen, 1997), summed over the
    labels.

    Args:
        model: not trained on the labels yet.
        evidence: what to choose them by.
        count: rows of the new table; 0: none.
    """
    _choose(model, count, lambda table: ranked_ngrams(table, evidence))


def select_frequent_ngrams(model: UltraLightForMaskedLM, lines: Iterable[Sequence[int]], count: int) -> None:
    """Replaces an encoder's table of n-grams by one that holds the most frequent ones, in place.

    Args:
        model: to be pre-trained.
        lines: token ids of text as it will be read.
        count: rows of the new table.
    """
    _choose(model, count, lambda table: frequent_ngrams(table, lines))


def _choose(
    model: UltraLightForImplicitLabelPrediction | UltraLightForMaskedLM, count: int, ranked: Callable[[NgramEmbedding], np.ndarray]
) -> None:
    """Gives the n-grams that `ranked` names, the best first, rows of their own: as many as there are `count` rows for.

    They begin as what the table before gave them, or at random where there was none.
    """
    config, embeddings = model.config, model.bert.embeddings
    before = embeddings.ngram_embeddings
    config.ngram_rows = count
    if not count:
        embeddings.ngram_embeddings = None
        return
    table = NgramEmbedding(config)
    nn.init.zeros_(table.weight)
    keys = ranked(table)
    holders = torch.from_numpy(seat((keys % count).tolist(), count))
    taken = torch.nonzero(holders != NOBODY).squeeze(-1)
    own_keys = torch.from_numpy(keys)[holders[taken]]  # (taken rows, hashes)
    table.owners[taken] = torch.where(own_keys % count == taken.unsqueeze(-1), own_keys, NOBODY).amax(-1)
    with torch.no_grad():
        if before is None:
            table.weight[taken] = torch.randn(len(taken), config.embedding_size) * config.initializer_range
        else:
            table.weight[taken] = before.eval().look_up(own_keys)
    embeddings.ngram_embeddings = table.train(model.training)


def frequent_ngrams(table: NgramEmbedding, lines: Iterable[Sequence[int]]) -> np.ndarray:
    """Keys (n-grams, hashes) by which the table looks for the n-grams of some text; the most frequent one comes first."""
    met = [_keys_of(table, line) for line in progress(lines, "counting n-grams", "lines")]
    keys, counts = np.unique(torch.cat(met).numpy(), axis=0, return_counts=True)
    repeated = counts > 1
    return keys[repeated][np.argsort(-counts[repeated], kind="stable")]


def ranked_ngrams(table: NgramEmbedding, evidence: Evidence) -> np.ndarray:
    """Keys (n-grams, hashes) by which the table looks for the n-grams of the queries; what tells most about the values comes first."""

    def keys_of(query: Sequence[int]) -> list[tuple[int, ...]]:
        return [tuple(ngram) for ngram in _keys_of(table, query).tolist()]

    counter = CountVectorizer(analyzer=keys_of, binary=True)
    present = counter.fit_transform(progress(evidence.ids, "choosing n-grams", "queries"))
    repeated = np.flatnonzero(present.sum(axis=0) > 1)
    keys = np.array(counter.get_feature_names_out().tolist(), dtype=np.int64).reshape(-1, table.hashes)[repeated]
    if not len(keys):
        return keys
    values = evidence.values
    observed = (present[:, repeated].T @ values).T  # how often each n-gram is met with each value (sum of values, n-grams)
    expected = np.outer(values.mean(axis=0), present[:, repeated].sum(axis=0))
    statistic = ((observed - expected) ** 2 / np.maximum(expected, TINY)).sum(axis=0)
    return keys[np.argsort(-statistic, kind="stable")]


def _keys_of(table: NgramEmbedding, ids: Sequence[int]) -> torch.Tensor:
    """Keys of the n-grams of one text (n-grams, hashes), from its token ids."""
    return table.keys(torch.tensor(ids)[None]).reshape(-1, table.hashes)


def seat(places: Sequence[Sequence[int]], rows: int) -> np.ndarray:
    """Gives as many n-grams as possible one of their places each, the first ones before the others.

    An n-gram may make earlier ones move to another of their places, but never leaves one without: augmenting paths in a bipartite
    graph, which find the selection of the highest total rank (Kuhn, 1955; Edmonds, 1971).

    Args:
        places: the rows where each n-gram would be found, the most valued n-gram first.
        rows: how many rows there are; row 0 stays free.

    Returns:
        Which n-gram has each row, -1 for none (rows,).
    """
    holders = [NOBODY] * rows
    settled = {0}  # rows from which no free one can be reached any more
    for ngram, wanted in enumerate(places):
        reached_from = dict.fromkeys(row for row in wanted if row not in settled)
        queue = deque(reached_from)
        while queue and holders[queue[0]] != NOBODY:
            row = queue.popleft()
            for other in places[holders[row]]:
                if other not in settled and other not in reached_from:
                    reached_from[other] = row
                    queue.append(other)
        if not queue:
            settled |= reached_from.keys()
            continue
        row = queue[0]
        while (before := reached_from[row]) is not None:
            holders[row] = holders[before]
            row = before
        holders[row] = ngram
    return np.array(holders)
