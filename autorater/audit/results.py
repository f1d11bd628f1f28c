"""The figures of an audit: the metrics of every probe and group as flat keys, and the pairs that flip.

Keys of the probe `swap` stand bare, those of others as `verbosity/consistency`; those of groups as
`GROUP/consistency`. A pair that has no repetition with both answers is left out of the metrics and counted.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from autorater.audit.plan import Plan
from autorater.audit.predictions import REFUSED, UNPARSED, Readings
from autorater.audit.probes import PROBES
from autorater.audit.store import Journal
from autorater.data.pairs import Pair
from autorater.judges.recorded import RecordedPair
from autorater.metrics.agreement import verdicts
from autorater.metrics.position_audit import audit_metrics, compared, pair_means

METRICS_FILE, FLIPS_FILE = "metrics.json", "flips.jsonl"


def measure(readings: Readings, n_bootstrap: int = 1000) -> dict[str, float]:
    """The metrics of `audit_metrics` over the pairs that can be compared, and what was left out.

    Returns:
        Beside the metrics: `n_unparsed`, `n_refused` and `n_not_asked`, pairs left out because an answer could not be
        read, a request was refused, or the budget ran out; `n_unparsed_answers` and `n_refused_answers`, single
        answers; `parse_rate`, the probability that an answer can be read. Without a pair to compare there are only
        these, and `n_pairs` is 0.
    """
    left_out = ~compared(readings.answers).any(axis=1)
    status = readings.status[left_out]
    refused = (status == REFUSED).any(axis=(1, 2))
    unparsed = (status == UNPARSED).any(axis=(1, 2)) & ~refused
    report = {"n_pairs": 0.0}
    if not left_out.all():
        report = audit_metrics(readings.answers, readings.catalogue.labels, n_bootstrap=n_bootstrap)
    return report | {
        "n_unparsed": float(unparsed.sum()),
        "n_refused": float(refused.sum()),
        "n_not_asked": float((~refused & ~unparsed).sum()),
        "n_unparsed_answers": float((readings.status == UNPARSED).sum()),
        "n_refused_answers": float((readings.status == REFUSED).sum()),
        "parse_rate": readings.valid,
    }


def flat_metrics(by_probe: Mapping[str, Mapping[str, float]], by_group: Mapping[str, Mapping[str, float]]) -> dict:
    """One mapping with the keys described above."""
    flat = dict(by_probe.get("swap", {}))
    for prefix, metrics in (*by_probe.items(), *by_group.items()):
        if prefix != "swap":
            flat |= {f"{prefix}/{name}": value for name, value in metrics.items()}
    return flat


def flipping(readings: Readings) -> np.ndarray:
    """Numbers of the pairs that have another winner in some repetition when they are turned, in order."""
    said = verdicts(readings.answers)
    flips = (said[:, 0] != -said[:, 1]) & compared(readings.answers)
    return np.flatnonzero(flips.any(axis=1))


def journal_flips(
    pairs: Iterable[Pair], readings: Readings, journal: Journal, plan: Plan, probe: str
) -> Iterator[dict[str, object]]:
    """The pairs that flip, with their texts and what the judge said; pairs are gone through once more."""
    flips = iter(flipping(readings).tolist())
    wanted = next(flips, None)
    for index, pair in enumerate(pairs):
        if wanted is None:
            return
        if index == wanted:
            said = {
                order: [
                    journal[slot].get("text")
                    for repeat in range(plan.n_repeats)
                    if (slot := plan.slot(index, probe, repeat, order)) in journal
                ]
                for order in PROBES[probe].orders
            }
            yield {
                **_flip(readings, index, pair.id, probe),
                "label": pair.label,
                "prompt": pair.prompt,
                "response_a": pair.response_a,
                "response_b": pair.response_b,
                "said": {order: texts for order, texts in said.items() if any(texts)},
            }
            wanted = next(flips, None)


def recorded_flips(pairs: Iterable[RecordedPair], readings: Readings) -> Iterator[dict[str, object]]:
    """The recorded pairs that flip, with all that is in their rows."""
    flips = set(flipping(readings).tolist())
    for index, pair in enumerate(pairs):
        if index in flips:
            yield {**pair.row, **_flip(readings, index, pair.id, "swap")}


def _flip(readings: Readings, index: int, id: str, probe: str) -> dict[str, object]:
    p_ab, p_ba = (float(side[0]) for side in pair_means(readings.answers[index : index + 1]))
    return {
        "id": id,
        "probe": probe,
        "p_ab": round(p_ab, 6),
        "p_ba": round(p_ba, 6),
        "symmetry_deviation": round(p_ab + p_ba - 1, 6),
    }


def write_metrics(folder: Path, metrics: Mapping[str, float]) -> None:
    """Writes `metrics.json`."""
    (folder / METRICS_FILE).write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")


def write_flips(
    folder: Path, flips: Iterable[Mapping[str, object]], n_shown: int = 20
) -> tuple[list[Mapping[str, object]], int]:
    """Writes `flips.jsonl`, in the order of the data.

    Returns:
        Those that deviate most, the worst first, and the number of all.
    """
    worst: list[tuple[float, int, Mapping[str, object]]] = []
    number = -1
    with (folder / FLIPS_FILE).open("w", encoding="utf-8") as file:
        for number, flip in enumerate(flips):
            file.write(json.dumps(flip, ensure_ascii=True, default=str) + "\n")
            worst.append((-abs(flip["symmetry_deviation"]), number, flip))
            worst = sorted(worst, key=lambda item: item[:2])[:n_shown]
    return [flip for _, _, flip in worst], number + 1
