"""Estimates over the runs of a study, with intervals.

Two kinds of 95 % interval:

    over seeds    simulated datasets, where every seed has its own texts, votes, policy and held-out pairs: Student's t
                  over one number per seed. With three seeds it is wide (t = 4.3)
    over pairs    recorded votes, where all seeds share the held-out pairs: bootstrap over pairs of the mean over
                  seeds; the variation over seeds is shown by the values of the seeds

Deliberately left out: text and plots (`tables`, `figures`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from autorater.data.errors import UserError
from autorater.metrics.intervals import Mean, bootstrap
from benchmarks.study.plan import WARM_START, Plan, Run

TEST, MEAN, RECALIBRATED = "test", "answer_mean", "answer_mean+odd_temperature"
BEFORE, VERBALIZED, LETTERS, OBJECTIVE = "before", "verbalized", "letter_logits", "objective"
_LEVEL = 0.95
_SHARES = (
    "agreement", "brier", "consistency", "ece", "excess_brier", "mse_dense", "parse_rate", "sharpness",
    "symmetry_deviation_abs",
)  # fmt: skip
"""Metrics with these prefixes are between 0 and 1, and so are their intervals."""


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds.

    Attributes:
        value: The mean.
        low, high: Its 95 % interval; NaN for a single seed.
        seeds: One number per seed.
    """

    value: float
    low: float
    high: float
    seeds: tuple[float, ...]


def over_seeds(values: Sequence[float], bounds: tuple[float, float] = (-np.inf, np.inf)) -> Estimate:
    """The mean of one number per seed with Student's interval, clipped to the bounds.

    Raises:
        UserError: If there are no values.
    """
    numbers = np.asarray(values, dtype=float)
    if numbers.size == 0:
        raise UserError("no seed has a value")
    mean, half = float(numbers.mean()), np.nan
    if numbers.size > 1:
        half = float(student.ppf((1 + _LEVEL) / 2, numbers.size - 1) * numbers.std(ddof=1) / numbers.size**0.5)
    return Estimate(mean, *np.clip([mean - half, mean + half], *bounds).tolist(), tuple(numbers.tolist()))


@dataclass(frozen=True)
class Results:
    """The recorded runs of a plan.

    Args:
        plan: The study.
        runs: Results by run.
    """

    plan: Plan
    runs: Mapping[Run, dict]

    def of(self, dataset: str, method: str) -> list[dict]:
        """The results of a method on a dataset, by seed."""
        found = [(c.seed, result) for c, result in self.runs.items() if (c.dataset, c.method) == (dataset, method)]
        return [result for _, result in sorted(found, key=lambda pair: pair[0])]

    def has(self, dataset: str, method: str, test: str = TEST) -> bool:
        """Whether a method was measured on a test of a dataset."""
        return any(test in tests for result in self.of(dataset, method) for tests in result["predictions"].values())

    def title(self, method: str) -> str:
        """Title of a method."""
        return "warm start, not trained" if method == WARM_START else self.plan.methods[method].title

    def methods(self, dataset: str) -> list[str]:
        """The warm start and all trained methods of a dataset."""
        trained = [n for n, m in self.plan.methods.items() if dataset in m.datasets and m.trainer != "text"]
        return [WARM_START, *trained]

    def estimate(
        self, dataset: str, method: str, key: str, test: str = TEST, prediction: str = MEAN
    ) -> Estimate | None:
        """A metric over the seeds; None if a seed lacks it."""
        metrics = [
            result["predictions"].get(prediction, {}).get(test, {}).get("metrics")
            for result in self.of(dataset, method)
        ]
        if not metrics or any(m is None or key not in m for m in metrics):
            return None
        return over_seeds([m[key] for m in metrics], (0, 1) if key.startswith(_SHARES) else (-np.inf, np.inf))

    def figure(self, dataset: str, method: str, name: str) -> Estimate | None:
        """A number of the run itself (`training_seconds`, …) over the seeds."""
        values = [result[name] for result in self.of(dataset, method) if name in result]
        return over_seeds(values) if values else None

    def answers(
        self, dataset: str, method: str, test: str = TEST, prediction: str = MEAN
    ) -> list[tuple[np.ndarray, ...]]:
        """By seed: `p_ab`, `p_ba`, labels and p* (NaN where unknown), shape (N,) each."""
        columns = []
        starts = self.of(dataset, WARM_START)
        for result, start in zip(self.of(dataset, method), starts, strict=True):
            predicted, known = result["predictions"][prediction][test], start["pairs"][test]
            truth = known["true_probability"] or [np.nan] * len(known["label"])
            columns.append(
                tuple(np.array(c, dtype=float) for c in (predicted["p_ab"], predicted["p_ba"], known["label"], truth))
            )
        return columns

    def mean_over_pairs(
        self,
        dataset: str,
        method: str,
        of_pair: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
        prediction: str = MEAN,
    ) -> Estimate:
        """A mean over the pairs that all seeds share, with its bootstrap interval over pairs.

        Args:
            dataset, method, prediction: As in `estimate`.
            of_pair: Maps `p_ab`, `p_ba` and labels to one number per pair.
        """
        by_seed = np.stack(
            [of_pair(p_ab, p_ba, label) for p_ab, p_ba, label, _ in self.answers(dataset, method, TEST, prediction)]
        )
        pairs = by_seed.mean(axis=0)
        ends = bootstrap({"it": Mean(pairs)}, n_rounds=2000)
        return Estimate(float(pairs.mean()), ends["it_low"], ends["it_high"], tuple(by_seed.mean(axis=1).tolist()))


@dataclass(frozen=True)
class Reached:
    """The first point of a learning curve that meets a target, or its end.

    Attributes:
        reached: Whether the target was met.
        step, seconds, tokens: At that point.
    """

    reached: bool
    step: int
    seconds: float
    tokens: int


def first_below(learning_curve: Sequence[Mapping[str, float]], key: str, target: float) -> Reached:
    """The first evaluation at which a metric is at most `target`.

    Raises:
        UserError: If there was no evaluation during training.
    """
    if not learning_curve:
        raise UserError("no evaluation during training; set curve_steps")
    met = next((point for point in learning_curve if point[key] <= target), None)
    there = met or learning_curve[-1]
    return Reached(met is not None, there["step"], there["seconds"], there["tokens"])


def sparse_pairs_needed(n_pairs: Sequence[float], scores: Sequence[float], score: float) -> tuple[float, str]:
    """Number of pairs with one vote each that reaches a score, interpolated over log(pairs).

    Args:
        n_pairs: Numbers of pairs with one vote each, ascending.
        scores: Their scores; lower is better.
        score: The score to match.

    Returns:
        The number of pairs, and `<` or `>` if it is outside the measured range (then it is the nearest end).
    """
    scores = np.minimum.accumulate(np.asarray(scores, dtype=float))  # more votes do not hurt, up to noise
    if score > scores[0]:
        return float(n_pairs[0]), "<"
    if score < scores[-1]:
        return float(n_pairs[-1]), ">"
    x = np.interp(-score, -scores, np.log(n_pairs))
    return float(np.exp(x)), ""
