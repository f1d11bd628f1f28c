"""A distribution over the answers to prompts: its probabilities, and the mean, the mode and more of them.

It is not normalized: the mass that is missing is that of other answers and of no answer (`autorater.models.answers`).
"""

from dataclasses import dataclass

import torch

from autorater.metrics.validation import LEAST_VALID


@dataclass(frozen=True)
class AnswerDistribution:
    """Probabilities of all answers on the grid for B prompts.

    Attributes:
        probs: π(k | x), not normalized (the rows sum to at most 1), shape (B, K).
        values: The answers, shape (K,).
        greedy: The greedy answers, shape (B,), NaN for none of these; None in training.
        closing: Log-probability of the rest of the closing tag and the end of the text after one of the answers, shape
            (B,); None unless requested.
    """

    probs: torch.Tensor
    values: torch.Tensor
    greedy: torch.Tensor | None = None
    closing: torch.Tensor | None = None

    @property
    def valid(self) -> torch.Tensor:
        """Probability that the answer is on the grid, shape (B,)."""
        return self.probs.sum(dim=-1)

    @property
    def outside(self) -> torch.Tensor:
        """Probability of everything else: off the grid or no answer, at least 0. Shape (B,)."""
        return (1 - self.valid).clamp_min(0)

    @property
    def mean(self) -> torch.Tensor:
        """Expected answer, given that it is valid; 0.5 without valid mass. Shape (B,)."""
        valid = self.valid
        mean = (self.probs * self.values).sum(dim=-1) / valid.clamp_min(LEAST_VALID)
        return torch.where(valid > LEAST_VALID, mean, torch.full_like(mean, 0.5))

    @property
    def mode(self) -> torch.Tensor:
        """Most likely answer; 0.5 without valid mass. Shape (B,)."""
        mode = self.values[self.probs.argmax(dim=-1)]
        return torch.where(self.valid > 0, mode, torch.full_like(mode, 0.5))

    @property
    def spread(self) -> torch.Tensor:
        """Standard deviation of the answer, given that it is valid. Shape (B,)."""
        weights = self.probs / self.valid.clamp_min(LEAST_VALID)[:, None]
        return (weights * (self.values - self.mean[:, None]) ** 2).sum(dim=-1).sqrt()

    @property
    def entropy(self) -> torch.Tensor:
        """−Σ_k π log π over the answers on the grid, in nats. Shape (B,)."""
        return -torch.special.xlogy(self.probs, self.probs.clamp_min(1e-30)).sum(dim=-1)
