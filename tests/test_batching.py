import numpy as np

from ultralight.batching import ShuffledBuckets

LENGTHS = np.random.default_rng(0).integers(4, 60, 1003)


def test_every_row_comes_once_an_epoch_and_in_another_order_each_time():
    sampler = ShuffledBuckets(LENGTHS, batch_size=16, seed=1)
    first = list(sampler)
    assert sorted(first) == list(range(len(LENGTHS))) == sorted(sampler)
    assert list(sampler) == first
    sampler.set_epoch(1)
    assert list(sampler) != first


def test_batches_hold_like_lengths_and_neighbours_do_not():
    order = list(ShuffledBuckets(LENGTHS, batch_size=16, seed=1))[: 16 * 62]
    batches = LENGTHS[order].reshape(-1, 16)
    assert np.mean(batches.max(axis=1) - batches.min(axis=1)) < 8
    means = batches.mean(axis=1)
    assert abs(np.corrcoef(means[1:], means[:-1])[0, 1]) < 0.3


def test_rows_are_drawn_by_their_weight():
    weights = np.where(np.arange(len(LENGTHS)) < 100, 9.0, 1.0)
    weights[-1] = 0
    sampler = ShuffledBuckets(LENGTHS, batch_size=16, seed=1, weights=weights)
    order = np.array(list(sampler))
    assert len(order) == len(sampler) == len(LENGTHS)
    assert 0.45 < (order < 100).mean() < 0.55  # 900 of 1,802
    assert len(LENGTHS) - 1 not in order
