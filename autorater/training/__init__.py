"""How a judge is trained.

config      what a run can be told
data        the pairs of a run, and the votes it may learn from
warm_start  a policy from scratch learns to answer, as raw judges do
exact       the objective that sums over all answers
grpo        GRPO: exact or sampled answers, both orders, shared prompts
sampling    batches of prompts of like length
callbacks   calibration and progress while training
tracking    Weights & Biases that never stops a run
"""
