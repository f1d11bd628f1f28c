"""Self-consistency: N answers are drawn, each is a vote, and the share of votes is the probability.

Wang et al. 2022 (arXiv 2203.11171); as a confidence, Tian et al. 2023 (arXiv 2305.14975).

    p = (#{answers > 1/2} + #{answers = 1/2} / 2) / #{answers that can be read}

The answers are numbers here, and an answer votes for the side that it favours; the papers ask for a letter each time.
Without reasoning they are drawn from the exact distribution, which is what sampling token by token would do.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

import numpy as np
import torch

from autorater.data.pairs import Pair
from autorater.judges.judgments import Judgments
from autorater.judges.local import Judge
from autorater.metrics.agreement import verdicts
from autorater.models.answers import AnswerDistribution


class SelfConsistency:
    """The share of N sampled answers that favour the response shown second; 1/2 where none can be read.

    Args:
        judge: The model and how it is asked; its recalibration is not applied.
        n_samples: Answers a prompt, N >= 1, each behind a reasoning of its own where the judge is asked for it.
        seed: Draws them; the state of torch's own generator is left as it was.
    """

    def __init__(self, judge: Judge, n_samples: int = 10, seed: int = 0):
        if n_samples < 1:
            raise ValueError(f"n_samples is {n_samples}; at least 1 is wanted")
        self.judge, self.n_samples, self.seed = copy(judge), n_samples, seed
        self.judge.n_reasonings = n_samples

    def probabilities(self, pairs: Sequence[Pair], *, progress: bool = False) -> Judgments:
        """Judges N pairs in both orders.

        Raises:
            ValueError: If a prompt is longer than the model can read.
        """
        drawn = np.empty((2 * len(pairs), self.n_samples))
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            for rows, readings in self.judge.read(self.judge.encoder.encode(pairs), progress=progress):
                count = self.n_samples // len(readings)  # all from the one distribution, or one behind each reasoning
                drawn[rows] = torch.cat([_draw(reading, count) for reading in readings], dim=1).double().cpu().numpy()
        return vote_shares(drawn.reshape(len(pairs), 2, self.n_samples))


def _draw(answers: AnswerDistribution, count: int) -> torch.Tensor:
    """Answers drawn for B prompts, (B, count); NaN for one outside the grid."""
    weights = torch.cat([answers.probs, answers.outside[:, None]], dim=1)
    values = torch.cat([answers.values, answers.values.new_tensor([torch.nan])])
    return values[weights.multinomial(count, replacement=True)]


def vote_shares(drawn: np.ndarray) -> Judgments:
    """Judgments from sampled answers.

    Args:
        drawn: Answers in the orders ab and ba, in [0, 1], NaN where there is none, shape (N, 2, n_samples).

    Returns:
        Mean and mode: the share of votes; spread: the standard deviation of a vote; valid: the share of readable ones.
    """
    read = ~np.isnan(drawn)
    votes = np.where(read, (1 + verdicts(np.where(read, drawn, 0.5))) / 2, 0.0)
    count = read.sum(axis=2)
    share = np.where(count > 0, votes.sum(axis=2) / np.maximum(count, 1), 0.5)
    squares = (read * (votes - share[:, :, None]) ** 2).sum(axis=2)
    return Judgments(share, share, np.sqrt(squares / np.maximum(count, 1)), read.mean(axis=2))
