"""Judgments of several shares become one table, greedy answers or not; answers and their numbers."""

import numpy as np
import pytest

from autorater.evaluation.requests import answer_record
from autorater.judges import Judgments
from autorater.judges.endpoint import numbers_in
from autorater.judges.judgments import Answer


@pytest.mark.parametrize("greedy", [True, False])
def test_shares_are_interleaved(greedy):
    table = np.arange(14.0).reshape(7, 2)
    whole = Judgments(table, table + 1, table + 2, table + 3, table + 4 if greedy else None)
    names = [name for name in vars(whole) if getattr(whole, name) is not None]
    shares = [Judgments(**{name: getattr(whole, name)[w::3] for name in names}) for w in range(3)]
    again = Judgments.interleaved(shares)
    for name in names:
        np.testing.assert_array_equal(getattr(again, name), getattr(whole, name))
    assert (again.greedy is not None) == greedy


@pytest.mark.parametrize(
    ("answer", "numbers"),
    [
        (Answer.stated(0.7, 0.4), (0.7, 0.4)),
        (Answer.stated(0.7, 1e-13), (0.5, 0.0)),
        (Answer("answered", 0.7), (0.7, 1.0)),
        (Answer("unparsed", text="?"), (0.5, 0.0)),
        (Answer("refused", error="no"), (0.5, 0.0)),
    ],
)
def test_the_numbers_of_an_answer_are_those_of_its_record(answer, numbers):
    assert numbers_in(vars(answer)) == numbers
    assert numbers_in(answer_record(answer)) == numbers
