"""Reward functions for GRPO: parse each completion once and score its answer against the label of its row.

    trl grpo --reward_funcs rewards.brier_reward …
    GRPOTrainer(reward_funcs=[LogReward(epsilon=0.01)], …)

An unparsed answer gets the worst reward of a parsed one, so that the format is learned from the same signal as the
probability. It never gets ``None`` or NaN, which mean "not scored" to TRL and would remove the penalty.

Each reward also provides ``score`` and ``invalid_score`` on arrays, for sums over all answers. Instances hold only
numbers: they can be pickled, copied and compared. TRL logs them under their ``__name__``.

Train with ``scale_rewards="none"``: TRL's default divides by the group's standard deviation, which turns every rule
here into majority voting (arXiv 2508.11800).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rewards import scoring
from rewards.answer import (
    CLASS_OPEN_TAG,
    OPEN_TAG,
    completion_text,
    is_prefilled,
    parse_distribution,
    parse_probability,
)


class Reward(ABC):
    """Base class of rewards: parses completions, checks labels, logs.

    Its methods are for answers that are one probability; a subclass with other answers overrides them all. A subclass
    sets ``__name__``, under which TRL logs its instances.
    """

    __name__: str
    open_tag: ClassVar[str] = OPEN_TAG

    @abstractmethod
    def score(self, p: ArrayLike, y: ArrayLike) -> NDArray[np.float64]:
        """Reward of valid answers p in [0, 1] for labels y in [0, 1], of the shape to which they broadcast."""

    def invalid_score(self, y: ArrayLike) -> NDArray[np.float64]:
        """Reward of an unparsed answer, of the shape of ``y``; no valid answer with the same label gets less."""
        return np.zeros(np.shape(y))

    def parse(self, text: str, prefilled: bool) -> Any | None:
        """The answer of a completion, or ``None``."""
        return parse_probability(text, prefilled=prefilled)

    def check_label(self, value: Any) -> Any:
        """The label as a number in [0, 1]; a ``ValueError`` that says what is expected if it is not one."""
        try:
            label = float(value)
        except (TypeError, ValueError):
            label = float("nan")
        if isinstance(value, str) or not 0.0 <= label <= 1.0:
            raise ValueError("a number in [0, 1], the probability that response B is preferred")
        return label

    def __call__(
        self,
        *,
        completions: Sequence,
        prompts: Sequence | None = None,
        label: Sequence | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        log_extra: Callable[[str, list], None] | None = None,
        **columns: Any,
    ) -> list[float]:
        """Score a batch, with the signature of a reward function of ``trl.GRPOTrainer``.

        Args:
            completions: Texts or lists of chat messages.
            prompts: The same, one per completion; they show whether the answer was prefilled.
            label: One label per completion.
            log_metric: TRL's hook for scalars: ``answers/parse_rate``, ``answers/distinct_answers``,
                ``answers/parsed_reward`` (mean reward of the parsed answers) and, for answers that are one
                probability, ``answers/fraction_at_0`` and ``answers/fraction_at_1`` (of all completions).
            log_extra: TRL's hook for columns of the completions table: the answer and the label, with the reward's
                name as prefix, because TRL would append equally named columns of two rewards.
            **columns: All else TRL passes; ignored.

        Returns:
            One finite reward per completion.

        Raises:
            ValueError: If there is no ``label`` column, lengths differ, or a label is invalid; names row and value.
        """
        labels = self._checked_labels(label, len(completions))
        prefilled = self._prefilled(prompts, len(completions))
        if not labels:
            return []
        answers = [
            self.parse(completion_text(completion), filled)
            for completion, filled in zip(completions, prefilled, strict=True)
        ]
        valid = np.array([answer is not None for answer in answers])
        y = np.asarray(labels, dtype=np.float64)
        rewards = self.invalid_score(y)
        if valid.any():
            rewards[valid] = self.score([answer for answer in answers if answer is not None], y[valid])
        if log_metric is not None:
            for name, value in self._summary(answers).items():
                log_metric(f"answers/{name}", value)
            if valid.any():
                log_metric("answers/parsed_reward", float(rewards[valid].mean()))
        if log_extra is not None:
            log_extra(f"{self.__name__}/answer", answers)
            log_extra(f"{self.__name__}/label", labels)
        return rewards.tolist()

    def _checked_labels(self, label: Sequence | None, n_rows: int) -> list:
        if label is None:
            raise ValueError(f"{self.__name__} requires a 'label' column in the dataset, but there is none")
        if len(label) != n_rows:
            raise ValueError(f"{self.__name__} got {n_rows} completions and {len(label)} values of 'label'")
        checked = []
        for row, value in enumerate(label):
            try:
                checked.append(self.check_label(value))
            except ValueError as expected:
                raise ValueError(f"row {row}, column 'label': got {value!r}, expected {expected}") from None
        return checked

    def _prefilled(self, prompts: Sequence | None, n_rows: int) -> list[bool]:
        if prompts is None:
            return [False] * n_rows
        if len(prompts) != n_rows:
            raise ValueError(f"{self.__name__} got {n_rows} completions and {len(prompts)} prompts")
        return [is_prefilled(prompt, self.open_tag) for prompt in prompts]

    def _summary(self, answers: list) -> dict[str, float]:
        valid = [answer for answer in answers if answer is not None]
        return {
            "parse_rate": len(valid) / len(answers),
            "distinct_answers": float(len(set(valid))),
            "fraction_at_0": valid.count(0.0) / len(answers),
            "fraction_at_1": valid.count(1.0) / len(answers),
        }


@dataclass(frozen=True)
class VotesReward(Reward):
    """The mean of a reward over the single votes behind a vote share y: (1 − y) S(p, 0) + y S(p, 1).

    For a rule that is linear in the label (Brier up to a constant, log, spherical) its gradient is that of S(p, y).

    Example:
        >>> VotesReward(BrierReward()).score(0.75, 0.75)  # three of four votes
        np.float64(0.8125)
    """

    reward: Reward

    @property
    def __name__(self) -> str:
        return self.reward.__name__

    @property
    def epsilon(self) -> float:
        """The clip of its reward; 0 for one that does not clip."""
        return getattr(self.reward, "epsilon", 0.0)

    def score(self, p: ArrayLike, y: ArrayLike) -> NDArray[np.float64]:
        y = np.asarray(y, dtype=np.float64)
        return (1 - y) * self.reward.score(p, np.zeros_like(y)) + y * self.reward.score(p, np.ones_like(y))

    def invalid_score(self, y: ArrayLike) -> NDArray[np.float64]:
        y = np.asarray(y, dtype=np.float64)
        return (1 - y) * self.reward.invalid_score(np.zeros_like(y)) + y * self.reward.invalid_score(np.ones_like(y))


@dataclass(frozen=True)
class BrierReward(Reward):
    """1 − (p − y)², in [0, 1]; 0 for an invalid answer. See :func:`rewards.scoring.brier`.

    Example:
        >>> BrierReward()(completions=["<prob_rb_better>0.5</prob_rb_better>", "B, surely"], label=[1.0, 1.0])
        [0.75, 0.0]
    """

    __name__ = "brier_reward"
    score = staticmethod(scoring.brier)


@dataclass(frozen=True)
class SphericalReward(Reward):
    """Spherical score, in [0, 1]; 0 for an invalid answer. See :func:`rewards.scoring.spherical`."""

    __name__ = "spherical_reward"
    score = staticmethod(scoring.spherical)


@dataclass(frozen=True)
class LogReward(Reward):
    """Logarithmic score, in [log ε, log(1 − ε)]; log ε for an invalid answer. See :func:`rewards.scoring.logarithmic`.

    ``epsilon`` clips the answer; a ``ValueError`` if it is outside (0, 0.5).
    """

    epsilon: float = 1e-3
    __name__ = "log_reward"

    def __post_init__(self) -> None:
        if not 0.0 < self.epsilon < 0.5:
            raise ValueError(f"epsilon must be in (0, 0.5), got {self.epsilon!r}")

    def score(self, p: ArrayLike, y: ArrayLike) -> NDArray[np.float64]:
        return scoring.logarithmic(p, y, self.epsilon)

    def invalid_score(self, y: ArrayLike) -> NDArray[np.float64]:
        return np.full(np.shape(y), np.log(self.epsilon))


@dataclass(frozen=True)
class KLReward(LogReward):
    """−KL(Bern(y) ‖ Bern(p′)), in [log ε, 0], for dense labels. See :func:`rewards.scoring.kullback_leibler`.

    An invalid answer gets the reward of the worse of the answers 0 and 1 for the same label: the divergence is convex
    in the answer, so no valid answer gets less.
    """

    __name__ = "kl_reward"

    def score(self, p: ArrayLike, y: ArrayLike) -> NDArray[np.float64]:
        return scoring.kullback_leibler(p, y, self.epsilon)

    def invalid_score(self, y: ArrayLike) -> NDArray[np.float64]:
        return np.minimum(self.score(0.0, y), self.score(1.0, y))


@dataclass(frozen=True)
class RankedProbabilityReward(Reward):
    """Ranked probability score over ordered classes, in [0, 1]; 0 for an invalid answer.

    The answer is a distribution (:func:`rewards.answer.parse_distribution`) over ``n_classes`` >= 2 classes, such as 3
    for A / tie / B; a label is the observed class, counted from 0, or one vote count or vote share for each class. See
    :func:`rewards.scoring.ranked_probability`.
    """

    n_classes: int
    __name__ = "ranked_probability_reward"
    open_tag: ClassVar[str] = CLASS_OPEN_TAG

    def __post_init__(self) -> None:
        if self.n_classes < 2:
            raise ValueError(f"n_classes must be at least 2, got {self.n_classes!r}")

    def score(self, p: ArrayLike, y: ArrayLike) -> NDArray[np.float64]:
        """Reward of distributions p for one class or for distributions or vote counts y, shape (…, K) each."""
        return scoring.ranked_probability(p, y)

    def invalid_score(self, y: ArrayLike) -> NDArray[np.float64]:
        """0, of the leading shape of ``y``."""
        return np.zeros(np.shape(y)[:-1])

    def parse(self, text: str, prefilled: bool) -> tuple[float, ...] | None:
        return parse_distribution(text, self.n_classes, prefilled=prefilled)

    def check_label(self, value: Any) -> list[float]:
        """The label as a distribution; a ``ValueError`` if it is neither a class nor one number of votes per class."""
        expected = f"a class from 0 to {self.n_classes - 1}, or {self.n_classes} votes, not negative and not all 0"
        try:
            label = np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError):
            raise ValueError(expected) from None
        if not isinstance(value, str) and label.ndim == 0 and label in range(self.n_classes):
            return scoring.class_indicator(int(label), self.n_classes).tolist()
        if label.shape != (self.n_classes,) or not (label >= 0).all() or not 0 < label.sum() < np.inf:
            raise ValueError(expected)
        return (label / label.sum()).tolist()

    def _summary(self, answers: list) -> dict[str, float]:
        summary = super()._summary(answers)
        return {name: summary[name] for name in ("parse_rate", "distinct_answers")}


brier_reward = BrierReward()
log_reward = LogReward()
spherical_reward = SphericalReward()
kl_reward = KLReward()
