"""The exact objective of a judge that answers at once.

    V(x) = Σ_k π(k|x) S(k, y) + (1 − Σ_k π(k|x)) S_invalid          expected reward
    loss = mean over prompts of  − V / σ − entropy_coef · H(π) + beta · KL(π ‖ π_ref)
           + symmetry_coef · mean over pairs of (E[p_ab] + E[p_ba] − 1)²

∇V is what GRPO's sampled gradient estimates with infinitely many answers and the mean as baseline; there is nothing to
clip, since no old sample is reused. σ is 1. For the ablation `scale_rewards="group"` it is the deviation of the reward
under π (held constant), which is what GRPO's division by the group's deviation converges to: with Brier's rule and a
0/1 label the update then grows with 2 p* − 1 instead of p* − p (arXiv 2508.11800).

Deliberately left out: importance ratios and clipping (`num_iterations > 1` takes several exact steps on a batch).
"""

from dataclasses import dataclass

import torch

from autorater.answers import AnswerDistribution


@dataclass(frozen=True)
class ExactObjective:
    """Weights of the terms; see the module's formula.

    Args:
        coupled: Prompts 2 i and 2 i + 1 are the orders ab and ba of one pair; `symmetry_coef` needs it.
    """

    coupled: bool = True

    entropy_coef: float = 0.0
    beta: float = 0.0
    symmetry_coef: float = 0.0
    scale_by_deviation: bool = False

    def __call__(
        self,
        answers: AnswerDistribution,
        scores: torch.Tensor,
        invalid_scores: torch.Tensor,
        reference_probs: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Loss and what there is to log.

        Args:
            answers: Distributions of B prompts.
            scores: Reward of every answer, shape (B, K).
            invalid_scores: Reward of no answer, shape (B,).
            reference_probs: Distribution of the reference model, shape (B, K); needed where `beta` is not 0.

        Returns:
            The loss (a scalar) and detached per-prompt or per-pair values by name.
        """
        probs, outside = answers.probs, answers.outside
        value = (probs * scores).sum(dim=-1) + outside * invalid_scores  # (B,)
        second = (probs * scores**2).sum(dim=-1) + outside * invalid_scores**2
        deviation = (second - value**2).clamp_min(0).sqrt().detach()
        entropy = answers.entropy
        gain = value / (deviation + 1e-4) if self.scale_by_deviation else value
        loss = -gain.mean() - self.entropy_coef * entropy.mean()
        log = {"reward": value, "reward_std": deviation, "entropy": entropy, "answers/parse_rate": answers.valid}
        if self.beta:
            kl = _kl(probs, outside, reference_probs)
            loss = loss + self.beta * kl.mean()
            log["kl"] = kl
        if self.coupled:
            mean = answers.mean
            symmetry_deviation = mean[0::2] + mean[1::2] - 1
            loss = loss + self.symmetry_coef * (symmetry_deviation**2).mean()
            log["answers/symmetry_deviation_abs"] = symmetry_deviation.abs()
        log["answers/spread"] = answers.spread
        return loss, {name: values.detach() for name, values in log.items()}


def _kl(probs: torch.Tensor, outside: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """KL(π ‖ π_ref) over the answers and, as one more outcome, everything outside the grid. Shape (B,)."""
    p = torch.cat([probs, outside[:, None]], dim=-1)
    q = torch.cat([reference, (1 - reference.sum(dim=-1, keepdim=True)).clamp_min(0)], dim=-1)
    return torch.special.xlogy(p, p.clamp_min(1e-30) / q.clamp_min(1e-30)).sum(dim=-1)
