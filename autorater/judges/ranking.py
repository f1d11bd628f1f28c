"""Ranking of responses to one prompt from all their pairs: Bradley–Terry strengths.

    Pr[i beats j] = σ(s_i − s_j),   Σ s = 0

Every two responses are judged in both orders, so a bias for a position cancels out: K (K − 1) judgments. The strengths
maximize the likelihood of the symmetrized probabilities.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize
from scipy.special import expit, log_expit

from autorater.data.errors import UserError
from autorater.data.messages import Text, text_or_messages
from autorater.data.pairs import Pair
from autorater.judges.judgments import PairJudge

logger = logging.getLogger(__name__)
_LEAST = 1e-4  # a certain win would have an infinite strength


@dataclass(frozen=True)
class Ranking:
    """K responses in order.

    Attributes:
        order: Indices of the responses, the best first; equally strong ones in their given order. Shape (K,).
        strengths: Bradley–Terry strength of every response, in logits, with mean 0, shape (K,).
        probabilities: Pr[response i is preferred over response j], both orders averaged, 0.5 on the diagonal, (K, K).
        n_judgments: Number of prompts that the judge read.
    """

    order: np.ndarray
    strengths: np.ndarray
    probabilities: np.ndarray
    n_judgments: int


def rank(judge: PairJudge, prompt: Text, responses: Sequence[Text], **shown: Text | None) -> Ranking:
    """Ranks K responses to a prompt. An answer that is missing counts as 1/2, with a warning.

    Args:
        prompt, responses: Texts or messages.
        shown: What else the judge's prompt shows: `criteria`, `reference` and `group`.

    Raises:
        UserError: If there is no response, or as in the judge's `probabilities`.
    """
    prompt, responses = texts_of(prompt, responses)
    pairs = pairs_to_rank("", prompt, responses, **shown)
    if not pairs:
        return ranking_of([], len(responses))
    judgments = judge.probabilities(pairs)
    if n_missing := int((~judgments.answered).sum()):
        logger.warning(f"{n_missing} of {len(pairs)} pairs lack an answer of the judge, which counts as 1/2")
    return ranking_of(judgments.p_sym, len(responses))


def texts_of(prompt: Text, responses: Sequence[Text]) -> tuple[Text, list[Text]]:
    """A prompt and its responses, checked; UserError if there is no response, or one is neither text nor messages."""
    responses = list(responses) if isinstance(responses, Iterable) and not isinstance(responses, str) else responses
    if not responses or isinstance(responses, str):
        raise UserError(f"responses: got {responses!r}; expected a list of at least one")
    checked = [text_or_messages(text, f"responses[{i}]", blank=True) for i, text in enumerate(responses)]
    return text_or_messages(prompt, "prompt"), checked


def pairs_to_rank(id: str, prompt: Text, responses: Sequence[Text], **shown: Text | None) -> list[Pair]:
    """Every two of K responses, in the order of `combinations`; ids begin with `id`; `shown` as in `rank`."""
    both = combinations(range(len(responses)), 2)
    return [Pair(f"{id}{i}-{j}", prompt, responses[i], responses[j], label=None, **shown) for i, j in both]


def ranking_of(p_sym: ArrayLike, n_responses: int) -> Ranking:
    """The ranking of K responses from Pr[B preferred] of the pairs of `pairs_to_rank`, shape (K (K − 1) / 2,)."""
    wins = np.full((n_responses, n_responses), 0.5)
    first, second = np.triu_indices(n_responses, 1)
    wins[second, first] = p_sym
    wins[first, second] = 1 - wins[second, first]
    strengths = bradley_terry(wins)
    return Ranking(np.argsort(-strengths.round(9), kind="stable"), strengths, wins, 2 * len(first))


def bradley_terry(wins: np.ndarray) -> np.ndarray:
    """Strengths in logits with mean 0, shape (K,), from the probability `wins[i, j]` that i beats j, shape (K, K)."""
    wins = np.clip(wins, _LEAST, 1 - _LEAST)
    wins = wins - np.diag(np.diag(wins))

    def loss(strengths: np.ndarray) -> tuple[float, np.ndarray]:
        difference = strengths[:, None] - strengths
        residual = wins - (wins + wins.T) * expit(difference)
        return -(wins * log_expit(difference)).sum(), -residual.sum(axis=1)

    fit = minimize(loss, np.zeros(len(wins)), jac=True, method="BFGS", options={"gtol": 1e-9})
    return fit.x - fit.x.mean()
