"""Judgments: what every judge returns for pairs in both orders, and for single prompts. Imports no torch.

The responses A and B of a pair are shown in the given order (ab) and swapped (ba):

    p_ab   Pr[B better], read from order ab
    p_ba   Pr[A better], read from order ba (in both orders: Pr[the response shown second is better])
    p_sym  (p_ab + 1 − p_ba) / 2: Pr[B better] with the position bias averaged out
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np

from autorater.data.atomic import open_atomic
from autorater.data.pairs import Pair
from autorater.models.shares import interleaved

if TYPE_CHECKING:
    from autorater.judges.calibrators import Recalibration


class PairJudge(Protocol):
    """Anything that judges pairs in both orders: such as a local model or an endpoint."""

    def probabilities(self, pairs: Sequence[Pair], *, progress: bool = False) -> Judgments: ...


class NamedJudge(PairJudge):
    """Base class of the judges that `open_judge` opens by a name.

    Attributes:
        is_pointwise: It reads every response once, alone.
        method: The one judging method that it has; None for a model on this machine, which has all.
        recalibration: Applied to its probabilities; None for none.
    """

    is_pointwise: bool = False
    method: str | None = None
    recalibration: Recalibration | None = None

    def without_recalibration(self) -> Self:
        """The same judge without the recalibration that is saved with it, so that methods are comparable."""
        judge = copy(self)
        judge.recalibration = None
        return judge


@dataclass(frozen=True)
class AnswerArrays:
    """Answers to N single prompts. Every array has shape (N,).

    Attributes:
        mean, spread: Expected answer, in [0, 1], and its standard deviation.
        mode: Most likely answer, on the grid.
        valid: Probability that the answer is on the grid.
        greedy: The answer that greedy decoding writes, NaN if it is not on the grid; None if the judge has none.
    """

    mean: np.ndarray
    mode: np.ndarray
    spread: np.ndarray
    valid: np.ndarray
    greedy: np.ndarray | None = None


@dataclass(frozen=True)
class Judgments(AnswerArrays):
    """Judgments of N pairs. Every array has shape (N, 2): column 0 is order ab, column 1 order ba."""

    @property
    def p_ab(self) -> np.ndarray:
        """Pr[B better] from order ab, shape (N,)."""
        return self.mean[:, 0]

    @property
    def p_ba(self) -> np.ndarray:
        """Pr[A better] from order ba, shape (N,)."""
        return self.mean[:, 1]

    @property
    def p_sym(self) -> np.ndarray:
        """Pr[B better], both orders averaged, shape (N,)."""
        return (self.p_ab + 1 - self.p_ba) / 2

    @property
    def answered(self) -> np.ndarray:
        """Whether both orders have an answer, shape (N,); without one the mean is 0.5."""
        from autorater.metrics.validation import LEAST_VALID  # imports SciPy, which a help text can do without

        return (self.valid > LEAST_VALID).all(axis=1)

    def __len__(self) -> int:
        return len(self.mean)

    def __getitem__(self, rows: slice) -> Judgments:
        """Judgments of some of the pairs."""
        columns = {f.name: getattr(self, f.name) for f in fields(self)}
        return Judgments(**{name: column[rows] for name, column in columns.items() if column is not None})

    def recalibrated(self, recalibration: Callable[[np.ndarray], np.ndarray]) -> Judgments:
        """Judgments with every mean mapped; mode and spread stay those of the original answers."""
        return replace(self, mean=recalibration(self.mean))

    def swap_averaged(self) -> Judgments:
        """Judgments with mean p_sym in order ab and 1 − p_sym in order ba, so without position bias.

        The spread is that of the average of two independent answers, the validity the mean of both.
        """

        mode = (self.mode[:, 0] + 1 - self.mode[:, 1]) / 2
        spread, valid = np.hypot(*self.spread.T) / 2, self.valid.mean(axis=1)
        return Judgments.mirrored(self.p_sym, mode=mode, spread=spread, valid=valid)

    @classmethod
    def mirrored(
        cls,
        p: np.ndarray,
        *,
        mode: np.ndarray | None = None,
        spread: np.ndarray | float = 0.0,
        valid: np.ndarray | float = 1.0,
    ) -> Judgments:
        """Judgments of N pairs without position bias: p in order ab and 1 − p in order ba, shape (N,); so the mode."""
        mean = np.stack([p, 1 - p], axis=1)
        spread, valid = (np.repeat(np.broadcast_to(x, p.shape)[:, None], 2, axis=1) for x in (spread, valid))
        return cls(mean, mean.copy() if mode is None else np.stack([mode, 1 - mode], axis=1), spread, valid)

    @classmethod
    def concatenated(cls, parts: Sequence[Judgments]) -> Judgments:
        """Judgments of the pairs of all parts, in order."""
        names = [f.name for f in fields(cls) if all(getattr(part, f.name) is not None for part in parts)]
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})

    def save(self, path: str | Path) -> None:
        """Writes the arrays as an `.npz` file in one step; several processes may write it."""
        with open_atomic(path, "wb") as file:
            np.savez(file, **{name: column for name, column in vars(self).items() if column is not None})

    @classmethod
    def load(cls, path: str | Path) -> Judgments:
        """Reads the file of `save`."""
        with np.load(path) as columns:
            return cls(**columns)

    @classmethod
    def interleaved(cls, shares: Sequence[Judgments]) -> Judgments:
        """Judgments of N pairs from those of W shares, where share w has the pairs w, w + W, w + 2 W, …"""
        names = [f.name for f in fields(cls) if getattr(shares[0], f.name) is not None]
        return cls(**{name: interleaved([getattr(share, name) for share in shares]) for name in names})


@dataclass(frozen=True)
class Answer:
    """The result of one request to a judge.

    Attributes:
        status: `answered`, `unparsed` (the text holds no probability) or `refused` (there is no text).
        probability: Pr[the response shown second is better], in [0, 1], if answered.
        text, finish_reason, prompt_tokens, completion_tokens: The completion of a server, and what it reports.
        valid: Probability that an answer parses, in [0, 1], if the judge states it.
        error: Why the request was refused.
        requests: Requests that were sent for it, without retries; 0 if all it needs was read for other pairs.
    """

    status: str
    probability: float | None = None
    text: str | None = None
    valid: float | None = None
    error: str | None = None
    finish_reason: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    requests: int = 1

    @classmethod
    def stated(cls, probability: float, valid: float, **used: int) -> Self:
        """The answer of a judge that states how probably it parses; unparsed where that is at most `LEAST_VALID`."""
        from autorater.metrics.validation import LEAST_VALID  # as in `Judgments.answered`

        if valid <= LEAST_VALID:
            return cls("unparsed", valid=0.0, **used)
        return cls("answered", round(float(probability), 6), valid=round(float(valid), 6), **used)
