"""The judge in other programs: as a reward in TRL and verl, and in tools for evaluation and annotation.

reward         `JudgeReward`, `AsyncJudgeReward`: reward functions for `trl.GRPOTrainer`
verl           `compute_score` for verl's `custom_reward_function`
inspect_scorer `preferred`, a scorer of Inspect
alpaca_eval    `JudgeAnnotator`, an evaluator of alpaca_eval, and its config folder `alpaca_eval_judge`
promptfoo      `call_api`, a grading provider of promptfoo
reward_bench   `RewardBenchJudge`, in place of RewardBench's `run_judge_pair`
argilla        suggestions for Argilla
label_studio   predictions for Label Studio; what people answer in both is read by `load_pairs`
preferences    what all of them call: a judge by name, a budget, every pair judged once; batches of concurrent calls

Nothing here imports the other program, torch or a model before it is used.
"""

from autorater.integrations.reward import AsyncJudgeReward, JudgeReward

__all__ = ["AsyncJudgeReward", "JudgeReward"]
