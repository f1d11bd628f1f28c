"""A judge measured on held-out pairs: probabilities in both orders, flat metrics, one record a pair and order.

In a run of several processes each judges its share of the pairs, and all of them get all judgments. (Shares may take
unlike numbers of forward passes, which parameters sharded by ZeRO-3 or FSDP would not survive.)

Deliberately left out: how probabilities come about (`autorater.judges`) and how they are drawn (`autorater.report`).
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch.distributed as dist

from autorater.judges import Judge, Judgments
from autorater.metrics import judge_metrics
from autorater.pairs import Pair
from autorater.prompts import EncodedPrompt


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
        truth = _column(self.pairs, "true_probability")
        return None if truth is None else np.concatenate([truth, 1 - truth])


def evaluate(
    judge: Judge,
    pairs: Sequence[Pair],
    prompts: Sequence[tuple[EncodedPrompt, EncodedPrompt]] | None = None,
    *,
    n_bootstrap: int = 1000,
    progress: bool = False,
) -> Evaluation:
    """Judges every pair in both orders and measures the answers against the dense labels.

    Args:
        pairs: N pairs.
        prompts: Their prompts, where they are encoded already.
        n_bootstrap: Rounds of the bootstrap over pairs; 0 for no intervals.
        progress: Show a progress bar.
    """
    judgments = _judge(judge, prompts or judge.encoder.encode(pairs), progress)
    metrics = judge_metrics(
        judgments.p_ab,
        judgments.p_ba,
        [pair.label for pair in pairs],
        n_votes=_column(pairs, "n_votes"),
        true_probability=_column(pairs, "true_probability"),
        valid_ab=judgments.valid[:, 0],
        valid_ba=judgments.valid[:, 1],
        verbalized_ab=judgments.mode[:, 0],
        verbalized_ba=judgments.mode[:, 1],
        n_bootstrap=n_bootstrap,
    )
    return Evaluation(pairs, judgments, metrics)


def _judge(judge: Judge, prompts: Sequence[tuple[EncodedPrompt, EncodedPrompt]], progress: bool) -> Judgments:
    if not dist.is_initialized():
        return judge.judge_prompts(prompts, progress=progress)
    judge.check_lengths(prompts)  # all processes stop here, or none
    rank, world = dist.get_rank(), dist.get_world_size()
    shares: list[Judgments | None] = [None] * world
    dist.all_gather_object(shares, judge.judge_prompts(prompts[rank::world], progress=progress and rank == 0))
    return Judgments.interleaved(shares)


def write_run(
    folder: str | Path, before: Evaluation, after: Evaluation, *, training_seconds: float | None = None
) -> None:
    """Writes `metrics.json` (keys `before/…` and `after/…`) and `predictions.jsonl` (one line a pair and order)."""
    write_metrics(folder, before.metrics, after.metrics, training_seconds)
    with Path(folder, "predictions.jsonl").open("w", encoding="utf-8") as file:
        for record in _records(before, after):
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


def write_metrics(
    folder: str | Path,
    before: dict[str, float],
    after: dict[str, float],
    training_seconds: float | None = None,
) -> None:
    """Writes `metrics.json`: keys `before/…`, `after/…` and, where it is given, `training_seconds`."""
    metrics = {f"{when}/{k}": v for when, part in (("before", before), ("after", after)) for k, v in part.items()}
    if training_seconds is not None:
        metrics["training_seconds"] = round(training_seconds, 1)
    Path(folder, "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")


def _records(before: Evaluation, after: Evaluation) -> Iterator[dict]:
    for i, pair in enumerate(after.pairs):
        for column, (order, side) in enumerate((("ab", pair), ("ba", pair.swapped()))):
            said = after.judgments
            record = {
                "id": pair.id,
                "order": order,
                "probability": round(float(said.mean[i, column]), 6),
                "mode": float(said.mode[i, column]),
                "spread": round(float(said.spread[i, column]), 6),
                "valid": round(float(said.valid[i, column]), 6),
                "probability_before": round(float(before.judgments.mean[i, column]), 6),
                "label": side.label,
                "n_votes": side.n_votes,
                "true_probability": side.true_probability,
                "topic": side.topic,
            }
            yield {name: value for name, value in record.items() if value is not None}


def _column(pairs: Sequence[Pair], name: str) -> np.ndarray | None:
    """A column of numbers, or None if a pair lacks it."""
    values = [getattr(pair, name) for pair in pairs]
    return None if any(v is None for v in values) else np.array(values, dtype=float)
