"""RLOO for judges (Ahmadian et al., arXiv 2402.14740): the baseline of an answer is the mean reward of the others.

    A_i = R_i − (Σ_{j ≠ i} R_j) / (G − 1) = (R_i − mean R) · G / (G − 1)

The G answers are those to one prompt or, with `orders: coupled`, those to both orders of a pair. One answer per prompt
is then enough: the reward of each order is the baseline of the other. TRL's GRPO subtracts the mean of all G, which
scales the gradient by (G − 1) / G; this trainer undoes the factor.

Deliberately left out: RLOO's ratio of whole answers; reused answers are clipped by the token.
"""

from autorater.training.config import JudgeGRPOConfig
from autorater.training.sampled_grpo import SampledGRPOTrainer


class JudgeRLOOTrainer(SampledGRPOTrainer):
    """`SampledGRPOTrainer` with the leave-one-out baseline; arguments as there, with `algorithm="rloo"`."""

    _tag_names = ("trl", "rloo", "autorater")

    def __init__(self, model, reward_funcs, args: JudgeGRPOConfig, *other, **kwargs):
        super().__init__(model, reward_funcs, args, *other, **kwargs)
        self.num_generations = args.answers_per_row

    def _complete_batch(self, batch: dict, inputs: list[dict]) -> dict:
        batch["advantages"] = batch["advantages"] * self.num_generations / (self.num_generations - 1)
        return super()._complete_batch(batch, inputs)
