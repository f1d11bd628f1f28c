"""RLOO for judges (Ahmadian et al., arXiv 2402.14740): the baseline of an answer is the mean reward of the others.

    A_i = R_i − (Σ_{j ≠ i} R_j) / (G − 1) = (R_i − mean R) · G / (G − 1)

The G answers are those to one prompt or, with `orders: coupled`, those to both orders of a pair, so that one answer a
prompt is enough: each order's reward is the other's baseline. TRL's GRPO subtracts the mean of all G, which shrinks
the gradient by (G − 1) / G; everything else is the same, so this is `autorater.training.grpo` with that factor undone.
(`trl.RLOOTrainer` would give the same update on fresh answers, through rollout code of its own.)

Deliberately left out: RLOO's ratio of whole answers; where answers are used again it is clipped by the token.
"""

import torch

from autorater.training.grpo import JudgeGRPOTrainer
from autorater.training.ppo import JudgePPOConfig


class JudgeRLOOTrainer(JudgeGRPOTrainer):
    """`JudgeGRPOTrainer` with the leave-one-out baseline.

    Args:
        args: With `algorithm="rloo"`.
        kwargs: Everything else as in `JudgeGRPOTrainer`.
    """

    _tag_names = ("trl", "rloo", "autorater")

    def __init__(self, model, reward_funcs, args: JudgePPOConfig, *other, **kwargs):
        super().__init__(model, reward_funcs, args, *other, **kwargs)
        self.num_generations = args.answers_a_row

    def _generate_and_score_completions(self, inputs: list[dict]) -> dict[str, torch.Tensor]:
        batch = super()._generate_and_score_completions(inputs)
        return batch | {"advantages": batch["advantages"] * self.num_generations / (self.num_generations - 1)}
