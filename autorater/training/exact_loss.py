"""The loss of exact answers: the expected reward summed over the answer grid.

    V(x) = Σ_k π(k|x) S(k, y) + (1 − Σ_k π(k|x)) S_invalid          expected reward
    loss = mean over prompts of  − V / σ − entropy_coef · H(π) + beta · KL(π ‖ π_ref)
           + symmetry_coef · mean over pairs of (E[p_ab] + E[p_ba] − 1)²
           − closing_coef · mean over prompts of (Σ_k π(k|x), constant) · log π(rest of the closing tag | x, k')

∇V is the limit of GRPO's sampled gradient for infinitely many answers with the mean as baseline. Nothing is clipped,
since no old sample is reused. σ is 1. For the ablation `scale_rewards="group"` it is the deviation of the reward under
π (constant), the limit of GRPO's division by the group's deviation: with Brier's rule and a 0/1 label the update is
then proportional to 2 p* − 1 instead of p* − p (arXiv 2508.11800).

For a judge used only by its mean, V can be the score of the mean, (Σ_k π_k) S(E[k], y) + … . It does not constrain the
spread of the answers: their mean is calibrated, single answers need not be. The two objectives must not be mixed.

V includes the answer up to the first token of the closing tag. The last term keeps the rest of the tag and the end of
the text likely after an answer k', which alternates over the grid. Without it the exact distribution is unaffected,
but generated answers stop parsing.

Deliberately left out: importance ratios and clipping (`num_iterations > 1` takes several exact steps on a batch).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from autorater.metrics.validation import LEAST_VALID
from autorater.models.answers import AnswerTree
from autorater.models.distribution import AnswerDistribution
from autorater.training.faults import finite_values
from rewards.functions import Reward

_HALF_WIDTH = 1e-6  # of the central difference: exact up to rounding for Brier's rule, 1e-6 relative for the others


@dataclass(frozen=True)
class WeightedReward:
    """A weighted sum of rewards of `rewards/`, as tensors."""

    rewards: Sequence[Reward]
    weights: Sequence[float]

    def of_grid(self, values: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Reward of K answers to B prompts, shape (B, K)."""
        p = values.cpu().double().numpy()[None]  # an Apple GPU has no double precision
        return self._sum(labels[:, None], lambda reward, y: reward.score(p, y))

    def of_invalid(self, labels: torch.Tensor) -> torch.Tensor:
        """Reward of an unparsed answer to B prompts, shape (B,)."""
        return self._sum(labels, lambda reward, y: np.broadcast_to(reward.invalid_score(y), y.shape))

    def of_mean(self, mean: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Reward of the expected answers of B prompts, shape (B,). Gradients flow into `mean`.

        A rule that clips p is level beyond its clip; the slope there is that at the clip, so that an answer which is
        sure and wrong is corrected too.
        """
        p = mean.detach().cpu().double().clamp(0, 1).numpy()

        def slope(reward: Reward, y: np.ndarray) -> np.ndarray:
            clip = getattr(reward, "epsilon", 0.0) + _HALF_WIDTH
            inside = p.clip(clip, 1 - clip)
            low, high = inside - _HALF_WIDTH, inside + _HALF_WIDTH
            return (reward.score(high, y) - reward.score(low, y)) / (high - low)

        score = self._sum(labels, lambda reward, y: reward.score(p, y))
        return score + self._sum(labels, slope) * (mean - mean.detach())

    def _sum(self, labels: torch.Tensor, part: Callable[[Reward, np.ndarray], np.ndarray]) -> torch.Tensor:
        y = labels.cpu().double().numpy()
        total = sum(w * finite_values(part, reward, y) for w, reward in zip(self.weights, self.rewards, strict=True))
        return torch.as_tensor(total, dtype=labels.dtype, device=labels.device)


@dataclass(frozen=True)
class ExactLoss:
    """Reward and weights of the terms; see the module's formula.

    Args:
        coupled: Prompts 2 i and 2 i + 1 are the orders ab and ba of one pair; required by `symmetry_coef`.
        of_mean: Reward the mean of the answers instead of each of them.
        closing_coef: Weight of the closing tag. It costs nothing once the tag is likely, so it need not be small.
    """

    reward: WeightedReward
    coupled: bool = True
    of_mean: bool = False
    entropy_coef: float = 0.0
    beta: float = 0.0
    symmetry_coef: float = 0.0
    closing_coef: float = 0.1
    scale_by_deviation: bool = False

    def closing(self, tree: AnswerTree, step: int) -> int | None:
        """Index of the answer after which a step evaluates the closing tag; alternates over all answers."""
        return step % len(tree.strings) if self.closing_coef else None

    def __call__(
        self, answers: AnswerDistribution, labels: torch.Tensor, reference_probs: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss (a scalar) and detached values per prompt or pair to log, by name.

        Args:
            answers: Distributions of B prompts.
            labels: Their labels, shape (B,).
            reference_probs: Distribution of the reference model, shape (B, K); required if `beta` is not 0.
        """
        value, deviation = self.value(answers, labels)
        entropy = answers.entropy
        gain = value / (deviation + 1e-4) if self.scale_by_deviation else value
        loss = -gain.mean() - self.entropy_coef * entropy.mean()
        log = {"reward": value, "reward_std": deviation, "entropy": entropy, "answers/parse_rate": answers.valid}
        unparsed = answers.outside * self.reward.of_invalid(labels)
        log["answers/parsed_reward"] = (value - unparsed) / answers.valid.clamp_min(LEAST_VALID)
        if self.beta:
            kl = _kl(answers.probs, answers.outside, reference_probs)
            loss = loss + self.beta * kl.mean()
            log["kl"] = kl
        if answers.closing is not None:
            answered = answers.valid.detach()
            loss = loss - self.closing_coef * (answered * answers.closing).mean()
            log["answers/closing_tag_rate"] = answered * answers.closing.exp()
        if self.coupled:
            mean = answers.mean
            symmetry_deviation = mean[0::2] + mean[1::2] - 1
            loss = loss + self.symmetry_coef * (symmetry_deviation**2).mean()
            log["answers/symmetry_deviation_abs"] = symmetry_deviation.abs()
        log["answers/spread"] = answers.spread
        return loss, {name: values.detach() for name, values in log.items()}

    def value(self, answers: AnswerDistribution, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """V of every prompt, differentiable, and the standard deviation of the reward, constant: shape (B,) each."""
        probs, outside = answers.probs, answers.outside
        grid, invalid = self.reward.of_grid(answers.values, labels), self.reward.of_invalid(labels)
        value = (probs * grid).sum(dim=-1) + outside * invalid
        second = (probs * grid**2).sum(dim=-1) + outside * invalid**2
        deviation = (second - value**2).clamp_min(0).sqrt().detach()
        if self.of_mean:
            value = answers.valid * self.reward.of_mean(answers.mean, labels) + outside * invalid
        return value, deviation


def _kl(probs: torch.Tensor, outside: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """KL(π ‖ π_ref) over the answers and, as one more outcome, everything outside the grid. Shape (B,)."""
    p = torch.cat([probs, outside[:, None]], dim=-1)
    q = torch.cat([reference, (1 - reference.sum(dim=-1, keepdim=True)).clamp_min(0)], dim=-1)
    return torch.special.xlogy(p, p.clamp_min(1e-30) / q.clamp_min(1e-30)).sum(dim=-1)
