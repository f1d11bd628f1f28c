"""A judge evaluated on held-out items: distributions over K labels against the votes, and the truth if it is known.

In addition to the metrics of distributions (`autorater.metrics.class_metrics`): the mass of all labels, and the change
of the KL if the held-out shares are moved in random directions (arXiv 2505.12301, Table 3).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from autorater.alignment.adversary import random_perturbation
from autorater.alignment.judge import LabelJudge
from autorater.data.atomic import open_atomic
from autorater.data.items import ItemSet
from autorater.data.tables import write_rows
from autorater.evaluation.results import PREDICTIONS
from autorater.metrics import class_metrics
from autorater.models.shares import in_shares, interleaved
from autorater.prompts.encoder import EncodedPrompt

PERTURBATIONS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25)  # L2 distances, the paper's range
_AGAINST_TRUTH = ("kl", "total_variation", "mse_dense", "kl_low", "kl_high")


@dataclass(frozen=True)
class ItemEvaluation:
    """The distributions (N, K) that a judge predicts for N items, the mass of all labels (N,), and flat metrics."""

    items: ItemSet
    predicted: np.ndarray
    valid: np.ndarray
    metrics: dict[str, float]
    weights: ClassVar[None] = None  # items have no weights

    @property
    def probabilities(self) -> np.ndarray:
        """The probability of each label of each item, shape (N K,)."""
        return self.predicted.ravel()

    @property
    def labels(self) -> np.ndarray:
        """The vote shares of `probabilities`, shape (N K,)."""
        return self.items.shares.ravel()

    @property
    def truth(self) -> np.ndarray | None:
        """The true values of `probabilities`, shape (N K,), if they are known."""
        return None if self.items.truth is None else self.items.truth.ravel()


def evaluate_items(
    judge: LabelJudge, items: ItemSet, prompts: Sequence[EncodedPrompt], *, progress: bool = False
) -> ItemEvaluation:
    """Judges N items of the judge's task by their prompts, and computes the metrics, with intervals over items.

    The processes of a run divide the items among them, and all of them receive all judgments.
    """

    def judged(rows: Sequence[EncodedPrompt]) -> np.ndarray:
        predicted, valid = judge.distributions(rows, progress=progress)
        return np.column_stack([predicted, valid])

    columns = interleaved(in_shares(prompts, judged))  # (N, K + 1)
    predicted, valid = columns[:, :-1], columns[:, -1]
    ordinal = items.task.ordinal
    metrics = class_metrics(predicted, items.counts, ordinal=ordinal) | {"label_mass": float(valid.mean())}
    if items.truth is not None:
        against_truth = class_metrics(predicted, items.truth, ordinal=ordinal)
        metrics |= {f"{name}_true": against_truth[name] for name in _AGAINST_TRUTH if name in against_truth}
    for size in PERTURBATIONS:
        moved = random_perturbation(items.shares, size, seed=0)
        metrics[f"kl_perturbed_{size:g}"] = class_metrics(predicted, moved, n_bootstrap=0)["kl"]
    return ItemEvaluation(items, predicted, valid, metrics)


def write_item_predictions(folder: str | Path, before: ItemEvaluation, after: ItemEvaluation) -> None:
    """Writes `predictions.jsonl` in one step, one line per item."""
    rows = (
        {
            "id": item.id,
            "labels": after.items.task.labels,
            "probabilities": after.predicted[i].round(6).tolist(),
            "probabilities_before": before.predicted[i].round(6).tolist(),
            "valid": round(float(after.valid[i]), 6),
            "counts": item.counts,
            "true_distribution": item.true_distribution,
            "topic": item.topic,
        }
        for i, item in enumerate(after.items.items)
    )
    with open_atomic(Path(folder, PREDICTIONS)) as file:
        write_rows(rows, file)
