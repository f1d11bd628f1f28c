"""What the cells of a study add up to: estimates with intervals, computed from what was recorded and nothing else.

Two kinds of interval, 95 % each:

    over seeds    simulated grounds, where every seed has its own texts, votes, policy and held-out pairs: Student's t
                  on one number a seed. With three seeds it is wide (t = 4.3)
    over pairs    recorded votes, where all seeds share the held-out pairs: the bootstrap over pairs of what the seeds
                  have on average; what another seed would change is in the seeds' own numbers, kept beside it

Deliberately left out: words and pictures (`tables`, `figures`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from autorater.metrics.intervals import Mean, bootstrap
from benchmarks.study.plan import WARM_START, Cell, Plan

TEST, MEAN, RECALIBRATED = "test", "answer_mean", "answer_mean+odd_temperature"
_LEVEL = 0.95
_SHARES = (
    "agreement", "brier", "consistency", "ece", "excess_brier", "mse_dense", "parse_rate", "sharpness",
    "symmetry_deviation_abs",
)  # fmt: skip
"""Metrics that begin so are between 0 and 1, and so are their intervals."""


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds.

    Attributes:
        value: The mean.
        low, high: Its 95 % interval; NaN of a single seed.
        seeds: One number a seed.
    """

    value: float
    low: float
    high: float
    seeds: tuple[float, ...]


def over_seeds(values: Sequence[float], bounds: tuple[float, float] = (-np.inf, np.inf)) -> Estimate:
    """The mean of one number a seed, with Student's interval as far as it is within the bounds.

    Raises:
        ValueError: If there is none.
    """
    numbers = np.asarray(values, dtype=float)
    if numbers.size == 0:
        raise ValueError("no seed has this figure")
    mean, half = float(numbers.mean()), np.nan
    if numbers.size > 1:
        half = float(student.ppf((1 + _LEVEL) / 2, numbers.size - 1) * numbers.std(ddof=1) / numbers.size**0.5)
    return Estimate(mean, *np.clip([mean - half, mean + half], *bounds).tolist(), tuple(numbers.tolist()))


@dataclass(frozen=True)
class Results:
    """The recorded cells of a plan.

    Args:
        plan: The study.
        cells: The results of its cells.
    """

    plan: Plan
    cells: Mapping[Cell, dict]

    def of(self, ground: str, method: str) -> list[dict]:
        """The results of a method on a ground, by seed."""
        found = [(c.seed, result) for c, result in self.cells.items() if (c.ground, c.method) == (ground, method)]
        return [result for _, result in sorted(found, key=lambda pair: pair[0])]

    def has(self, ground: str, method: str, test: str = TEST) -> bool:
        """Whether a method was measured on a test of a ground."""
        return any(test in reading for result in self.of(ground, method) for reading in result["readings"].values())

    def title(self, method: str) -> str:
        """Of a method."""
        return "warm start, not trained" if method == WARM_START else self.plan.methods[method].title

    def methods(self, ground: str) -> list[str]:
        """The warm start and all trained methods of a ground."""
        trained = [n for n, m in self.plan.methods.items() if ground in m.grounds and m.trainer != "text"]
        return [WARM_START, *trained]

    def estimate(self, ground: str, method: str, key: str, test: str = TEST, reading: str = MEAN) -> Estimate | None:
        """A metric over the seeds; None where a seed does not have it."""
        metrics = [
            result["readings"].get(reading, {}).get(test, {}).get("metrics") for result in self.of(ground, method)
        ]
        if not metrics or any(m is None or key not in m for m in metrics):
            return None
        return over_seeds([m[key] for m in metrics], (0, 1) if key.startswith(_SHARES) else (-np.inf, np.inf))

    def figure(self, ground: str, method: str, name: str) -> Estimate | None:
        """A number of the cell itself (`training_seconds`, …) over the seeds."""
        values = [result[name] for result in self.of(ground, method) if name in result]
        return over_seeds(values) if values else None

    def answers(self, ground: str, method: str, test: str = TEST, reading: str = MEAN) -> list[tuple[np.ndarray, ...]]:
        """By seed: `p_ab`, `p_ba`, labels and p* (NaN where it is not known), shape (N,) each."""
        columns = []
        starts = self.of(ground, WARM_START)
        for result, start in zip(self.of(ground, method), starts, strict=True):
            said, known = result["readings"][reading][test], start["pairs"][test]
            truth = known["true_probability"] or [np.nan] * len(known["label"])
            columns.append(
                tuple(np.array(c, dtype=float) for c in (said["p_ab"], said["p_ba"], known["label"], truth))
            )
        return columns

    def mean_over_pairs(
        self,
        ground: str,
        method: str,
        of_pair: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
        reading: str = MEAN,
        n_bootstrap: int = 2000,
    ) -> Estimate:
        """A mean over the pairs that all seeds share, with its bootstrap interval over pairs.

        Args:
            ground, method, reading: As in `estimate`.
            of_pair: `p_ab`, `p_ba` and labels, to one number a pair.
            n_bootstrap: Rounds.
        """
        by_seed = np.stack(
            [of_pair(p_ab, p_ba, label) for p_ab, p_ba, label, _ in self.answers(ground, method, TEST, reading)]
        )
        pairs = by_seed.mean(axis=0)
        ends = bootstrap({"it": Mean(pairs)}, n_bootstrap)
        return Estimate(float(pairs.mean()), ends["it_low"], ends["it_high"], tuple(by_seed.mean(axis=1).tolist()))


@dataclass(frozen=True)
class Reached:
    """The first point of a course at which a target was met, or its end.

    Attributes:
        reached: Whether it was.
        step, seconds, tokens: There.
    """

    reached: bool
    step: int
    seconds: float
    tokens: int


def first_below(course: Sequence[Mapping[str, float]], key: str, target: float) -> Reached:
    """Where a metric was first at most `target`, among the points where it was measured.

    Raises:
        ValueError: If nothing was measured.
    """
    if not course:
        raise ValueError("nothing was measured while training; set curve_steps")
    met = next((point for point in course if point[key] <= target), None)
    there = met or course[-1]
    return Reached(met is not None, there["step"], there["seconds"], there["tokens"])


def sparse_pairs_needed(n_pairs: Sequence[float], scores: Sequence[float], score: float) -> tuple[float, str]:
    """How many single votes, one a pair, give a score: on a line through the measured ones over log(pairs).

    Args:
        n_pairs: Numbers of pairs with one vote each, ascending.
        scores: What each gave; lower is better.
        score: What is to be matched.

    Returns:
        The number of pairs, and `<` or `>` where it is beyond the measured ones (then it is the outermost of them).
    """
    scores = np.minimum.accumulate(np.asarray(scores, dtype=float))  # more votes do not hurt; noise may say so
    if score > scores[0]:
        return float(n_pairs[0]), "<"
    if score < scores[-1]:
        return float(n_pairs[-1]), ">"
    x = np.interp(-score, -scores, np.log(n_pairs))
    return float(np.exp(x)), ""
