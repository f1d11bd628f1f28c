"""One way to train, from its settings to a trained judge.

    grpo, ppo    `JudgeGRPOTrainer`, `JudgePPOTrainer`: sampled or exact answers, every reward
    sft          `JudgeSFTTrainer`: the share as text, or a score of the exact answers
    alignment    `AlignmentTrainer`: a distribution over the letters A and B (and tie); on single votes and without its
                 KL this is supervised learning of the letter that the vote said

All go on from the same warm-started policy. Deliberately left out: reports and saved models; a study keeps what was
said of the held-out pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

from datasets import Dataset
from transformers import Trainer
from trl import TrlParser

import rewards
from autorater.alignment.judge import LabelJudge
from autorater.alignment.labels import LabelFormat
from autorater.alignment.trainer import AlignmentConfig, AlignmentTrainer, alignment_rows
from autorater.data.items import ItemSet, pair_items, pair_task
from autorater.data.pairs import Pair
from autorater.judges import Judge
from autorater.models.loading import load_policy, train_only
from autorater.prompts.batching import drop_long
from autorater.prompts.encoder import EncodedPrompt
from autorater.training.callbacks import show_progress
from autorater.training.config import JudgeArguments, JudgeGRPOConfig
from autorater.training.grpo import JudgeGRPOTrainer, training_rows
from autorater.training.ppo import JudgePPOConfig, JudgePPOTrainer
from autorater.training.sft import JudgeSFTConfig, JudgeSFTTrainer, sft_rows
from benchmarks.study.course import Course
from benchmarks.study.grounds import StudyArguments

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
_OF_ANSWERS = {"answer_step"}  # told to all, of use to those that answer in numbers


@dataclass(frozen=True)
class Lesson:
    """What a trainer is given.

    Attributes:
        judge: Reads the model that will be trained.
        args, study, training: As parsed.
        pairs, prompts: To learn from, none too long, with their prompts in both orders.
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
        ValueError: If a setting is unknown to all three, or has a value that it cannot have.
    """
    config = CONFIGS[trainer]
    known = {f.name for f in fields(config)}
    numbers = {f.name for c in (JudgeArguments, StudyArguments, config) for f in fields(c) if type(f.default) is float}
    for name, value in settings.items():
        if name in numbers and isinstance(value, str):
            raise ValueError(f"{name} must be a number, got {value!r} (to YAML 1.0e6 is a word, 1.0e+6 a number)")
    told = {name: value for name, value in settings.items() if name in known or name not in _OF_ANSWERS}
    quiet = _QUIET | {"output_dir": str(folder)}
    return TrlParser((JudgeArguments, StudyArguments, config)).parse_dict({**told, **quiet})


def open_judge(trainer: str, policy: str | Path, args: JudgeArguments, answer_step: float, ties: bool) -> Judge:
    """The policy in a folder, asked as this trainer trains it: for a number, or for one of the letters."""
    model, tokenizer = load_policy(str(policy), dtype="float32")
    if trainer == "alignment":
        return LabelJudge(model, tokenizer, LabelFormat(pair_task(ties), args.prompt_layout))
    return Judge(model, tokenizer, args.prompt_format, answer_step)


def train(trainer: str, lesson: Lesson, held_out: Sequence[Pair]) -> Course:
    """Trains the judge's model in place.

    Args:
        trainer: A name of the module's list.
        lesson: What it is given.
        held_out: Pairs that its course is measured on.
    """
    judge, study = lesson.judge, lesson.study
    if lesson.args.train_only:
        train_only(judge.model, lesson.args.train_only)
    pairs, prompts, _ = drop_long(held_out, judge.encoder.encode(held_out), lesson.args.max_prompt_tokens)
    course = Course(judge, pairs, prompts, study.n_curve_pairs, study.curve_steps)
    made = _TRAINERS[trainer](lesson)
    made.add_callback(course)
    show_progress(made)
    course.watch(judge.model)
    made.train()
    judge.model = made.accelerator.unwrap_model(made.model)
    return course


def _grpo(lesson: Lesson, trainer_class: type[JudgeGRPOTrainer] = JudgeGRPOTrainer) -> Trainer:
    rows = training_rows(lesson.pairs, lesson.prompts, lesson.training.orders)
    if not lesson.study.both_orders:
        if lesson.training.orders != "separate":
            raise ValueError("both_orders: false needs orders: separate")
        rows = rows[::2]
    return trainer_class(
        lesson.judge.model,
        getattr(rewards, f"{lesson.args.reward}_reward"),
        lesson.training,
        lesson.judge.tree,
        train_dataset=Dataset.from_list(rows),
        processing_class=lesson.judge.tokenizer,
    )


def _sft(lesson: Lesson) -> Trainer:
    rows = sft_rows(lesson.pairs, lesson.prompts, lesson.judge.tokenizer, lesson.training)
    return JudgeSFTTrainer(
        lesson.judge.model,
        lesson.training,
        lesson.judge.tree,
        train_dataset=Dataset.from_list(rows),
        processing_class=lesson.judge.tokenizer,
    )


def _alignment(lesson: Lesson) -> Trainer:
    task = lesson.judge.encoder.format.task
    items = pair_items(lesson.pairs, "tie" in task.labels)
    prompts = [prompt for both in lesson.prompts for prompt in both]
    rows = alignment_rows(ItemSet(task, items.items), prompts)
    return AlignmentTrainer(
        lesson.judge.model,
        lesson.training,
        lesson.judge.tree,
        lesson.judge.tokenizer.pad_token_id,
        train_dataset=Dataset.from_list(rows),
    )


_TRAINERS = {"grpo": _grpo, "ppo": partial(_grpo, trainer_class=JudgePPOTrainer), "sft": _sft, "alignment": _alignment}
