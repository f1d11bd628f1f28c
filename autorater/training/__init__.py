"""Training of judges.

arguments, config    options of a run and of its trainer; `options`: these and those of the model together
recipe_parser        these options from the command line and a YAML file
compatibility        options that a mode refuses; `checks`: those that every run refuses
data                 training, held-out and warm-start pairs
policy               the model to train, opened from its folder or name
warm_start           a policy from scratch learns to answer as raw LLM judges do
format_warm_up       a pretrained model learns the format, without labels
teaching             a pretrained model learns from a teacher: a probe, a judge, recorded probabilities
precision            weights, autocast and learning rate of pretrained models and adapters
base_trainer         what the trainers over `trl.GRPOTrainer` share
exact_grpo           nothing is sampled: `exact_loss` sums over all answers
sampled_grpo         sampled answers, both orders in one group; `prompt_groups`: a prompt is processed once
reasoning_grpo       sampled reasonings, exact answers after them
ppo, rloo            sampled answers with another baseline: a `value_head`, or the other answers
pointwise            exact scores of single responses; `vote_batches`: one forward pass serves many votes
grpo                 the trainer for a config
sft                  the vote share as text, or a score of exact answers
sampling             batches of prompts of similar length
recalibration        fitted after training: a temperature with a prior, or with a shift against position bias too
memory               of a step, estimated before it is taken
prefix_sharing       trainers whose model processes a prompt once for all answers
faults               rewards that are not finite, prompts that do not fit
run                  a run from its data to its report, shared by all recipes; `interruptible`: the training itself
results              files of the output folder, and their upload
callbacks, tracking  evaluation and progress during training; Weights & Biases
preemption           a checkpoint after SIGTERM or Ctrl-C
recipe_process       a recipe in a process of its own
checkpointing        complete checkpoints, `run.json`, bit-identical resuming
"""
