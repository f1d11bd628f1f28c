"""Pairs with one right answer: right and wrong ones differ, the sides are balanced, the seed decides."""

from collections import Counter

import pytest

from autorater.data.errors import UserError
from autorater.data.objective import objective_pairs


def right_and_wrong(pair):
    sides = (pair.response_a, pair.response_b)
    return sides if pair.label == 0 else sides[::-1]


def test_every_pair_has_one_right_answer():
    for pair in objective_pairs(1000, seed=3):
        right, wrong = right_and_wrong(pair)
        assert right != wrong
        words = pair.prompt.rstrip("?").split()
        if pair.topic == "sum":
            assert right == f"It is {int(words[2]) + int(words[4])}."
        elif pair.topic == "larger":
            numbers = int(words[4].rstrip(",")), int(words[-1])
            assert right == f"{max(numbers)} is larger."
            assert wrong == f"{min(numbers)} is larger."
        elif pair.topic == "letters":
            assert right == f"It has {len(pair.prompt.split(chr(34))[1])} letters."
        elif pair.topic == "spelling":
            assert sorted(right) == sorted(wrong)
        elif pair.topic == "capital":
            assert ("France" in pair.prompt) <= ("Paris" in right)


def test_sides_and_kinds_are_balanced_and_pairs_distinct():
    pairs = objective_pairs(600)
    counts = Counter((pair.topic, pair.label) for pair in pairs)
    assert len(counts) == 12
    assert set(counts.values()) == {50}
    assert len({(p.prompt, *sorted((p.response_a, p.response_b))) for p in pairs}) == 600
    assert len({pair.id for pair in pairs}) == 600


def test_the_seed_decides():
    assert objective_pairs(60, seed=1) == objective_pairs(60, seed=1)
    assert {p.prompt for p in objective_pairs(60, seed=1)} != {p.prompt for p in objective_pairs(60, seed=2)}
    assert objective_pairs(60, seed=1) == objective_pairs(90, seed=1)[:60]
    with pytest.raises(UserError, match="1 to 1,000"):
        objective_pairs(0)
