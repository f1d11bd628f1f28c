"""What judges say, and what it takes to be one. Needs no torch.

Of a pair of responses A and B, in the order as given (ab) and with the responses swapped (ba):

    p_ab   Pr[B better], read from the order as given
    p_ba   Pr[A better], read with the responses swapped (in both orders: the response shown second is better)
    p_sym  (p_ab + 1 − p_ba) / 2: Pr[B better] with the slots' bias averaged out
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Protocol

import numpy as np

from autorater.data.pairs import Pair


class PairJudge(Protocol):
    """Anything that judges pairs in both orders: a local model, an endpoint, a method wrapped around either."""

    def probabilities(self, pairs: Sequence[Pair], *, progress: bool = False) -> Judgments:
        """Judgments of N pairs."""


@dataclass(frozen=True)
class Judgments:
    """What a judge says of N pairs. Every array has shape (N, 2): column 0 order ab, column 1 order ba.

    Attributes:
        mean: Expected answer, in [0, 1].
        mode: Most likely answer, on the grid.
        spread: Standard deviation of the answer.
        valid: Probability that the answer is on the grid at all.
        greedy: The answer that decoding token by token, always the likeliest, writes; NaN where that is no answer on
            the grid. None of a judge that does not tell.
    """

    mean: np.ndarray
    mode: np.ndarray
    spread: np.ndarray
    valid: np.ndarray
    greedy: np.ndarray | None = None

    @property
    def p_ab(self) -> np.ndarray:
        """Pr[B better] from the order as given, shape (N,)."""
        return self.mean[:, 0]

    @property
    def p_ba(self) -> np.ndarray:
        """Pr[A better] from the swapped order, shape (N,)."""
        return self.mean[:, 1]

    @property
    def p_sym(self) -> np.ndarray:
        """Pr[B better], both orders averaged, shape (N,)."""
        return (self.p_ab + 1 - self.p_ba) / 2

    def __len__(self) -> int:
        return len(self.mean)

    def __getitem__(self, rows: slice) -> Judgments:
        """Judgments of some of the pairs."""
        columns = {f.name: getattr(self, f.name) for f in fields(self)}
        return Judgments(**{name: column[rows] for name, column in columns.items() if column is not None})

    def recalibrated(self, recalibration: Callable[[np.ndarray], np.ndarray]) -> Judgments:
        """The same with every mean mapped; mode and spread stay those of the answer as it was said."""
        return replace(self, mean=recalibration(self.mean))

    def swap_averaged(self) -> Judgments:
        """The same with both orders averaged: p_sym in order ab, 1 − p_sym in order ba, so that no slot is favoured.

        The spread is that of the average of two independent answers, the validity the mean of both.
        """

        def mirrored(answers: np.ndarray) -> np.ndarray:
            averaged = (answers[:, 0] + 1 - answers[:, 1]) / 2
            return np.stack([averaged, 1 - averaged], axis=1)

        def repeated(column: np.ndarray) -> np.ndarray:
            return np.repeat(column[:, None], 2, axis=1)

        spread, valid = repeated(np.hypot(*self.spread.T) / 2), repeated(self.valid.mean(axis=1))
        return Judgments(mirrored(self.mean), mirrored(self.mode), spread, valid)

    @classmethod
    def interleaved(cls, shares: Sequence[Judgments]) -> Judgments:
        """Judgments of N pairs from those of W shares, where share w has the pairs w, w + W, w + 2 W, …"""
        columns = {}
        for name in (f.name for f in fields(cls) if getattr(shares[0], f.name) is not None):
            columns[name] = column = np.empty((sum(map(len, shares)), 2))
            for w, share in enumerate(shares):
                column[w :: len(shares)] = getattr(share, name)
        return cls(**columns)
