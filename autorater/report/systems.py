"""Win rates of systems in the report of an evaluation: PPI++ by the judge's headline method, where pairs name systems.

Nothing of that method is fitted on the pairs that are compared, so all pairs with votes count, and pairs without votes
are what the judge adds. The pairs with votes must be a random sample of all.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autorater.data.messages import plain_text
from autorater.data.pairs import Pair
from autorater.evaluation.methods import Entry
from autorater.judges.judgments import Judgments
from autorater.judges.recorded import JudgedPair
from autorater.metrics.clusters import cluster_numbers
from autorater.report.decisions.page import win_rate_figure
from autorater.report.decisions.winrate import (
    CAPTION,
    HEADER,
    answer,
    rank_texts,
    ranking,
    system_win_rates,
    table_row,
)
from autorater.report.rendering import data_uri, png

logger = logging.getLogger(__name__)
_CONFIDENCE = 0.95
_KEPT = ("value", "low", "high", "votes_gained", "n_votes", "n_judged")


@dataclass(frozen=True)
class SystemWinRates:
    """Win rates of systems by the votes, corrected by a judge.

    Attributes:
        rates: Results of `estimate_win_rate` by system, the best first.
        ranks: Their ranks with intervals, as text.
    """

    rates: Mapping[str, Mapping[str, float]]
    ranks: Mapping[str, str]

    @property
    def metrics(self) -> dict[str, float]:
        """Flat metrics `win_rate/SYSTEM/value` and others, those of votes and judge alone included."""
        flat = {}
        for name, rate in self.rates.items():
            kept = [key for key in rate if key in _KEPT or key.startswith(("votes_only_", "judge_only_"))]
            flat |= {f"win_rate/{name}/{key}": float(rate[key]) for key in kept}
        return flat

    def section(self) -> dict[str, object]:
        """What the page shows."""
        return {
            "answer": answer(dict(self.rates), _CONFIDENCE),
            "picture": data_uri(png(win_rate_figure(self.rates))),
            "caption": CAPTION,
            "header": HEADER,
            "rows": [table_row(name, rate, self.ranks.get(name, "–")) for name, rate in self.rates.items()],
        }


def win_rates_of_systems(entry: Entry, calibration: Sequence[Pair], unvoted: Sequence[Pair]) -> SystemWinRates | None:
    """The win rates by the judgments of an entry; None if a pair does not name its systems.

    Args:
        entry: The headline of a judge, with its judgments of all parts.
        calibration, unvoted: The calibration pairs, and the pairs without votes.
    """
    parts = ((entry.evaluation.pairs, entry.parts.measured), (calibration, entry.parts.calibration))
    judged = [row for pairs, judgments in (*parts, (unvoted, entry.parts.unvoted)) for row in _rows(pairs, judgments)]
    judged = list({pair.id: pair for pair in judged}.values())  # calibration pairs are drawn by their weights
    if not all(pair.row["model_a"] and pair.row["model_b"] for pair in judged):
        return None
    if any(pair.weight is not None for pair in (*entry.evaluation.pairs, *calibration)):
        logger.warning("no win rates of systems: they are not computed for weighted votes")
        return None
    labels, p = np.array([pair.label for pair in judged]), np.array([pair.probability for pair in judged])
    clusters = cluster_numbers([pair.row["prompt"] for pair in judged])
    rates = system_win_rates(judged, p, labels, clusters, _CONFIDENCE)
    return SystemWinRates(rates, rank_texts(ranking(judged, p, labels, clusters, _CONFIDENCE)))


def _rows(pairs: Sequence[Pair], judgments: Judgments) -> list[JudgedPair]:
    return [
        JudgedPair(
            pair.id,
            (float(answers[0]), float(answers[1])),
            np.nan if pair.label is None else pair.label,
            {"model_a": pair.model_a, "model_b": pair.model_b, "prompt": plain_text(pair.prompt)},
        )
        for pair, answers in zip(pairs, judgments.mean, strict=True)
    ]
