"""Verbalized probabilities: the number that a model says when it is decoded token by token, always the likeliest.

That is what one gets of a judge whose distribution over answers is out of reach. Tian et al. 2023 (arXiv 2305.14975).
It is read off the answer tree, so nothing is generated but reasoning. As everywhere here the tags around the number
are not left to the model: it answers behind the opening tag, and is read up to the first token of the closing one.
Where greedy decoding leaves the grid, or writes no number, there is no answer; it counts as 1/2 and is invalid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autorater.data.pairs import Pair
from autorater.judges.judgments import Judgments
from autorater.judges.local import Judge


@dataclass(frozen=True)
class Verbalized:
    """The greedily decoded answer, behind greedy reasoning where the judge is asked for it.

    Args:
        judge: The model and how it is asked, with one reasoning at most; its recalibration is not applied.
    """

    judge: Judge

    def probabilities(self, pairs: Sequence[Pair], *, progress: bool = False) -> Judgments:
        """Judges N pairs in both orders.

        Raises:
            ValueError: If a prompt is longer than the model can read.
        """
        greedy = self.judge.probabilities(pairs, progress=progress).greedy
        valid = ~np.isnan(greedy)
        said = np.where(valid, greedy, 0.5)
        return Judgments(said, said, np.zeros_like(said), valid.astype(np.float64), greedy)
