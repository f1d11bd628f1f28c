"""A reward model measured on whole models: win rates against Elo, Mismatch Degree, correlations, accuracy on votes.

    gap of a model         mean over its opponents of empirical − expected win rate; above 0 it is over-valued
    mismatch of a model    mean over its opponents of the Mismatch Degree

Deliberately left out: where scores come from (`autorater.charm.reward_model`) and how this is drawn (`autorater.report`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from autorater.charm.responses import Response, by_model, meetings, responses_of, scores_of
from autorater.data.pairs import Pair
from autorater.metrics.agreement import agreement, agreement_credits
from autorater.metrics.intervals import Mean, bootstrap
from autorater.metrics.systems import WinRate, check_rated, correlations, sigmoid, win_rates


@dataclass(frozen=True)
class RewardEvaluation:
    """What a reward model makes of K models.

    Attributes:
        rows: Every two models that answered the same prompts.
        elo: Elo by model.
        mean_scores: Mean score by model.
        correlations: `pearson` and `spearman` of mean score with Elo.
        accuracy: Share of held-out pairs on which it prefers what the majority prefers, with `accuracy_low` and
            `accuracy_high`; empty without such pairs.
    """

    rows: list[WinRate]
    elo: Mapping[str, float]
    mean_scores: dict[str, float]
    correlations: dict[str, float]
    accuracy: dict[str, float]

    @property
    def gaps(self) -> dict[str, float]:
        """Mean empirical − expected win rate by model, the most over-valued first."""
        gaps = self._by_model(lambda row: row.judged - row.expected, lambda row: row.expected - row.judged)
        return dict(sorted(gaps.items(), key=lambda item: -item[1]))

    @property
    def mismatch(self) -> dict[str, float]:
        """Mean Mismatch Degree by model."""
        return self._by_model(lambda row: row.mismatch, lambda row: row.mismatch)

    @property
    def most_overvalued(self) -> str:
        """The model with the largest gap."""
        return next(iter(self.gaps))

    def reference_for(self, model: str) -> str:
        """The model nearest in Elo among those that are not over-valued themselves; among all others, if all are."""
        gaps = self.gaps
        others = [other for other in gaps if other != model]
        fair = [other for other in others if gaps[other] <= 0] or others
        return min(fair, key=lambda other: abs(self.elo[other] - self.elo[model]))

    def between(self, model: str, opponent: str) -> WinRate:
        """The row of two models, in either order."""
        return next(row for row in self.rows if {row.model, row.opponent} == {model, opponent})

    def metrics(self) -> dict[str, float]:
        """Flat, JSON-ready: `pearson`, `spearman`, `accuracy…`, `mismatch` (of all rows), `mismatch/MODEL`, …"""
        return {
            "mismatch": float(np.mean([row.mismatch for row in self.rows])),
            **self.correlations,
            **self.accuracy,
            **{f"mismatch/{model}": value for model, value in self.mismatch.items()},
            **{f"gap/{model}": value for model, value in self.gaps.items()},
            **{f"score/{model}": value for model, value in self.mean_scores.items()},
            **{f"win_rate/{row.model}/{row.opponent}": row.judged for row in self.rows},
        }

    def _by_model(self, first: Callable[[WinRate], float], second: Callable[[WinRate], float]) -> dict[str, float]:
        values: dict[str, list[float]] = {}
        for row in self.rows:
            values.setdefault(row.model, []).append(first(row))
            values.setdefault(row.opponent, []).append(second(row))
        return {model: float(np.mean(some)) for model, some in values.items()}


def evaluate_scores(
    responses: Sequence[Response],
    elo: Mapping[str, float],
    pairs: Sequence[Pair] = (),
    *,
    pair_scores: Mapping[tuple[str, str, str], float] | None = None,
    n_bootstrap: int = 1000,
) -> RewardEvaluation:
    """Measures scored responses.

    Args:
        responses: Scored responses of at least two models to the same prompts.
        elo: Elo of every model among them.
        pairs: Held-out pairs with votes.
        pair_scores: Scores of their responses by `Response.key`; by default those of `responses`.
        n_bootstrap: Rounds of the bootstrap over prompts; 0 for no intervals.

    Raises:
        ValueError: If a model has no Elo, no two models answered the same prompt, or a score is missing.
    """
    scored = by_model(responses)
    check_rated(elo, scored)
    columns: dict[str, list] = {"p": [], "a": [], "b": [], "prompt": []}
    for model, opponent in combinations(sorted(scored), 2):
        met = meetings(scored, model, opponent)
        if not met:
            continue
        mine, theirs = scores_of(met)
        columns["p"].append(sigmoid(np.subtract(theirs, mine)))
        columns["a"] += [model] * len(met)
        columns["b"] += [opponent] * len(met)
        columns["prompt"] += [response.prompt for response, _ in met]
    if not columns["p"]:
        raise ValueError(f"no two of the models {', '.join(sorted(scored))} answered the same prompt")
    rows = win_rates(
        np.concatenate(columns["p"]),
        None,
        columns["a"],
        columns["b"],
        elo=elo,
        clusters=np.unique(columns["prompt"], return_inverse=True)[1],
        n_bootstrap=n_bootstrap,
    )
    means = {model: float(np.mean([r.score for r in theirs.values()])) for model, theirs in scored.items()}
    accuracy = _accuracy(pairs, pair_scores or {r.key: r.score for r in responses}, n_bootstrap) if pairs else {}
    return RewardEvaluation(rows, elo, means, correlations(means, elo), accuracy)


def _accuracy(
    pairs: Sequence[Pair], scores: Mapping[tuple[str, str, str], float], n_bootstrap: int
) -> dict[str, float]:
    sides = np.array([[scores[response.key] for response in responses_of([pair])] for pair in pairs])  # (N, 2)
    judged, labels = sigmoid(sides[:, 1] - sides[:, 0]), np.array([pair.label for pair in pairs])
    if not (labels != 0.5).any():
        return {}
    spread = {}
    if n_bootstrap:
        prompts = np.unique([pair.prompt for pair in pairs], return_inverse=True)[1]
        spread = bootstrap({"accuracy": Mean(*agreement_credits(judged, labels))}, n_bootstrap, clusters=prompts)
    return {"accuracy": agreement(judged, labels), **spread}
