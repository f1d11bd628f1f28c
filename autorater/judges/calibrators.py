"""Recalibration: a judge's answers mapped by a curve that was fitted on votes it is not evaluated on.

    temperature       p ↦ σ(logit(p) / T), T by the log loss of every answer     Guo et al. 2017 (arXiv 1706.04599)
    odd_temperature   the same, T by the log loss of s = (logit p_ab − logit p_ba) / 2
    platt             p ↦ σ(a · logit(p) + b)                                    Platt 1999
    isotonic          p ↦ the best non-decreasing step function, interpolated    Zadrozny and Elkan 2002
    contextual        p ↦ σ(logit(p) − logit(c)), c the answer to "N/A"          Zhao et al. 2021 (arXiv 2102.09690)
    batch             p ↦ σ(logit(p) − logit(m)), m the mean of the answers      Zhou et al. 2023 (arXiv 2309.17249)

A map is applied to the answer of each order separately: p is Pr[the response shown second is better], and the label of
order ba is 1 − y. Maps without an intercept are odd, f(1 − p) = 1 − f(p): they preserve verdicts and add no position
bias. An intercept removes a position bias that is the same for all pairs. In s such a bias cancels, so
`odd_temperature` measures overconfidence alone, whereas `temperature` compensates for the bias with a larger T.

Answers are clipped to [1e-3, 1 − 1e-3] (`metrics.scores.LOG_CLIP`), because the logits of 0 and 1 are infinite; T is
limited to [1/50, 50], because it has no optimum for a judge that is always right.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq, isotonic_regression, minimize, minimize_scalar
from scipy.special import expit
from scipy.stats import chi2, norm

from autorater.data.errors import UserError, counted
from autorater.data.pairs import Pair
from autorater.judges.options import RECALIBRATIONS
from autorater.metrics.scores import clipped_logit
from autorater.metrics.validation import DECIMALS, check_equal_lengths, check_probabilities

_MAX_SLOPE = 50.0
CONTENT_FREE = ("N/A", "[MASK]", "")
"""Texts without content, those of Zhao et al.: the answer to them reveals a judge's bias."""


@dataclass(frozen=True)
class LogitMap:
    """p ↦ σ(slope · logit(p) + intercept), of any shape.

    The slope is 1/T for a temperature T, above 1 answers become more extreme; the intercept is the logits added for
    the response shown second.
    """

    kind: str
    slope: float = 1.0
    intercept: float = 0.0

    def __call__(self, probabilities: np.ndarray) -> np.ndarray:
        return expit(self.slope * clipped_logit(probabilities) + self.intercept)

    def __str__(self) -> str:
        slope = f"T = {1 / self.slope:.2f}" if "temperature" in self.kind else f"slope {self.slope:.2f}"
        shift = f"shift {self.intercept:+.2f}"
        return {"platt": f"{slope}, {shift}", "contextual": shift, "batch": shift}.get(self.kind, slope)


@dataclass(frozen=True)
class MonotoneMap:
    """p ↦ a curve through K points, linear between them and constant beyond the first and last; p has any shape.

    `answers` ascend and `values` do not fall, both in [0, 1], shape (K,).
    """

    answers: tuple[float, ...]
    values: tuple[float, ...]
    kind: str = "isotonic"

    def __call__(self, probabilities: np.ndarray) -> np.ndarray:
        return np.interp(probabilities, self.answers, self.values)

    def __str__(self) -> str:
        return counted(len(set(self.values)), "step")


Recalibration = LogitMap | MonotoneMap


def fit_recalibration(
    kind: str, p_ab: ArrayLike, p_ba: ArrayLike, labels: ArrayLike, content_free: ArrayLike | None = None
) -> Recalibration:
    """Fits a recalibration to N pairs on which the judge is not evaluated.

    Args:
        kind: One of `RECALIBRATIONS`.
        p_ab, p_ba: shape (N,), Pr[the response shown second is better] in both orders, in [0, 1].
        labels: shape (N,), share of votes for B, in [0, 1].
        content_free: shape (M,), answers to `content_free_pairs`, in [0, 1]; required for `contextual` only.

    Raises:
        ValueError: unknown kind, empty or missing input, unequal lengths, NaN, values outside [0, 1].
    """
    arrays = {name: check_probabilities(name, x) for name, x in (("p_ab", p_ab), ("p_ba", p_ba), ("labels", labels))}
    check_equal_lengths(**arrays)
    p_ab, p_ba, labels = arrays.values()
    answers, targets = np.concatenate([p_ab, p_ba]), np.concatenate([labels, 1 - labels])
    if kind == "temperature":
        return LogitMap(kind, _slope(clipped_logit(answers), targets))
    if kind == "odd_temperature":
        return LogitMap(kind, _slope(odd_logits(p_ab, p_ba), labels))
    if kind == "platt":
        return LogitMap(kind, *_slope_and_intercept(clipped_logit(answers), targets))
    if kind == "isotonic":
        return _isotonic(answers.round(DECIMALS), targets)
    if kind == "contextual":
        if content_free is None:
            raise ValueError("contextual calibration requires the answers to content-free pairs")
        answers = check_probabilities("content_free", content_free)
    elif kind != "batch":
        raise ValueError(f"unknown recalibration {kind!r}; expected one of {', '.join(RECALIBRATIONS)}")
    return LogitMap(kind, intercept=-float(clipped_logit(answers.mean())))


def shrunken_temperature(
    p_ab: ArrayLike, p_ba: ArrayLike, labels: ArrayLike, n_votes: int, scale: float = 0.5
) -> LogitMap:
    """`odd_temperature` with a prior: few votes change a judge little, many as much as they say.

    The maximum a posteriori with a Cauchy prior of log T around 0. The heavy tails of the prior allow a T far from 1
    if the votes support it, as for a judge whose answers are all near 0.5.

    Args:
        p_ab, p_ba, labels: As in `fit_recalibration`.
        n_votes: The number of votes behind the N labels, at least 1.
        scale: Half of the prior has log T within this of 0; above 0.

    Raises:
        ValueError: As in `fit_recalibration`.
    """
    likeliest = fit_recalibration("odd_temperature", p_ab, p_ba, labels)
    logits, targets = odd_logits(np.asarray(p_ab), np.asarray(p_ba)), np.asarray(labels)

    def loss(log_slope: float) -> float:
        of_votes = n_votes * log_losses(np.exp(log_slope) * logits, targets).mean()
        return float(of_votes + np.log1p((log_slope / scale) ** 2))

    # between no change and the likeliest slope, where one term falls and the other rises; there may be two minima
    between = np.linspace(0.0, np.log(likeliest.slope), 101)
    best = int(np.argmin([loss(log_slope) for log_slope in between]))
    around = sorted((between[max(best - 1, 0)], between[min(best + 1, 100)]))
    found = minimize_scalar(loss, bounds=around, method="bounded", options={"xatol": 1e-10})
    return LogitMap(likeliest.kind, float(np.exp(found.x)))


def temperature_interval(
    p_ab: ArrayLike, p_ba: ArrayLike, votes: ArrayLike, level: float = 0.95
) -> tuple[float, float]:
    """Likelihood-ratio interval of the T of `odd_temperature`, from one vote for each of N pairs.

    Args:
        p_ab, p_ba, votes: As in `fit_recalibration`, each label a single vote, shape (N,).
        level: Confidence, in (0, 1).

    Returns:
        The lower and the upper end, in [1/50, 50].
    """
    logits, targets = odd_logits(np.asarray(p_ab), np.asarray(p_ba)), np.asarray(votes)

    def log_loss(slope: float) -> float:
        return float(log_losses(slope * logits, targets).sum())

    best = _slope(logits, targets)
    allowed = log_loss(best) + chi2.ppf(level, df=1) / 2
    ends = [
        end if log_loss(end) <= allowed else brentq(lambda slope: log_loss(slope) - allowed, best, end)
        for end in (1 / _MAX_SLOPE, _MAX_SLOPE)
    ]
    return 1 / ends[1], 1 / ends[0]


def fit_shift(slope: float, p_ab: ArrayLike, p_ba: ArrayLike) -> float:
    """The b with the lowest log loss of σ(slope · logit(p) + b) over the answers to both orders of N pairs.

    It is the same for all labels, because those of the two orders add up to 1: the derivative is the mean of
    f(p_ab) + f(p_ba) − 1, and b makes this position bias 0. So votes add no noise to it.

    Args:
        slope: The slope of the map, above 0.
        p_ab, p_ba: As in `fit_recalibration`.
    """
    logits = slope * np.concatenate([clipped_logit(p_ab), clipped_logit(p_ba)])
    end = np.abs(logits).max()
    return brentq(lambda shift: expit(logits + shift).mean() - 0.5, -end, end, xtol=1e-12) if end else 0.0


def shift_interval(fitted: LogitMap, p_ab: ArrayLike, p_ba: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Normal interval of the intercept that `fit_shift` finds; it is wide if the bias differs much between pairs.

    Args:
        fitted: A map with this intercept; its slope counts as known.
        p_ab, p_ba: The answers to N pairs that it was fitted to, as in `fit_recalibration`.
        level: Confidence, in (0, 1).
    """
    mapped = np.stack([fitted(np.asarray(p_ab)), fitted(np.asarray(p_ba))])
    error = np.sqrt(((mapped.sum(axis=0) - 1) ** 2).sum()) / (mapped * (1 - mapped)).sum()  # Huber's sandwich
    reach = norm.ppf((1 + level) / 2) * float(error)
    return fitted.intercept - reach, fitted.intercept + reach


def _isotonic(answers: np.ndarray, targets: np.ndarray) -> MonotoneMap:
    """The non-decreasing step function with the least squared error, linear between the ends of its steps."""
    points, members, counts = np.unique(answers, return_inverse=True, return_counts=True)
    values = isotonic_regression(np.bincount(members, targets) / counts, weights=counts).x.clip(0, 1)
    same = np.abs(np.diff(values)) < 1e-12
    ends = ~(np.concatenate([[False], same]) & np.concatenate([same, [False]]))
    return MonotoneMap(tuple(points[ends].tolist()), tuple(values[ends].tolist()))


def content_free_pairs() -> list[Pair]:
    """Pairs of identical responses without content: any answer other than 1/2 is bias."""
    return [Pair(f"content-free-{i}", text, text, text, 0.5) for i, text in enumerate(CONTENT_FREE)]


def from_dict(saved: Mapping[str, object]) -> Recalibration:
    """A recalibration from its fields, as in `dataclasses.asdict`; a `UserError` says why it is none."""
    kind = saved.get("kind") if isinstance(saved, Mapping) else None
    columns = ("answers", "values") if kind == "isotonic" else ("intercept", "slope")
    if kind not in RECALIBRATIONS or set(saved) != {"kind", *columns}:
        expected = f"{columns[0]}, {columns[1]} and a kind among {', '.join(RECALIBRATIONS)}"
        raise UserError(f"no recalibration: {saved!r:.200}; expected {expected}")
    if kind != "isotonic":
        numbers = (saved["slope"], saved["intercept"])
        if not all(isinstance(number, int | float) and np.isfinite(number) for number in numbers):
            raise UserError(f"recalibration: slope and intercept must be finite numbers, got {numbers}")
        return LogitMap(kind, *map(float, numbers))
    try:
        answers, values = (check_probabilities(column, saved[column]) for column in columns)
        check_equal_lengths(answers=answers, values=values)
    except ValueError as error:
        raise UserError(f"isotonic recalibration: {error}") from None
    if (np.diff(answers) <= 0).any() or (np.diff(values) < 0).any():
        raise UserError("isotonic recalibration: expected ascending answers and non-decreasing values")
    return MonotoneMap(tuple(answers.tolist()), tuple(values.tolist()))


def odd_logits(p_ab: np.ndarray, p_ba: np.ndarray) -> np.ndarray:
    """The logits of both orders averaged, in which a position bias that is the same for all pairs cancels."""
    return (clipped_logit(p_ab) - clipped_logit(p_ba)) / 2


def log_losses(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Log loss of every σ(logit)."""
    return np.logaddexp(0, logits) - targets * logits


def _slope(logits: np.ndarray, targets: np.ndarray) -> float:
    """The a > 0 that minimizes the log loss of σ(a · logits): the root of its derivative, which increases with a."""
    if not logits.any():
        return 1.0  # the temperature has no effect on the answer 1/2

    def derivative(slope: float) -> float:
        value = (logits * (expit(slope * logits) - targets)).mean()
        return float(value + np.finfo(float).eps)  # stops where the loss of a judge that is always right is level

    low, high = 1 / _MAX_SLOPE, _MAX_SLOPE
    if derivative(low) >= 0:
        return low
    return high if derivative(high) <= 0 else brentq(derivative, low, high, xtol=1e-12)


def _slope_and_intercept(logits: np.ndarray, targets: np.ndarray) -> list[float]:
    """The weights with the lowest log loss of σ(a · logits + b), a > 0: a falling map would turn verdicts around.

    As in Platt's paper the labels 0 and 1 become 1/(n + 2) and (n + 1)/(n + 2) for n votes per side, which keeps the
    slope finite.
    """
    for_second = targets.sum()  # in both orders together, half of all votes
    low, high = 1 / (targets.size - for_second + 2), (for_second + 1) / (for_second + 2)
    targets = low + targets * (high - low)

    def loss_and_gradient(weights: np.ndarray) -> tuple[float, np.ndarray]:
        scores = weights[0] * logits + weights[1]
        errors = expit(scores) - targets
        gradient = np.array([(errors * logits).mean(), errors.mean()])
        return log_losses(scores, targets).mean(), gradient

    precise = {"jac": True, "method": "BFGS", "options": {"gtol": 1e-10}}
    slope, intercept = minimize(loss_and_gradient, [1.0, 0.0], **precise).x.tolist()
    if slope >= 1 / _MAX_SLOPE:
        return [slope, intercept]

    def at_least_slope(intercept: np.ndarray) -> tuple[float, np.ndarray]:
        loss, gradient = loss_and_gradient(np.array([1 / _MAX_SLOPE, intercept[0]]))
        return loss, gradient[1:]

    return [1 / _MAX_SLOPE, float(minimize(at_least_slope, [0.0], **precise).x[0])]
