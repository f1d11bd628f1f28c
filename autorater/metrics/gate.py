"""Gate: is this judge worse than a recorded baseline on the same pairs?

Every metric is a mean over pairs, so its change is a mean of paired differences, summed by cluster, with a two-sided
t-test of no change. Holm's correction (1979) over the metrics bounds the chance that a judge that did not change is
called worse or better in any of them by `level`, and called worse by half of it. `detectable` is the loss that would
have been called worse in 80 % of the cases, under the strictest step of the correction: a gate that sees nothing has
seen little if it is large.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtr, stdtrit

from autorater.metrics.agreement import agreement_credits, verdicts
from autorater.metrics.clusters import cluster_numbers
from autorater.metrics.paired import mean_and_error
from autorater.metrics.scores import brier_scores
from autorater.metrics.significance import holm
from autorater.metrics.validation import check_equal_lengths, check_orders, check_probabilities, check_share

HIGHER_IS_BETTER = {
    "brier": False,
    "agreement": True,
    "consistency": True,
    "symmetry_deviation_abs": False,
    "answered": True,
}
POWER = 0.8
WORSE, BETTER, UNCLEAR = "worse", "better", "no clear change"


@dataclass(frozen=True)
class Change:
    """One metric of a gate.

    Attributes:
        baseline, current: Its values over all pairs.
        change, low, high: current − baseline, and its interval with confidence 1 − level, not corrected.
        p_value: Corrected for the number of metrics.
        verdict: `worse`, `better` or `no clear change`.
        detectable: The loss that is called worse with a probability of 80 %, above 0.
        n_pairs: Pairs that count: for `agreement` those with a majority, for `consistency` and
            `symmetry_deviation_abs` those that both judges answered in both orders.
    """

    metric: str
    baseline: float
    current: float
    change: float
    low: float
    high: float
    p_value: float
    verdict: str
    detectable: float
    n_pairs: int


def compare_with_baseline(
    baseline: ArrayLike,
    current: ArrayLike,
    labels: ArrayLike | None = None,
    *,
    clusters: ArrayLike | None = None,
    answered: ArrayLike | None = None,
    level: float = 0.05,
) -> list[Change]:
    """Compares the answers of two judges, or of two versions of one, for the same pairs in the same order.

    Args:
        baseline, current: shape (N, 2), N >= 2, Pr[the response shown second is better] in order ab and in order ba.
        labels: shape (N,), share of votes for B, in [0, 1]; without labels there is no `brier` and no `agreement`.
        clusters: shape (N,), dependent pairs, such as those of one prompt, have equal values.
        answered: shape (2, N), whether the baseline and the current judge answered in both orders; by default all. An
            answer that is missing is given as 1/2.
        level: Chance that any metric of an unchanged judge is called worse or better, in (0, 1).

    Returns:
        Changes of `brier` (mean of both orders), `agreement` (orders averaged), `consistency` and
        `symmetry_deviation_abs`, these two of the pairs that both judges answered in both orders, and, unless all are
        answered, of `answered`, the share of the pairs that are.

    Raises:
        ValueError: unequal lengths, values outside their range, or fewer than two clusters.
    """
    orders = {"baseline": check_orders("baseline", baseline), "current": check_orders("current", current)}
    labels = None if labels is None else check_probabilities("labels", labels)
    members = np.arange(orders["baseline"].shape[1]) if clusters is None else cluster_numbers(clusters)
    check_equal_lengths(baseline=orders["baseline"].T, current=orders["current"].T, labels=labels, clusters=members)
    check_share("level", level)
    if members.max() < 1:
        raise ValueError("all pairs are of a single cluster; expected at least two")
    every = np.ones(members.size)
    answered = np.stack([every, every]) if answered is None else np.asarray(answered, float).reshape(2, members.size)
    both = answered.prod(axis=0)
    counted = {"consistency": both, "symmetry_deviation_abs": both}
    if labels is not None:
        counted["agreement"] = agreement_credits(labels, labels)[1]
    columns = [_per_pair(*orders[side], labels) for side in ("baseline", "current")]
    if not answered.all():
        columns = [column | {"answered": share} for column, share in zip(columns, answered, strict=True)]
    tests = {}
    for metric in columns[0]:
        weights = counted.get(metric, every)
        if np.count_nonzero(np.bincount(members, weights)) >= 2:
            tests[metric] = _Test.of(columns[0][metric], columns[1][metric], weights, members)
    p_values = dict(zip(tests, holm([test.p_value for test in tests.values()]), strict=True))
    return [test.result(metric, p_values[metric], level, len(tests)) for metric, test in tests.items()]


def gate_fails(changes: list[Change]) -> bool:
    """Whether any metric is worse."""
    return any(change.verdict == WORSE for change in changes)


def _per_pair(p_ab: np.ndarray, p_ba: np.ndarray, labels: np.ndarray | None) -> Mapping[str, np.ndarray]:
    columns = {}
    if labels is not None:
        columns["brier"] = (brier_scores(p_ab, labels) + brier_scores(p_ba, 1 - labels)) / 2
        columns["agreement"] = agreement_credits((p_ab + 1 - p_ba) / 2, labels)[0]
    columns["consistency"] = (verdicts(p_ab) == -verdicts(p_ba)).astype(float)
    return columns | {"symmetry_deviation_abs": np.abs(p_ab + p_ba - 1)}


@dataclass(frozen=True)
class _Test:
    values: tuple[float, float]
    error: float
    freedom: int
    n_pairs: int

    @classmethod
    def of(cls, before: np.ndarray, after: np.ndarray, weights: np.ndarray, members: np.ndarray) -> "_Test":
        total = weights.sum()
        _, error, freedom = mean_and_error(after - before, weights, members)
        return cls((float(weights @ before / total), float(weights @ after / total)), error, freedom, int(total))

    @property
    def change(self) -> float:
        return self.values[1] - self.values[0]

    @property
    def p_value(self) -> float:
        if self.error < 1e-15:  # all clusters changed alike: the chance that all random signs agree
            return 1.0 if abs(self.change) < 1e-15 else 2.0**-self.freedom
        return float(2 * stdtr(self.freedom, -abs(self.change) / self.error))

    def result(self, metric: str, p_value: float, level: float, n_metrics: int) -> Change:
        half = float(stdtrit(self.freedom, 1 - level / 2)) * self.error
        strict = stdtrit(self.freedom, 1 - level / (2 * n_metrics)) + stdtrit(self.freedom, POWER)
        is_better = (self.change > 0) == HIGHER_IS_BETTER[metric]
        return Change(
            metric=metric,
            baseline=self.values[0],
            current=self.values[1],
            change=self.change,
            low=self.change - half,
            high=self.change + half,
            p_value=p_value,
            verdict=UNCLEAR if p_value > level else BETTER if is_better else WORSE,
            detectable=float(strict) * self.error,
            n_pairs=self.n_pairs,
        )
