"""The results of an audit: the metrics of every probe and group under flat keys, and the pairs that flip.

Keys of the probe `swap` have no prefix, those of the others have the form `verbosity/consistency`, those of groups
`GROUP/consistency`. A pair that has no repetition with both answers is left out of the metrics, and counted.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from autorater.audit.plan import Plan
from autorater.audit.predictions import REFUSED, UNPARSED, Predictions
from autorater.audit.probes import PROBES
from autorater.data.atomic import open_atomic
from autorater.data.messages import as_json
from autorater.data.pairs import Pair
from autorater.evaluation.judgment_store import JudgmentStore
from autorater.evaluation.results import PREDICTIONS
from autorater.judges.recorded import JudgedPair
from autorater.metrics.agreement import verdicts
from autorater.metrics.position_audit import audit_metrics, compared, pair_means
from autorater.metrics.preferences import detectable_effect
from autorater.report.glossary import GLOSSARY

_N_SHOWN = 20  # flips in the report


def measure(predictions: Predictions, n_bootstrap: int = 1000, probe: str = "swap") -> dict[str, float]:
    """The metrics of `audit_metrics` over the pairs that can be compared, and the number of the others.

    Only the probe `swap` shows the responses as they are; what else sways the judge is measured on it.

    Returns:
        In addition to the metrics: `n_unparsed`, `n_refused` and `n_not_asked`, pairs left out because an answer does
        not parse, a request was refused, or the budget ran out; `n_unparsed_answers` and `n_refused_answers`, single
        answers; `parse_rate`; `<key>_detectable`, see `detectable_effect`. If no pair can be compared, there are only
        these, and `n_pairs` is 0.
    """
    left_out = ~compared(predictions.answers).any(axis=1)
    status = predictions.status[left_out]
    refused = (status == REFUSED).any(axis=(1, 2))
    unparsed = (status == UNPARSED).any(axis=(1, 2)) & ~refused
    metrics = {"n_pairs": 0.0}
    if not left_out.all():
        pairs = predictions.pairs
        traits = pairs.traits if probe == "swap" else {}
        known = {"clusters": pairs.clusters, "traits": traits, "n_bootstrap": n_bootstrap}
        metrics = audit_metrics(predictions.answers, pairs.labels, **known)
        seen = {key: detectable_effect(metrics, key) for key in GLOSSARY["planning"]}
        metrics |= {f"{key}_detectable": effect for key, effect in seen.items() if effect is not None}
    return metrics | {
        "n_unparsed": float(unparsed.sum()),
        "n_refused": float(refused.sum()),
        "n_not_asked": float((~refused & ~unparsed).sum()),
        "n_unparsed_answers": float((predictions.status == UNPARSED).sum()),
        "n_refused_answers": float((predictions.status == REFUSED).sum()),
        "parse_rate": predictions.parse_rate,
    }


def flat_metrics(by_probe: Mapping[str, Mapping[str, float]], by_group: Mapping[str, Mapping[str, float]]) -> dict:
    """All metrics in one mapping, with the keys described above."""
    flat = dict(by_probe.get("swap", {}))
    for prefix, metrics in (*by_probe.items(), *by_group.items()):
        if prefix != "swap":
            flat |= {f"{prefix}/{name}": value for name, value in metrics.items()}
    return flat


def flipping(predictions: Predictions) -> list[int]:
    """Indices of the pairs whose winner changes between the presentations in some repetition, in order."""
    first, second = np.moveaxis(verdicts(predictions.answers), 1, 0)
    flips = (first != -second) & compared(predictions.answers)
    return np.flatnonzero(flips.any(axis=1)).tolist()


def stored_flips(
    pairs: Iterable[Pair], predictions: Predictions, store: JudgmentStore, plan: Plan, probe: str
) -> Iterator[dict[str, object]]:
    """The pairs that flip, with their texts and the judge's answers, in one more pass over the pairs."""
    flips = set(flipping(predictions))
    for index, pair in enumerate(pairs):
        if index in flips:
            answers = {}
            for order in PROBES[probe].orders:
                numbers = [plan.number(index, probe, repeat, order) for repeat in range(plan.n_repeats)]
                answers[order] = [store[number].get("text") for number in numbers if number in store]
            row = {name: as_json(getattr(pair, name)) for name in ("label", "prompt", "response_a", "response_b")}
            row["answers"] = {order: texts for order, texts in answers.items() if any(texts)}
            yield _flip(predictions, index, pair.id, probe) | row


def recorded_flips(pairs: Iterable[JudgedPair], predictions: Predictions) -> Iterator[dict[str, object]]:
    """The recorded pairs that flip, with all columns of their rows."""
    flips = set(flipping(predictions))
    for index, pair in enumerate(pairs):
        if index in flips:
            yield {**pair.row, **_flip(predictions, index, pair.id, "swap")}


def _flip(predictions: Predictions, index: int, id: str, probe: str) -> dict[str, object]:
    p_ab, p_ba = (float(side[0]) for side in pair_means(predictions.answers[index : index + 1]))
    numbers = {"p_ab": p_ab, "p_ba": p_ba, "symmetry_deviation": p_ab + p_ba - 1}
    return {"id": id, "probe": probe} | {name: round(value, 6) for name, value in numbers.items()}


def write_flips(folder: Path, flips: Iterable[Mapping[str, object]]) -> tuple[list[Mapping[str, object]], int]:
    """Writes `flips.jsonl`; returns those with the largest absolute deviation, and the number of all flips."""
    worst: list[Mapping[str, object]] = []
    n_flips = 0
    with open_atomic(folder / "flips.jsonl") as file:
        for flip in flips:
            n_flips += 1
            file.write(json.dumps(flip, ensure_ascii=True, default=str) + "\n")
            worst = sorted([*worst, flip], key=lambda flip: -abs(flip["symmetry_deviation"]))[:_N_SHOWN]
    return worst, n_flips


def cluster_columns(clusters: np.ndarray) -> list[dict[str, int]]:
    """The column `cluster` of N pairs; none where no two pairs share one."""
    repeated = len(np.unique(clusters)) < len(clusters)
    return [{"cluster": cluster} if repeated else {} for cluster in clusters.tolist()]


def write_predictions(folder: Path, pairs: Iterable[Pair | JudgedPair], predictions: Predictions) -> None:
    """Writes `predictions.jsonl` of the probe `swap`: two lines a pair, null without answer, repetitions averaged."""
    with open_atomic(folder / PREDICTIONS) as file:
        clusters = cluster_columns(predictions.pairs.clusters)
        for pair, answers, label, cluster in zip(
            pairs, predictions.answers, predictions.pairs.labels, clusters, strict=True
        ):
            for order, given, y in zip(("ab", "ba"), answers, (label, 1 - label), strict=True):
                answered = given[~np.isnan(given)]
                line = {"id": pair.id, "order": order}
                line["probability"] = round(float(answered.mean()), 6) if answered.size else None
                line |= {} if np.isnan(y) else {"label": round(float(y), 6)}
                line |= cluster
                file.write(json.dumps(line, ensure_ascii=True) + "\n")
