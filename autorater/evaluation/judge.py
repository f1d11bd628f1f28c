"""One judge evaluated on held-out pairs: probabilities in both orders and flat metrics.

In a run of several processes each process judges a part of the pairs, and all of them receive all judgments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from autorater.data.gathering import pair_clusters
from autorater.data.pairs import Pair
from autorater.data.post_stratification import pair_weights
from autorater.judges import Judgments, PairJudge
from autorater.metrics import Targets, judge_metrics
from autorater.models.shares import in_shares, this_process

if TYPE_CHECKING:
    from autorater.prompts.encoder import EncodedPrompt


@dataclass(frozen=True)
class Evaluation:
    """The judgments of N pairs, their metrics, and the clusters by which these were resampled, if not single pairs."""

    pairs: Sequence[Pair]
    judgments: Judgments
    metrics: dict[str, float]
    clusters: Sequence[str | int] | None = None

    @property
    def probabilities(self) -> np.ndarray:
        """Answers of both orders, shape (2 N,): all of ab, then all of ba."""
        return np.concatenate([self.judgments.p_ab, self.judgments.p_ba])

    @property
    def labels(self) -> np.ndarray:
        """Labels of the answers, shape (2 N,): the label for ab, 1 − label for ba."""
        labels = np.array([pair.label for pair in self.pairs])
        return np.concatenate([labels, 1 - labels])

    @property
    def weights(self) -> np.ndarray | None:
        """Weights of the answers, shape (2 N,), with mean 1; None if they are equal."""
        weights = pair_weights(self.pairs)
        return None if weights is None else np.tile(weights, 2)

    @property
    def truth(self) -> np.ndarray | None:
        """p* of the answers, shape (2 N,), or None if a pair lacks it."""
        truth = column(self.pairs, "true_probability")
        return None if truth is None else np.concatenate([truth, 1 - truth])


def evaluate(
    judge: PairJudge,
    pairs: Sequence[Pair],
    prompts: Sequence[tuple[EncodedPrompt, EncodedPrompt]] | None = None,
    *,
    n_bootstrap: int = 1000,
    progress: bool = False,
) -> Evaluation:
    """Judges N pairs in both orders and measures the answers against the dense labels.

    `prompts` are their encoded prompts, if available, for a `Judge` only; 0 rounds of the bootstrap give no intervals.
    """
    return measure(pairs, judge_all(judge, pairs, prompts, progress=progress), n_bootstrap=n_bootstrap)


def judge_all(
    judge: PairJudge,
    pairs: Sequence[Pair],
    prompts: Sequence[tuple[EncodedPrompt, EncodedPrompt]] | None = None,
    *,
    progress: bool = False,
) -> Judgments:
    """The judgments of every pair in both orders; arguments as in `evaluate`."""
    process, n_processes = this_process()
    if n_processes > 1:
        from autorater.judges import Judge

        if prompts is None and isinstance(judge, Judge):
            prompts = judge.encoder.encode(pairs)
        if prompts is not None:
            judge.check_lengths(prompts)  # so that either all processes raise or none
    judge_rows, rows = (judge.probabilities, pairs) if prompts is None else (judge.judge_prompts, prompts)
    return Judgments.interleaved(in_shares(rows, partial(judge_rows, progress=progress and process == 0)))


def measure(
    pairs: Sequence[Pair],
    judgments: Judgments,
    *,
    clusters: Sequence[str | int] | None = None,
    n_bootstrap: int = 1000,
) -> Evaluation:
    """Measures the judgments of N pairs against their dense labels; pairs of one cluster are resampled together.

    By default a cluster is the pairs that show the same texts, in either order: they are no independent evidence.
    """
    against = targets(pairs, clusters)
    options = {"valid": judgments.valid, "mode": judgments.mode, "n_bootstrap": n_bootstrap}
    return Evaluation(pairs, judgments, judge_metrics(judgments.mean, against, **options), against.clusters)


def targets(pairs: Sequence[Pair], clusters: Sequence[str | int] | None = None) -> Targets:
    """Labels, votes, known truth and weights of N pairs."""
    labels = [pair.label for pair in pairs]
    clusters = pair_clusters(pairs) if clusters is None else clusters
    known = column(pairs, "n_votes"), column(pairs, "true_probability")
    votes = [(pair.votes_a or 0, pair.votes_tie or 0, pair.votes_b or 0) for pair in pairs]
    counts = np.array(votes, dtype=float) if any(map(any, votes)) else None
    return Targets(labels, *known, clusters, pair_weights(pairs), counts)


def column(pairs: Sequence[Pair], name: str) -> np.ndarray | None:
    """A numeric column of N pairs, shape (N,), or None if a pair lacks it."""
    values = [getattr(pair, name) for pair in pairs]
    return None if any(v is None for v in values) else np.array(values, dtype=float)
