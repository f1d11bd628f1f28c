"""Trainers by name, from settings to a trained judge.

    grpo, ppo    GRPO with sampled or exact answers, PPO; every reward
    sft          `JudgeSFTTrainer`: the share as text, or a score of the exact answers
    alignment    `AlignmentTrainer`: a distribution over the letters A and B (and tie); on single votes and without its
                 KL this is supervised training on the letter of the vote

All start from the same warm-started policy. Deliberately left out: reports and saved models; a study keeps the
predictions on held-out pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from datasets import Dataset
from transformers import Trainer
from trl import TrlParser

import rewards
from autorater.alignment.judge import LabelJudge
from autorater.alignment.labels import LabelFormat
from autorater.alignment.trainer import AlignmentConfig, AlignmentTrainer, alignment_rows
from autorater.data.errors import UserError
from autorater.data.items import ItemSet, pair_items, pair_task
from autorater.data.pairs import Pair
from autorater.judges import Judge
from autorater.models.loading import load_policy, train_only
from autorater.prompts.batching import drop_long
from autorater.prompts.encoder import EncodedPrompt
from autorater.training.arguments import JudgeArguments
from autorater.training.callbacks import show_progress
from autorater.training.config import JudgeGRPOConfig
from autorater.training.data import training_rows
from autorater.training.grpo import grpo_trainer
from autorater.training.ppo import JudgePPOConfig
from autorater.training.sft import JudgeSFTConfig, JudgeSFTTrainer, sft_rows
from benchmarks.study.data import StudyArguments
from benchmarks.study.learning_curve import LearningCurve

CONFIGS = {
    "warm_start": JudgeGRPOConfig,
    "text": JudgeGRPOConfig,
    "grpo": JudgeGRPOConfig,
    "ppo": JudgePPOConfig,
    "sft": JudgeSFTConfig,
    "alignment": AlignmentConfig,
}
_QUIET = {
    "use_cpu": True,
    "report_to": "none",
    "logging_strategy": "no",
    "save_strategy": "no",
    "disable_tqdm": True,
    "dataloader_pin_memory": False,
}
_OF_ANSWERS = {"answer_step"}  # given to all trainers, used by those with numeric answers


@dataclass(frozen=True)
class TrainingSpec:
    """Inputs of a trainer.

    Attributes:
        judge: Judge of the model to train.
        args, study, training: Parsed settings.
        pairs, prompts: Training pairs and their prompts in both orders, none too long.
    """

    judge: Judge
    args: JudgeArguments
    study: StudyArguments
    training: object
    pairs: Sequence[Pair]
    prompts: Sequence[tuple[EncodedPrompt, EncodedPrompt]]


def parse_settings(trainer: str, settings: Mapping[str, object], folder: str | Path) -> tuple:
    """`JudgeArguments`, `StudyArguments` and the trainer's config.

    Raises:
        UserError: If a setting is unknown to all three or has an invalid value.
    """
    config = CONFIGS[trainer]
    known = {f.name for f in fields(config)}
    numbers = {f.name for c in (JudgeArguments, StudyArguments, config) for f in fields(c) if type(f.default) is float}
    for name, value in settings.items():
        if name in numbers and isinstance(value, str):
            raise UserError(f"{name} must be a number, got {value!r} (YAML parses 1.0e6 as text, 1.0e+6 as a number)")
    used = {name: value for name, value in settings.items() if name in known or name not in _OF_ANSWERS}
    quiet = _QUIET | {"output_dir": str(folder)}
    return TrlParser((JudgeArguments, StudyArguments, config)).parse_dict({**used, **quiet})


def open_judge(trainer: str, policy: str | Path, args: JudgeArguments, answer_step: float, ties: bool) -> Judge:
    """The judge of a saved policy, with numeric answers or letters as the trainer requires."""
    model, tokenizer = load_policy(str(policy), dtype="float32")
    if trainer == "alignment":
        return LabelJudge(model, tokenizer, LabelFormat(pair_task(ties), args.prompt_template))
    return Judge(model, tokenizer, args.prompt_format, answer_step)


def train(trainer: str, spec: TrainingSpec, held_out: Sequence[Pair]) -> LearningCurve:
    """Trains the judge's model in place.

    Args:
        trainer: Name of the trainer.
        spec: Its inputs.
        held_out: Pairs of the learning curve.
    """
    judge, study = spec.judge, spec.study
    if spec.args.train_only:
        train_only(judge.model, spec.args.train_only)
    pairs, prompts, _ = drop_long(held_out, judge.encoder.encode(held_out), spec.args.max_prompt_tokens)
    learning_curve = LearningCurve(judge, pairs, prompts, study.n_curve_pairs, study.curve_steps)
    runner = _TRAINERS[trainer](spec)
    runner.add_callback(learning_curve)
    show_progress(runner)
    learning_curve.watch(judge.model)
    runner.train()
    judge.model = runner.accelerator.unwrap_model(runner.model)
    return learning_curve


def _grpo(spec: TrainingSpec) -> Trainer:
    rows = training_rows(spec.pairs, spec.prompts, spec.training.orders)
    if not spec.study.both_orders:
        if spec.training.orders != "separate":
            raise UserError("both_orders: false requires orders: separate")
        rows = rows[::2]
    return grpo_trainer(
        spec.judge.model,
        getattr(rewards, f"{spec.training.reward}_reward"),
        spec.training,
        spec.judge.tree,
        train_dataset=Dataset.from_list(rows),
        processing_class=spec.judge.tokenizer,
    )


def _sft(spec: TrainingSpec) -> Trainer:
    rows = sft_rows(spec.pairs, spec.prompts, spec.judge.tokenizer, spec.training)
    return JudgeSFTTrainer(
        spec.judge.model,
        spec.training,
        spec.judge.tree,
        train_dataset=Dataset.from_list(rows),
        processing_class=spec.judge.tokenizer,
    )


def _alignment(spec: TrainingSpec) -> Trainer:
    task = spec.judge.encoder.format.task
    items = pair_items(spec.pairs, "tie" in task.labels)
    prompts = [prompt for both in spec.prompts for prompt in both]
    rows = alignment_rows(ItemSet(task, items.items), prompts)
    return AlignmentTrainer(
        spec.judge.model,
        spec.training,
        spec.judge.tree,
        spec.judge.tokenizer.pad_token_id,
        train_dataset=Dataset.from_list(rows),
    )


_TRAINERS = {"grpo": _grpo, "ppo": _grpo, "sft": _sft, "alignment": _alignment}
