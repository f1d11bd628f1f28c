"""A judge measured on held-out items: distributions over K labels against the votes, and against the truth if known.

Besides the metrics of distributions (`autorater.metrics.class_metrics`), and the mass that the judge puts on labels at
all: how the KL changes when the held-out shares are moved in random directions (arXiv 2505.12301, Table 3).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autorater.alignment.adversary import random_perturbation
from autorater.alignment.judge import LabelJudge
from autorater.data.items import ItemSet
from autorater.evaluation.results import before_and_after, write_metrics
from autorater.metrics import class_metrics
from autorater.prompts.encoder import EncodedPrompt

PERTURBATIONS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25)  # L2 distances, the paper's range
_TRUE = ("kl", "total_variation", "mse_dense", "kl_low", "kl_high")
_SHOWN = {
    "kl_true": "KL to the true distribution",
    "kl": "KL to the shares of the votes",
    "total_variation": "Total variation (DistCE)",
    "accuracy": "Accuracy on the majority",
    "ece_classwise": "Calibration error, classwise",
    "ece_toplabel": "Calibration error, likeliest",
    "ranked_probability_score": "Ranked probability score",
    "label_mass": "Mass on the labels",
    "kl_perturbed_0.1": "KL, shares perturbed by 0.10",
    "kl_perturbed_0.25": "KL, shares perturbed by 0.25",
}


@dataclass(frozen=True)
class ItemEvaluation:
    """What a judge said of N items, shape (N, K), and how good that was."""

    items: ItemSet
    predicted: np.ndarray
    valid: np.ndarray
    metrics: dict[str, float]


def evaluate_items(
    judge: LabelJudge,
    items: ItemSet,
    prompts: Sequence[EncodedPrompt] | None = None,
    *,
    n_bootstrap: int = 1000,
    progress: bool = False,
) -> ItemEvaluation:
    """Judges every item and measures the distributions.

    Args:
        items: N items of the judge's task.
        prompts: Their prompts, where they are encoded already.
        n_bootstrap: Rounds of the bootstrap over items; 0 for no intervals.
        progress: Show a progress bar.
    """
    predicted, valid = judge.distributions(prompts or judge.encode(items), progress=progress)
    options = {"ordinal": items.task.ordinal, "n_bootstrap": n_bootstrap}
    metrics = class_metrics(predicted, items.counts, **options) | {"label_mass": float(valid.mean())}
    if items.truth is not None:
        against_truth = class_metrics(predicted, items.truth, **options)
        metrics |= {f"{name}_true": against_truth[name] for name in _TRUE if name in against_truth}
    metrics |= robustness(predicted, items.shares)
    return ItemEvaluation(items, predicted, valid, metrics)


def robustness(predicted: np.ndarray, shares: np.ndarray, seed: int = 0) -> dict[str, float]:
    """Mean KL(perturbed shares ‖ prediction) as `kl_perturbed_…`, one key a size of `PERTURBATIONS`."""
    perturbed = {size: random_perturbation(shares, size, seed) for size in PERTURBATIONS}
    return {
        f"kl_perturbed_{size:g}": class_metrics(predicted, moved, n_bootstrap=0)["kl"]
        for size, moved in perturbed.items()
    }


def write_item_run(
    folder: str | Path, before: ItemEvaluation, after: ItemEvaluation, *, training_seconds: float | None = None
) -> None:
    """Writes `metrics.json` (keys `before/…` and `after/…`) and `predictions.jsonl` (one line an item)."""
    write_metrics(folder, before_and_after(before.metrics, after.metrics, training_seconds))
    with Path(folder, "predictions.jsonl").open("w", encoding="utf-8") as file:
        for i, item in enumerate(after.items.items):
            record = {
                "id": item.id,
                "labels": after.items.task.labels,
                "probabilities": after.predicted[i].round(6).tolist(),
                "probabilities_before": before.predicted[i].round(6).tolist(),
                "valid": round(float(after.valid[i]), 6),
                "counts": item.counts,
                "true_distribution": item.true_distribution,
                "topic": item.topic,
            }
            kept = {name: value for name, value in record.items() if value is not None}
            file.write(json.dumps(kept, ensure_ascii=False) + "\n")


def item_table(before: ItemEvaluation, after: ItemEvaluation) -> str:
    """The headline metrics before and after training with their 95 % intervals, as fixed-width text."""
    lines = [("", "before", "after")]
    for name, label in _SHOWN.items():
        if name in after.metrics:
            lines.append((label, *(_figure(e.metrics, name) for e in (before, after))))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def _figure(metrics: dict[str, float], name: str) -> str:
    low, high = _bound(metrics, name, "low"), _bound(metrics, name, "high")
    interval = f" [{low:.4f}, {high:.4f}]" if low is not None and high is not None else ""
    return f"{metrics[name]:.4f}{interval}"


def _bound(metrics: dict[str, float], name: str, side: str) -> float | None:
    stem = f"{name.removesuffix('_true')}_{side}"
    return metrics.get(f"{stem}_true" if name.endswith("_true") else stem)
