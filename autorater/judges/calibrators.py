"""Recalibration: a judge's answers mapped to better ones by a curve fitted on votes that it is not measured on.

    temperature       p ↦ σ(logit(p) / T), T by the log loss of every answer     Guo et al. 2017 (arXiv 1706.04599)
    odd_temperature   the same, T by the log loss of s = (logit p_ab − logit p_ba) / 2
    platt             p ↦ σ(a · logit(p) + b)                                    Platt 1999
    isotonic          p ↦ the best non-decreasing step function, interpolated    Zadrozny and Elkan 2002
    contextual        p ↦ σ(logit(p) − logit(c)), c the answer to "N/A"          Zhao et al. 2021 (arXiv 2102.09690)
    batch             p ↦ σ(logit(p) − logit(m)), m the mean of the answers      Zhou et al. 2023 (arXiv 2309.17249)

A map is applied to the answer of each order by itself: p is Pr[the response shown second is better], and the label of
order ba is 1 − y. Maps without an intercept are odd, f(1 − p) = 1 − f(p): they keep the verdict in every order, hence
consistency, and a judge that favours no slot still favours none. The intercepts of the others take out a slot bias
that is the same for all pairs. In s such a bias cancels, so `odd_temperature` measures overconfidence alone, where
`temperature` pays for the bias with a larger T; after swap averaging the two are one.

Answers reach 0 and 1, whose logits are infinite: they are clipped to [1e-3, 1 − 1e-3] first, as in the log loss
(`metrics.scores.LOG_CLIP`). T stays within [1/50, 50], where a judge that is always right, or right as often as wrong,
would have none.

Deliberately left out: which pairs to fit on. They must not be those that the judge is measured on, nor share a prompt
or a topic with them; `pairs.split_by` divides them. Applying a map needs NumPy alone; fitting `isotonic` scikit-learn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike

from autorater.data.pairs import Pair
from autorater.metrics.scores import LOG_CLIP
from autorater.metrics.validation import DECIMALS, check_equal_lengths, check_probabilities

_MAX_SLOPE = 50.0
_TOLERANCE = 1e-12
CONTENT_FREE = ("N/A", "[MASK]", "")
"""Texts without content, those of Zhao et al.: the answer to them is what a judge says before it has read anything."""


@dataclass(frozen=True)
class LogitMap:
    """p ↦ σ(slope · logit(p) + intercept).

    Attributes:
        kind: How it was fitted, one of `KINDS`.
        slope: 1/T for a temperature T; above 1 answers become more extreme.
        intercept: Logits added for the response shown second.
    """

    kind: str
    slope: float = 1.0
    intercept: float = 0.0

    def __call__(self, probabilities: np.ndarray) -> np.ndarray:
        """Answers in [0, 1], of any shape, mapped one by one."""
        return _sigmoid(self.slope * _logit(probabilities) + self.intercept)

    def __str__(self) -> str:
        slope = f"T = {1 / self.slope:.2f}" if "temperature" in self.kind else f"slope {self.slope:.2f}"
        shift = f"shift {self.intercept:+.2f}"
        return {"platt": f"{slope}, {shift}", "contextual": shift, "batch": shift}.get(self.kind, slope)


@dataclass(frozen=True)
class MonotoneMap:
    """p ↦ a non-decreasing curve through K points, straight between them and level beyond.

    Attributes:
        answers: Where it is pinned down, ascending, in [0, 1], shape (K,).
        values: What it is there, non-decreasing, in [0, 1], shape (K,).
    """

    answers: tuple[float, ...]
    values: tuple[float, ...]
    kind: str = "isotonic"

    def __call__(self, probabilities: np.ndarray) -> np.ndarray:
        """Answers in [0, 1], of any shape, mapped one by one."""
        return np.interp(probabilities, self.answers, self.values)

    def __str__(self) -> str:
        return f"{len(set(self.values))} steps"


Recalibration = LogitMap | MonotoneMap


def fit_temperature(p_ab: ArrayLike, p_ba: ArrayLike, labels: ArrayLike) -> LogitMap:
    """The temperature with the lowest log loss over the 2N answers, each order by itself.

    Args:
        p_ab: shape (N,), Pr[B better] read from order ab, in [0, 1].
        p_ba: shape (N,), Pr[A better] read from order ba, in [0, 1].
        labels: shape (N,), share of votes for B, in [0, 1].

    Raises:
        ValueError: empty input, unequal lengths, NaN, values outside [0, 1].
    """
    answers, targets = _answers_and_targets(p_ab, p_ba, labels)
    return LogitMap("temperature", _slope(_logit(answers), targets))


def fit_odd_temperature(p_ab: ArrayLike, p_ba: ArrayLike, labels: ArrayLike) -> LogitMap:
    """The temperature with the lowest log loss of the symmetrized logit (logit p_ab − logit p_ba) / 2.

    Args and errors as in `fit_temperature`.
    """
    answers, targets = _answers_and_targets(p_ab, p_ba, labels)
    logit_ab, logit_ba = np.split(_logit(answers), 2)
    return LogitMap("odd_temperature", _slope((logit_ab - logit_ba) / 2, np.split(targets, 2)[0]))


def fit_platt(p_ab: ArrayLike, p_ba: ArrayLike, labels: ArrayLike) -> LogitMap:
    """Slope and intercept with the lowest log loss over the 2N answers.

    As in Platt's paper the labels are drawn inwards, to 1/(n + 2) and (n + 1)/(n + 2) for n votes a side, which keeps
    the slope finite where the answers divide the labels without error. Args and errors as in `fit_temperature`.
    """
    answers, targets = _answers_and_targets(p_ab, p_ba, labels)
    for_second = targets.sum()  # in both orders together, half of all votes
    low, high = 1 / (targets.size - for_second + 2), (for_second + 1) / (for_second + 2)
    slope, intercept = _logistic_fit(_logit(answers), low + targets * (high - low))
    return LogitMap("platt", slope, intercept)


def fit_isotonic(p_ab: ArrayLike, p_ba: ArrayLike, labels: ArrayLike) -> MonotoneMap:
    """The non-decreasing function with the lowest squared error over the 2N answers; needs scikit-learn.

    Args and errors as in `fit_temperature`.
    """
    from sklearn.isotonic import IsotonicRegression

    answers, targets = _answers_and_targets(p_ab, p_ba, labels)
    fitted = IsotonicRegression(y_min=0, y_max=1).fit(answers.round(DECIMALS), targets)
    return MonotoneMap(tuple(fitted.X_thresholds_.tolist()), tuple(fitted.y_thresholds_.tolist()))


def fit_contextual(content_free: ArrayLike) -> LogitMap:
    """The shift that takes the mean answer to pairs without content to 1/2.

    Args:
        content_free: shape (M,), answers to `content_free_pairs`, in either order, in [0, 1].

    Raises:
        ValueError: empty input, NaN, values outside [0, 1].
    """
    mean = check_probabilities("content_free", content_free).mean()
    return LogitMap("contextual", intercept=-float(_logit(mean)))


def fit_batch(p_ab: ArrayLike, p_ba: ArrayLike) -> LogitMap:
    """The shift that takes the mean of the 2N answers to 1/2, no label needed; args as in `fit_temperature`."""
    answers, _ = _answers_and_targets(p_ab, p_ba, p_ab)
    return LogitMap("batch", intercept=-float(_logit(answers.mean())))


_WITH_LABELS = {
    "temperature": fit_temperature,
    "odd_temperature": fit_odd_temperature,
    "platt": fit_platt,
    "isotonic": fit_isotonic,
}
KINDS = (*_WITH_LABELS, "contextual", "batch")


def fit_recalibration(
    kind: str, p_ab: ArrayLike, p_ba: ArrayLike, labels: ArrayLike, content_free: ArrayLike | None = None
) -> Recalibration:
    """Fits a recalibration by its name.

    Args:
        kind: One of `KINDS`.
        p_ab, p_ba, labels: As in `fit_temperature`; of pairs on which the judge is not measured afterwards.
        content_free: As in `fit_contextual`, which alone needs them.

    Raises:
        ValueError: If the kind is unknown, the answers to content-free pairs are missing, or a value is bad.
    """
    if kind in _WITH_LABELS:
        return _WITH_LABELS[kind](p_ab, p_ba, labels)
    if kind == "batch":
        return fit_batch(p_ab, p_ba)
    if kind != "contextual":
        raise ValueError(f"unknown recalibration {kind!r}; expected one of {', '.join(KINDS)}")
    if content_free is None:
        raise ValueError("contextual calibration needs the answers to content-free pairs")
    return fit_contextual(content_free)


def content_free_pairs() -> list[Pair]:
    """Pairs whose texts say nothing, alike on both sides: any answer other than 1/2 is bias."""
    return [Pair(f"content-free-{i}", text, text, text, 0.5) for i, text in enumerate(CONTENT_FREE)]


def to_dict(recalibration: Recalibration) -> dict[str, object]:
    """As JSON holds it."""
    return asdict(recalibration)


def from_dict(saved: Mapping[str, object]) -> Recalibration:
    """What `to_dict` gave, as a map again.

    Raises:
        ValueError: If it is no recalibration; says what is wrong.
    """
    if not isinstance(saved, Mapping) or saved.get("kind") not in KINDS:
        raise ValueError(f"no recalibration: {saved!r:.200}; its 'kind' is wanted to be one of {', '.join(KINDS)}")
    columns = {"answers", "values"} if saved["kind"] == "isotonic" else {"slope", "intercept"}
    if set(saved) != {"kind", *columns}:
        raise ValueError(f"recalibration has {sorted(saved)}; expected kind, {', '.join(sorted(columns))}")
    if saved["kind"] == "isotonic":
        answers, values = (check_probabilities(column, saved[column]) for column in ("answers", "values"))
        check_equal_lengths(answers=answers, values=values)
        if (np.diff(answers) <= 0).any() or (np.diff(values) < 0).any():
            raise ValueError("isotonic recalibration: answers must ascend and values must not descend")
        return MonotoneMap(tuple(answers.tolist()), tuple(values.tolist()))
    numbers = [saved[column] for column in ("slope", "intercept")]
    if not all(isinstance(number, int | float) and np.isfinite(number) for number in numbers):
        raise ValueError(f"recalibration: slope and intercept must be finite numbers, got {numbers}")
    return LogitMap(str(saved["kind"]), *map(float, numbers))


def _answers_and_targets(p_ab: ArrayLike, p_ba: ArrayLike, labels: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Answers of both orders in one column and what they should have been, shape (2N,) each."""
    arrays = {"p_ab": p_ab, "p_ba": p_ba, "labels": labels}
    arrays = {name: check_probabilities(name, values) for name, values in arrays.items()}
    check_equal_lengths(**arrays)
    p_ab, p_ba, labels = arrays.values()
    return np.concatenate([p_ab, p_ba]), np.concatenate([labels, 1 - labels])


def _logit(probabilities: ArrayLike) -> np.ndarray:
    clipped = np.asarray(probabilities, dtype=np.float64).clip(LOG_CLIP, 1 - LOG_CLIP)
    return np.log(clipped) - np.log1p(-clipped)


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(logits / 2))


def _slope(logits: np.ndarray, targets: np.ndarray) -> float:
    """The a > 0 that minimizes the log loss of σ(a · logits): its derivative ascends in a, so it is bisected."""
    if not logits.any():
        return 1.0  # the answer 1/2 to everything is what it is at every temperature

    def derivative(slope: float) -> float:
        return float((logits * (_sigmoid(slope * logits) - targets)).mean())

    low, high = 1 / _MAX_SLOPE, _MAX_SLOPE
    while high / low > 1 + _TOLERANCE:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if derivative(middle) < 0 else (low, middle)
    return (low * high) ** 0.5


def _logistic_fit(logits: np.ndarray, targets: np.ndarray) -> tuple[float, float]:
    """Slope and intercept of σ(a · logits + b) with the lowest log loss, by Newton's method with halved steps."""
    design = np.stack([logits, np.ones_like(logits)], axis=1)  # (2N, 2)

    def loss(weights: np.ndarray) -> float:
        scores = design @ weights
        return float((np.logaddexp(0, scores) - targets * scores).mean())

    weights = np.array([1.0, 0.0])
    for _ in range(100):
        fitted = _sigmoid(design @ weights)
        gradient = design.T @ (fitted - targets) / len(targets)
        curvature = (design * (fitted * (1 - fitted))[:, None]).T @ design / len(targets)
        step = np.linalg.lstsq(curvature, gradient, rcond=None)[0]  # equal answers leave the slope open: no change
        size = 1.0
        while loss(weights - size * step) > loss(weights) and size > _TOLERANCE:
            size /= 2
        weights = weights - size * step
        if np.abs(size * step).max() < 1e-10:
            break
    return float(weights[0]), float(weights[1])
