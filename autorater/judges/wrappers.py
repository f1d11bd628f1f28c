"""Judges around judges: both orders averaged, answers recalibrated. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autorater.data.pairs import Pair
from autorater.judges.calibrators import Recalibration
from autorater.judges.judgments import Judgments, PairJudge


@dataclass(frozen=True)
class SwapAveraged:
    """A judge whose answer is the average of its answers in both orders; it favours no slot."""

    judge: PairJudge

    def probabilities(self, pairs: Sequence[Pair], *, progress: bool = False) -> Judgments:
        """Judgments of N pairs."""
        return self.judge.probabilities(pairs, progress=progress).swap_averaged()


@dataclass(frozen=True)
class Recalibrated:
    """A judge whose answers go through a map that was fitted on other pairs."""

    judge: PairJudge
    recalibration: Recalibration

    def probabilities(self, pairs: Sequence[Pair], *, progress: bool = False) -> Judgments:
        """Judgments of N pairs."""
        return self.judge.probabilities(pairs, progress=progress).recalibrated(self.recalibration)
