"""A reward model evaluated on whole models: win rates against Elo, Mismatch Degree, correlations, accuracy on votes.

gap of a model         mean over its opponents of empirical − expected win rate; above 0 it is over-valued
mismatch of a model    mean over its opponents of the Mismatch Degree
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.special import expit

from autorater.charm.responses import Response, Scores, by_model, matchups, scores_of, sides_of
from autorater.data.errors import DataError
from autorater.data.gathering import clusters
from autorater.data.pairs import Pair
from autorater.data.post_stratification import pair_weights
from autorater.metrics.agreement import agreement_credits
from autorater.metrics.intervals import Share, bootstrap, point_estimate
from autorater.metrics.systems import WinRate, check_rated, correlations, win_rates
from autorater.metrics.validation import check_predictions


@dataclass(frozen=True)
class RewardEvaluation:
    """The metrics of a reward model on K models.

    Attributes:
        rows: Win rates of every two models that answered the same prompts.
        elo, mean_scores: Elo and mean score by model.
        correlations: `pearson` and `spearman` of mean score with Elo.
        accuracy: Share of held-out pairs, weighted by their weights, on which it prefers the response of the majority,
            with `accuracy_low` and `accuracy_high`; empty without such pairs.
    """

    rows: list[WinRate]
    elo: Mapping[str, float]
    mean_scores: dict[str, float]
    correlations: dict[str, float]
    accuracy: dict[str, float]

    @property
    def gaps(self) -> dict[str, float]:
        """Mean empirical − expected win rate by model, the most over-valued first."""
        gaps = self._by_model(lambda row: row.judged - row.expected, sign=-1)
        return dict(sorted(gaps.items(), key=lambda item: -item[1]))

    @property
    def mismatch(self) -> dict[str, float]:
        """Mean Mismatch Degree by model."""
        return self._by_model(lambda row: row.mismatch)

    def reference_for(self, model: str) -> str:
        """The opponent nearest in Elo that is not over-valued itself; if all are, the nearest of all.

        Opponents answered a prompt that the model answered.
        """
        gaps = self.gaps
        others = [
            ({row.model, row.opponent} - {model}).pop() for row in self.rows if model in (row.model, row.opponent)
        ]
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

    def _by_model(self, value: Callable[[WinRate], float], sign: int = 1) -> dict[str, float]:
        """Means by model over its rows; of the opponent's side a value is multiplied by `sign`."""
        values: dict[str, list[float]] = defaultdict(list)
        for row in self.rows:
            values[row.model].append(value(row))
            values[row.opponent].append(sign * value(row))
        return {model: float(np.mean(column)) for model, column in values.items()}


def evaluate_scores(
    responses: Sequence[Response],
    scores: Scores,
    elo: Mapping[str, float],
    pairs: Sequence[Pair] = (),
    *,
    n_bootstrap: int = 1000,
) -> RewardEvaluation:
    """Computes the metrics of scores, with intervals from `n_bootstrap` rounds over prompts (0: none).

    Args:
        responses: Responses of at least two models to the same prompts.
        scores: Their scores and those of the responses of the pairs; responses without a score are ignored.
        elo: Elo of every model among them.
        pairs: Held-out pairs with votes.

    Raises:
        DataError: If no two models answered the same prompt.
        ValueError: If a model has no Elo, or a score is NaN.
    """
    scored = by_model(responses, scores)
    check_rated(elo, scored)
    compared = [both for two in combinations(sorted(scored), 2) for both in matchups(scored, *two)]
    if not compared:
        raise DataError(f"no two of the models {', '.join(sorted(scored))} answered the same prompt")
    model_scores, opponent_scores = scores_of(compared, scores)
    rows = win_rates(
        expit(opponent_scores - model_scores),
        None,
        [response.model for response, _ in compared],
        [response.model for _, response in compared],
        elo=elo,
        clusters=clusters(response.prompt for response, _ in compared),
        n_bootstrap=n_bootstrap,
    )
    means = {m: float(np.mean([scores[r] for r in by_prompt.values()])) for m, by_prompt in scored.items()}
    accuracy = _accuracy([p for p in pairs if all(r in scores for r in sides_of(p))], scores, n_bootstrap)
    return RewardEvaluation(rows, elo, means, correlations(means, elo), accuracy)


def _accuracy(pairs: Sequence[Pair], scores: Scores, n_bootstrap: int) -> dict[str, float]:
    if not any(pair.label != 0.5 and pair.weight != 0 for pair in pairs):
        return {}
    scores_a, scores_b = scores_of([sides_of(pair) for pair in pairs], scores)
    labels = [pair.label for pair in pairs]
    credit, counted = agreement_credits(*check_predictions(expit(scores_b - scores_a), labels))
    weights = pair_weights(pairs)
    if weights is not None:
        credit, counted = weights * credit, weights * counted
    accuracy = Share(credit, counted)
    interval = {}
    if n_bootstrap:
        prompts = clusters(pair.prompt for pair in pairs)
        interval = bootstrap({"accuracy": accuracy}, n_bootstrap, clusters=prompts)
    return {"accuracy": point_estimate(accuracy), **interval}
