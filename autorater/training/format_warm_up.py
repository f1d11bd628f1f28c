"""Format warm-up: a pretrained model learns that an answer is a number of the grid, before answers are rewarded.

The gradient of a reward is proportional to the probability of the answers that can be rewarded. Where a model has only
a millionth of its mass on the grid, exact answers learn nothing, and sampled ones never parse. A few dozen steps on

    loss = − mean over the grid of log π(k | x) − log π(rest of the closing tag | x, k')

put all of it there. The optimum is the uniform distribution over the answers, for every prompt: no label is used, and
every answer keeps enough probability to be found by its reward. Supervised learning of single votes as text would end
in two peaks, at 0 and 1, without mass between them.
"""

import logging
from collections.abc import Sequence

import numpy as np
import torch
from datasets import Dataset
from peft import PeftConfig, PeftModel
from transformers import Trainer, TrainingArguments

from autorater.evaluation.judge import Evaluation
from autorater.judges import Judge
from autorater.models.answers import AnswerTree
from autorater.models.sharding import is_sharded, unsharded
from autorater.prompts.batching import pad_prompts
from autorater.prompts.encoder import EncodedPrompt
from autorater.training.adapters import new_adapter, with_new_adapter
from autorater.training.arguments import PolicyArguments
from autorater.training.callbacks import show_progress
from autorater.training.checkpointing.record import RunRecord
from autorater.training.compatibility import is_pointwise
from autorater.training.options import RunOptions
from autorater.training.policy import reopen
from autorater.training.warm_start import save_warm_start, warm_start_options

LOW_MASS = 0.05
"""Probability of all answers together below which rewards teach next to nothing."""
BATCH_SIZE = 4
"""Prompts a step: all have the same target, so few are enough."""
_RATE, _ADAPTER_RATE = 5e-5, 1e-3
logger = logging.getLogger(__name__)


def teach_format(
    judge: Judge,
    prompts: Sequence[tuple[EncodedPrompt, EncodedPrompt]],
    before: Evaluation,
    options: RunOptions,
    record: RunRecord,
) -> None:
    """Says how much probability a pretrained judge has on the answer grid; if it is little, warms it up or warns."""
    args, training, model_config, given = options
    mass = float(before.judgments.valid.mean())
    logger.info(f"before training {mass:.2g} of the probability is on the answer grid")
    if mass >= LOW_MASS:
        if args.warm_start_steps:
            logger.info(f"warm_start_steps: not needed, because this is at least {LOW_MASS:g}")
    elif args.warm_start_steps:
        config = new_adapter(judge.model, model_config, given)
        folder = record.warm_started_policy(lambda: format_warm_up(judge, prompts, args, training, config))
        reopen(judge, options, folder)
        mass = judge.judge_prompts(prompts[:8]).valid.mean()
        logger.info(f"after {args.warm_start_steps} steps of format warm-up: {mass:.2g}")
        warn_of_low_mass(mass, training)
    else:
        warmed_up = not (is_pointwise(training) or getattr(training, "reasoning", False) or is_sharded(judge.model))
        way = "add --warm_start_steps 40, which teaches the format without using labels"
        other = "choose a prompt that the model answers so (--prompt_template, --system_prompt), or another model"
        warn_of_low_mass(mass, training, way if warmed_up else other)


def warn_of_low_mass(
    mass: float,
    training: TrainingArguments,
    advice: str = "raise warm_start_steps or warm_start_learning_rate",
) -> None:
    """Warns, with advice, if a judge has too little probability on all answers together to learn from rewards.

    A training on texts teaches the format itself.
    """
    if mass < LOW_MASS and getattr(training, "objective", "") != "text":
        logger.warning(
            f"only {mass:.2g} of the probability is on the answers: rewards teach next to nothing where so few can be "
            f"rewarded; {advice}"
        )


def format_warm_up(
    judge: Judge,
    prompts: Sequence[tuple[EncodedPrompt, EncodedPrompt]],
    args: PolicyArguments,
    training: TrainingArguments,
    peft_config: PeftConfig | None = None,
) -> None:
    """Teaches `judge.model` the format, in place, and saves it in `output_dir/warm_start`.

    Args:
        judge: A pairwise judge without reasoning.
        prompts: Training prompts in both orders; a random part of them is used.
        args: The options `warm_start_steps`, `…_batch_size` and `…_learning_rate`.
        training: Seed, precision and output folder.
        peft_config: Train an adapter of this kind; a model that is an adapter is trained further.
    """
    if peft_config is not None:
        judge.model = with_new_adapter(judge.model, peft_config, training.seed)
    batch_size = args.warm_start_batch_size or BATCH_SIZE
    rate = _ADAPTER_RATE if isinstance(judge.model, PeftModel) else _RATE
    options = warm_start_options(args, training, batch_size, args.warm_start_learning_rate or rate)
    flat = [prompt.ids for both in prompts for prompt in both]
    chosen = np.random.default_rng(training.seed).permutation(len(flat))[: args.warm_start_steps * batch_size]
    _learn_format(judge, [{"prompt_ids": flat[i]} for i in chosen], options)
    save_warm_start(judge.model, judge.tokenizer, training)


@unsharded()
def _learn_format(judge: Judge, rows: list[dict], options: TrainingArguments) -> None:
    def collate(batch: list[dict]) -> dict[str, torch.Tensor]:
        ids, mask = pad_prompts([row["prompt_ids"] for row in batch], judge.tokenizer.pad_token_id)
        return {"prompt_ids": ids, "prompt_mask": mask}

    trainer = _FormatTrainer(judge.model, args=options, train_dataset=Dataset.from_list(rows), data_collator=collate)
    trainer.tree = judge.tree
    show_progress(trainer, "format warm-up")
    trainer.train()
    judge.model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)


class _FormatTrainer(Trainer):
    """Maximizes the mean log-probability of all answers."""

    tree: AnswerTree

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        closing = self.state.global_step % len(self.tree.strings)  # alternates over the answers
        answers = self.tree.distribution(model, inputs["prompt_ids"], inputs["prompt_mask"], closing)
        log_probs = answers.probs.clamp_min(torch.finfo(torch.float32).tiny).log()
        return -log_probs.mean() - answers.closing.mean()
