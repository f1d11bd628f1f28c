"""The trainer of a run by its config: GRPO on exact or sampled answers or after reasoning; pointwise; PPO; RLOO."""

import gc
import logging
from collections.abc import Collection
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from datasets import Dataset
from trl import ModelConfig

import rewards
from autorater.data.errors import AlreadyFinished
from autorater.training.arguments import JudgeArguments
from autorater.training.base_trainer import JudgeTrainer
from autorater.training.checkpointing.record import RECORD
from autorater.training.checks import check_run
from autorater.training.compatibility import EXACT, POINTWISE, PPO, REASONING, RLOO, SAMPLED
from autorater.training.config import JudgeGRPOConfig
from autorater.training.data import training_rows
from autorater.training.exact_grpo import ExactGRPOTrainer
from autorater.training.options import RunOptions
from autorater.training.pointwise import PointwiseTrainer, vote_rows
from autorater.training.ppo import JudgePPOTrainer
from autorater.training.reasoning_grpo import ReasoningGRPOTrainer
from autorater.training.rloo import JudgeRLOOTrainer
from autorater.training.run import open_run
from autorater.training.sampled_grpo import SampledGRPOTrainer
from autorater.training.teaching.pointwise_teacher import taught_by, teacher_run

logger = logging.getLogger(__name__)

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


def train_on_votes(
    args: JudgeArguments, training: JudgeGRPOConfig, model_config: ModelConfig, given: Collection[str], method: str
) -> None:
    """The whole run of recipes/grpo.py and recipes/ppo.py.

    Arguments and exceptions as in `open_run`; `method` (`grpo`, `ppo` or `rloo`) is for the report and the model card.
    """
    if args.teacher == "pointwise":
        args, _, model_config, _ = _train_teacher(RunOptions(args, training, model_config, given))
    pointwise = training.mode == POINTWISE
    prompt_format = args.score_format if pointwise else replace(args.prompt_format, reasoning=training.reasoning)
    run = open_run(args, training, model_config, prompt_format, training.max_completion_length, given)
    reward = getattr(rewards, f"{training.reward}_reward")
    common = {
        "reward_funcs": rewards.VotesReward(reward) if args.labels == "all" else reward,
        "args": training,
        "answer_tree": run.judge.tree,
        "processing_class": run.judge.tokenizer,
        "peft_config": run.peft_config,
    }
    if pointwise:
        rows, graph = vote_rows(run.train.pairs, run.train.prompts)
        trainer = PointwiseTrainer(run.judge.model, graph=graph, train_dataset=rows, **common)
        title, method = "Pointwise judge trained on votes", "pointwise"
    else:
        rows = Dataset.from_list(training_rows(run.train.pairs, run.train.prompts, training.orders))
        trainer = grpo_trainer(run.judge.model, train_dataset=rows, **common)
        title = f"{method.upper()} on votes"
    run.finish(trainer, title=title, method=method)


def _train_teacher(options: RunOptions) -> RunOptions:
    """Trains the teacher of `warm_start_verdicts: pointwise`; returns the options of the judge that it teaches."""
    args, training, model_config, _ = options
    check_run(args, training, model_config)
    of_teacher = teacher_run(options)
    folder = of_teacher.training.output_dir
    logger.info(f"first the teacher, a pointwise judge on the same votes: {folder}")
    if training.resume_from_checkpoint == "true" and Path(folder, RECORD).exists():
        training.resume_from_checkpoint = "auto"  # the run may have been stopped before its own record was written
    with suppress(AlreadyFinished):
        train_on_votes(*of_teacher, method="grpo")
    gc.collect()  # its trainer
    return taught_by(folder, options)
