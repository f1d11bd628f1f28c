"""Exact losses with a teacher's probability q = Pr[B better] as the target.

    verbalized     KL(t(q) ‖ π(· | x)) in both orders, t the binomial distribution on the answer grid with mean q,
                   + symmetry_coef · (E[p_ab] + E[p_ba] − 1)²  − closing_coef · log π(rest of the closing tag)
    by two scores  KL(Bernoulli(q) ‖ Bernoulli(σ(scale · (s_B − s_A)))), mass off the digits as the worst answer,
                   − entropy_coef · mean over responses of H(π)

The divergence of the whole distribution has a gradient of the size of π − t where the model has no mass on the grid
yet (a reward has none there), so the format is learned in passing. The binomial target has exactly the mean q, and a
spread of √(q (1 − q) step): it shows the grid's order, and that q itself is no more than an estimate.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import binom

from autorater.models.distribution import AnswerDistribution
from autorater.training.exact_loss import ExactLoss


def binomial_targets(q: torch.Tensor, n_values: int) -> torch.Tensor:
    """Distributions over K grid values 0 … 1 with means q of shape (B,); shape (B, K)."""
    p = q.cpu().double().clamp(1e-9, 1 - 1e-9).numpy()
    return torch.as_tensor(binom.pmf(np.arange(n_values), n_values - 1, p[:, None]), dtype=q.dtype, device=q.device)


@dataclass(frozen=True)
class TargetLoss(ExactLoss):
    """`ExactLoss` whose value is −KL(t(q) ‖ π), the labels being q."""

    def value(self, answers: AnswerDistribution, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """−KL of every prompt, differentiable, and zeros: shape (B,) each."""
        targets = binomial_targets(labels, len(answers.values))
        log_probs = answers.probs.clamp_min(torch.finfo(torch.float32).tiny).log()
        value = (targets * log_probs - torch.xlogy(targets, targets)).sum(dim=-1)
        return value, torch.zeros_like(value)
