"""A judge measured on held-out pairs: probabilities in both orders, flat metrics, one record a pair and order.

In a run of several processes each judges its share of the pairs, and all of them get all judgments.

Deliberately left out: how probabilities come about (`autorater.judges`) and how they are drawn (`autorater.report`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch.distributed as dist

from autorater.data.pairs import Pair
from autorater.judges import Judge, Judgments, PairJudge
from autorater.metrics import judge_metrics
from autorater.prompts.encoder import EncodedPrompt


@dataclass(frozen=True)
class Evaluation:
    """What a judge said of N pairs, and how good that was."""

    pairs: Sequence[Pair]
    judgments: Judgments
    metrics: dict[str, float]

    @property
    def probabilities(self) -> np.ndarray:
        """Answers of both orders in one column, shape (2 N,): all of ab, then all of ba."""
        return np.concatenate([self.judgments.p_ab, self.judgments.p_ba])

    @property
    def labels(self) -> np.ndarray:
        """What the answers are measured against, shape (2 N,): the label for ab, 1 − label for ba."""
        labels = np.array([pair.label for pair in self.pairs])
        return np.concatenate([labels, 1 - labels])

    @property
    def truth(self) -> np.ndarray | None:
        """p* of the answers, shape (2 N,), or None if it is not known of every pair."""
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
    """Judges every pair in both orders and measures the answers against the dense labels.

    Args:
        judge: Anything that judges pairs.
        pairs: N pairs.
        prompts: Their prompts, where they are encoded already; for a `Judge` only.
        n_bootstrap: Rounds of the bootstrap over pairs; 0 for no intervals.
        progress: Show a progress bar.
    """
    return measure(pairs, judge_all(judge, pairs, prompts, progress=progress), n_bootstrap=n_bootstrap)


def judge_all(
    judge: PairJudge,
    pairs: Sequence[Pair],
    prompts: Sequence[tuple[EncodedPrompt, EncodedPrompt]] | None = None,
    *,
    progress: bool = False,
) -> Judgments:
    """What a judge says of every pair, in both orders; arguments as in `evaluate`."""
    if prompts is None and isinstance(judge, Judge):
        prompts = judge.encoder.encode(pairs)
    ask, rows = (judge.probabilities, pairs) if prompts is None else (judge.judge_prompts, prompts)
    if not dist.is_initialized():
        return ask(rows, progress=progress)
    if prompts is not None:
        judge.check_lengths(prompts)  # all processes stop here, or none
    rank, world = dist.get_rank(), dist.get_world_size()
    shares: list[Judgments | None] = [None] * world
    # A process without a row reads the first one: with the others it may have to call a model that is sharded.
    share = ask(rows[rank::world] or rows[:1], progress=progress and rank == 0)
    dist.all_gather_object(shares, share[: len(rows[rank::world])])
    return Judgments.interleaved(shares)


def measure(
    pairs: Sequence[Pair],
    judgments: Judgments,
    *,
    clusters: Sequence[str] | None = None,
    n_bootstrap: int = 1000,
) -> Evaluation:
    """Measures what was said of N pairs against their dense labels.

    Args:
        pairs: N pairs.
        judgments: What was said of them.
        clusters: N names; pairs with equal ones are resampled together.
        n_bootstrap: Rounds of the bootstrap; 0 for no intervals.
    """
    metrics = judge_metrics(
        judgments.p_ab,
        judgments.p_ba,
        [pair.label for pair in pairs],
        n_votes=column(pairs, "n_votes"),
        true_probability=column(pairs, "true_probability"),
        valid_ab=judgments.valid[:, 0],
        valid_ba=judgments.valid[:, 1],
        verbalized_ab=judgments.mode[:, 0],
        verbalized_ba=judgments.mode[:, 1],
        clusters=clusters,
        n_bootstrap=n_bootstrap,
    )
    return Evaluation(pairs, judgments, metrics)


def column(pairs: Sequence[Pair], name: str) -> np.ndarray | None:
    """A column of numbers of N pairs, shape (N,), or None if a pair lacks it."""
    values = [getattr(pair, name) for pair in pairs]
    return None if any(v is None for v in values) else np.array(values, dtype=float)
