"""Judgments of several shares become one table, greedy answers or not."""

import numpy as np
import pytest

from autorater.judges import Judgments


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
