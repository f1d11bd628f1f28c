"""How a judge is trained.

config               what a run can be told
data, curriculum     the pairs of a run, and the votes it may learn from; responses that grow
warm_start           a policy from scratch learns to answer, as raw judges do
exact, groups        the objective that sums over all answers; rows that share a prompt
grpo                 GRPO: exact or sampled answers, both orders, shared prompts
ppo, rloo            the same rollouts with another baseline: a value (`value_head`), or a pair's other answers
sft                  the vote share as text, or on the exact answers
alignment, adversary a distribution over labels, held against the worst one nearby
reward, charm        reward models from votes; calibrating them by Elo (`charm_run`: its stages)
sampling             batches of prompts of like length
callbacks, tracking  calibration and progress while training; Weights & Biases that never stops a run
checkpoints, record  checkpoints that are known to be whole; what a run has behind it (`run.json`)
resumable, faults    trainers that go on bit for bit where they were; what must not pass in silence
run                  from its pairs to its report: what every recipe that trains a judge of pairs shares
"""
