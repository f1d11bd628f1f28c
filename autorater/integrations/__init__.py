"""The judge in other programs: as a reward in TRL and verl, and in tools for evaluation and annotation.

reward         `JudgeReward`, `AsyncJudgeReward`: reward functions for `trl.GRPOTrainer`
verl           `compute_score` for verl's `custom_reward_function`
preferences    what all of them call: a judge by name, a budget, every pair judged once; batches of concurrent calls

Nothing here imports the other program, torch or a model before it is used.
"""

from autorater.integrations.reward import AsyncJudgeReward, JudgeReward

__all__ = ["AsyncJudgeReward", "JudgeReward"]
