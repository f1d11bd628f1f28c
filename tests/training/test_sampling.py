"""Batches of similar length: every row as often as in TRL's own sampler, with little padding."""

from collections import Counter

import numpy as np
from trl.trainer.utils import RepeatSampler

from autorater.training.sampling import LengthGroupedRepeatSampler

LENGTHS = np.random.default_rng(0).integers(10, 500, size=203).tolist()


def test_every_row_as_often_as_in_the_parent():
    ours = LengthGroupedRepeatSampler(LENGTHS, 2, batch_size=4, repeat_count=3, seed=1)
    rows = list(ours)
    assert len(rows) == len(ours) == len(list(RepeatSampler(LENGTHS, 2, batch_size=4, repeat_count=3, seed=1)))
    assert set(Counter(rows).values()) == {6}
    assert len(set(rows)) == 200, "the last three rows do not fill a batch"


def test_rows_that_fill_no_batch_are_others_in_every_epoch():
    sampler = LengthGroupedRepeatSampler(LENGTHS, 1, batch_size=64, seed=1)
    epochs = [set(sampler) for _ in range(12)]
    assert {len(epoch) for epoch in epochs} == {192}
    assert set().union(*epochs) == set(range(203)), "the longest rows are trained too"


def test_pattern_of_repeats_is_the_parents():
    rows = list(LengthGroupedRepeatSampler(LENGTHS, 2, batch_size=4, repeat_count=3, seed=1))
    for start in range(0, len(rows), 24):
        first, *others = (rows[start + 8 * i : start + 8 * i + 8] for i in range(3))
        assert all(other == first for other in others)
        assert first[0::2] == first[1::2]


def test_batches_have_similar_lengths_in_random_order():
    rows = list(LengthGroupedRepeatSampler(LENGTHS, 1, batch_size=4, seed=1))
    batches = np.array(LENGTHS)[rows].reshape(-1, 4)
    padding = 1 - batches.mean() / batches.max(axis=1).mean()
    assert padding < 0.1
    assert abs(np.corrcoef(np.arange(len(batches)), batches.max(axis=1))[0, 1]) < 0.5


def test_seed_and_epoch_change_the_order():
    sampler = LengthGroupedRepeatSampler(LENGTHS, 1, batch_size=4, seed=1)
    first, second = list(sampler), list(sampler)
    assert first != second
    assert first == list(LengthGroupedRepeatSampler(LENGTHS, 1, batch_size=4, seed=1))
    assert first != list(LengthGroupedRepeatSampler(LENGTHS, 1, batch_size=4, seed=2))


def test_fewer_rows_than_a_batch():
    assert list(LengthGroupedRepeatSampler([3, 4], 1, batch_size=4)) == []


def test_a_curriculum_stays_in_order():
    rows = np.array(list(LengthGroupedRepeatSampler(LENGTHS * 10, 1, batch_size=4, seed=1, in_order=True)))
    assert set(Counter(rows.tolist()).values()) == {1}
    assert np.abs(rows - np.arange(len(rows))).max() < 32 * 4, "rows stay in their block"
    lengths = np.array(LENGTHS * 10)[rows[: len(rows) // 4 * 4]].reshape(-1, 4)
    assert 1 - lengths.mean() / lengths.max(axis=1).mean() < 0.1
    assert (rows != np.arange(len(rows))).mean() > 0.9, "batches of a block are shuffled"
