"""The trainer of a run by its config: GRPO on exact answers, on sampled ones or after reasoning; PPO; RLOO."""

from autorater.training.base_trainer import JudgeTrainer
from autorater.training.compatibility import EXACT, PPO, REASONING, RLOO, SAMPLED
from autorater.training.config import JudgeGRPOConfig
from autorater.training.exact_grpo import ExactGRPOTrainer
from autorater.training.ppo import JudgePPOTrainer
from autorater.training.reasoning_grpo import ReasoningGRPOTrainer
from autorater.training.rloo import JudgeRLOOTrainer
from autorater.training.sampled_grpo import SampledGRPOTrainer

_TRAINERS = {
    EXACT: ExactGRPOTrainer,
    SAMPLED: SampledGRPOTrainer,
    REASONING: ReasoningGRPOTrainer,
    PPO: JudgePPOTrainer,
    RLOO: JudgeRLOOTrainer,
}


def grpo_trainer(model, reward_funcs, args: JudgeGRPOConfig, answer_tree=None, **kwargs) -> JudgeTrainer:
    """The trainer of a config; arguments as in `JudgeTrainer`."""
    return _TRAINERS[args.mode](model, reward_funcs, args, answer_tree, **kwargs)
