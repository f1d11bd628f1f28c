"""The stage of a run in which a pretrained judge learns from its teacher."""

import logging
import shutil
from collections.abc import Sequence

import numpy as np
from datasets import Dataset
from peft import PeftConfig, PeftModel
from transformers import TrainingArguments

from autorater.data.pairs import Pair
from autorater.judges import Judge
from autorater.models.sharding import unsharded
from autorater.prompts.beginnings import common_beginning
from autorater.training.adapters import new_adapter, with_new_adapter
from autorater.training.checkpointing.checkpoints import checkpoints
from autorater.training.checkpointing.record import RunRecord, from_main
from autorater.training.format_warm_up import warn_of_low_mass
from autorater.training.interruptible import run_training
from autorater.training.options import RunOptions
from autorater.training.policy import reopen
from autorater.training.precision import evaluation_precision
from autorater.training.teaching.teachers import Teacher, find_teacher
from autorater.training.teaching.texts import TrainingTexts
from autorater.training.teaching.trainer import TeachingTrainer, teaching_rows
from autorater.training.warm_start import CLUSTER, PROMPTS_A_ROW, save_warm_start, warm_start_options

_PROMPTS, _RATE, _ADAPTER_RATE = 24, 6e-5, 2e-4
_SHARPNESS = 3.0  # of a pairwise judge's first targets: clear cases show it that it is to compare
_N_COMPARED = 48  # pairs whose distance to the teacher is measured before and after
logger = logging.getLogger(__name__)


def learn_from_teacher(
    judge: Judge,
    pairs: list[Pair],
    options: RunOptions,
    record: RunRecord,
    longest: int,
    loaded: Sequence[Pair] = (),
) -> None:
    """Teaches `judge.model` what `warm_start_verdicts` names, and opens it again from the folder `warm_start`.

    Args:
        judge: A pairwise judge without reasoning, or a pointwise judge.
        pairs: Training pairs, with the labels that the run may use.
        options: `warm_start_…`; seed, precision and output folder, and `batch_tokens` of a pointwise judge; the model,
            and the adapter to train. A model that is an adapter is trained further.
        record: The run; an interrupted teaching is resumed.
        longest: Most tokens of a prompt.
        loaded: As in `TrainingTexts`.

    Raises:
        UserError: If there is no such teacher.
    """
    adapter = new_adapter(judge.model, options.model_config, options.given)

    def teach() -> None:
        _teach(judge, TrainingTexts.of(pairs, loaded), options, record, longest, adapter)

    def remove_checkpoints() -> None:
        for old in checkpoints(folder, record.run):
            shutil.rmtree(old)

    folder = record.warm_started_policy(teach)
    from_main(remove_checkpoints)
    reopen(judge, options, folder)


@unsharded()
def _teach(
    judge: Judge,
    texts: TrainingTexts,
    options: RunOptions,
    record: RunRecord,
    longest: int,
    adapter: PeftConfig | None,
) -> None:
    args, training = options.args, options.training
    progress = training.process_index == 0 and not training.disable_tqdm
    with evaluation_precision(training):
        found = find_teacher(args.warm_start_verdicts, texts, judge, options.pretrained, training.seed, progress)
    teacher = from_main(lambda: found)  # equal to the last digit, whatever the kernels of a process
    chosen = np.linspace(0, len(texts.pairs), min(_N_COMPARED, len(texts.pairs)), endpoint=False).astype(int)
    _log_agreement("before", judge, texts, teacher, chosen)

    if adapter is not None:
        judge.model = with_new_adapter(judge.model, adapter, training.seed)
    clusters_a_step = max(1, (args.warm_start_batch_size or _PROMPTS) // PROMPTS_A_ROW // training.world_size)
    accumulation = training.gradient_accumulation_steps if judge.is_pointwise else clusters_a_step
    alone = texts.alone(judge)
    rows = _rows(judge, texts, alone, teacher, options, longest, accumulation)
    weights = (getattr(training, name, 0.0) for name in ("symmetry_coef", "entropy_coef"))
    trainer = TeachingTrainer(judge, texts, rows, _trainer_options(judge, options, accumulation), *weights)
    n_targets = sum(map(len, rows["target"]))
    size = "" if judge.is_pointwise else f" of {clusters_a_step * PROMPTS_A_ROW * training.world_size} prompts"
    left_out = f"; pairs over {longest} tokens are left out" if max(map(len, alone)) > longest else ""
    logger.info(
        f"teaching: {args.warm_start_steps} steps{size}, {n_targets:,} targets among {len(texts):,} texts{left_out}"
    )
    run_training(trainer, record, "teaching")
    judge.model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    warn_of_low_mass(_log_agreement("after", judge, texts, teacher, chosen), training)
    save_warm_start(judge.model, judge.tokenizer, training)


def _rows(
    judge: Judge,
    texts: TrainingTexts,
    alone: Sequence[Sequence[int]],
    teacher: Teacher,
    options: RunOptions,
    longest: int,
    accumulation: int,
) -> Dataset:
    """The rows of all steps; `alone` holds the token ids of every text in a prompt of its own."""
    args, training, lengths = options.args, options.training, np.array([len(prompt) for prompt in alone])
    if judge.is_pointwise:
        costs, budget, pairs_a_row = lengths - len(common_beginning(alone)), training.batch_tokens, None
    else:
        costs, budget, pairs_a_row = np.ones_like(lengths), CLUSTER, PROMPTS_A_ROW // 2

    def fits(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return lengths[a] + lengths[b] <= 2 * longest

    sharpness = args.warm_start_sharpness
    if sharpness is None:
        sharpness = 1.0 if judge.is_pointwise else _SHARPNESS
    n_rows = args.warm_start_steps * accumulation * training.world_size
    return teaching_rows(texts, teacher, costs, budget, n_rows, training.seed, pairs_a_row, fits, sharpness)


def _trainer_options(judge: Judge, options: RunOptions, accumulation: int) -> TrainingArguments:
    args, training = options.args, options.training
    rate = _ADAPTER_RATE if isinstance(judge.model, PeftModel) else _RATE
    return warm_start_options(
        args,
        training,
        training.world_size,
        args.warm_start_learning_rate or rate,
        output_dir=f"{training.output_dir}/warm_start",
        gradient_accumulation_steps=accumulation,
        train_sampling_strategy="sequential",  # the sharp targets come first
        logging_strategy="steps",
        logging_steps=training.logging_steps,
        save_strategy=training.save_strategy,
        save_steps=training.save_steps,
        save_total_limit=training.save_total_limit,
        resume_from_checkpoint="auto" if training.resume_from_checkpoint else None,
    )


def _log_agreement(when: str, judge: Judge, texts: TrainingTexts, teacher: Teacher, chosen: np.ndarray) -> float:
    """Logs how far a judge is from its teacher on some of the pairs with votes; returns its mass on the answers."""
    targets = teacher.between(*texts.sides[chosen].T)
    judgments = judge.probabilities([texts.pairs[i] for i in chosen])
    distance, mass = np.sqrt(np.nanmean((judgments.p_sym - targets) ** 2)), float(judgments.valid.mean())
    parts = [f"root mean square distance to the teacher {distance:.3f}", f"mass on answers {mass:.3g}"]
    if not judge.is_pointwise:
        parts.append(f"position bias {np.abs(judgments.p_ab + judgments.p_ba - 1).mean():.3f}")
    logger.info(f"{when} teaching, {len(chosen)} training pairs: {', '.join(parts)}")
    return mass
