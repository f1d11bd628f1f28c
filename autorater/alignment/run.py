"""An alignment run: data, policy, evaluation, training, evaluation, and the files of the output folder.

Judges of items and of pairs are trained alike. Judges of pairs are evaluated as all judges of pairs, in both orders;
judges of items by `autorater.alignment.evaluation`.
"""

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial

from datasets import Dataset
from transformers import PreTrainedTokenizerBase, Trainer, TrainerCallback
from trl import ModelConfig

from autorater.alignment.arguments import AlignmentArguments, ineffective_for_labels
from autorater.alignment.data import prepare_items, prepare_pair_items
from autorater.alignment.evaluation import ItemEvaluation, evaluate_items
from autorater.alignment.judge import LabelJudge
from autorater.alignment.labels import LabelFormat, LabelTree
from autorater.alignment.report import TITLE, write_item_run
from autorater.alignment.trainer import AlignmentConfig, AlignmentTrainer, alignment_rows
from autorater.data.errors import UserError
from autorater.data.items import ItemSet
from autorater.data.pairs import Pair
from autorater.evaluation.judge import Evaluation, evaluate
from autorater.models.sharding import gathered
from autorater.prompts.batching import drop_long, longest_prompt
from autorater.prompts.encoder import EncodedPrompt, PromptEncoder, log_layout_difference
from autorater.training.callbacks import CalibrationCallback
from autorater.training.data import TrainingData
from autorater.training.memory import log_memory
from autorater.training.options import RunOptions
from autorater.training.policy import open_policy
from autorater.training.precision import evaluation_precision
from autorater.training.results import write_pair_run
from autorater.training.run import FROM_SCRATCH, begin_run, finish_run, shown_settings
from autorater.training.tracking import start_tracking
from autorater.training.warm_start import warm_started

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class HeldOut:
    """What a run is evaluated on, pairs or items, and how.

    Attributes:
        rows: Those whose prompts fit.
        n_long: The number of the others.
        trained: What the training is on, in a message.
        evaluate: Judges and measures the rows.
        write: Writes the files of a finished run: takes its folder, its card, both evaluations and the seconds.
        callbacks: Takes the trainer; returns what evaluates the judge during the training.
    """

    rows: Sequence[Pair] | ItemSet
    n_long: int
    trained: str
    evaluate: Callable[[], Evaluation | ItemEvaluation]
    write: Callable[..., None]
    callbacks: Callable[[Trainer], list[TrainerCallback]]


def run_alignment(
    args: AlignmentArguments,
    training: AlignmentConfig,
    model_config: ModelConfig,
    given: Collection[str] = (),
) -> None:
    """Trains a judge and evaluates it before and after; arguments and exceptions as in `autorater.training.run`."""
    if model_config.use_peft:
        raise UserError("use_peft is not supported by recipes/align.py, which trains the parameters of the model")
    options = RunOptions(args, training, model_config, given)
    for reason, names in ineffective_for_labels(args, bool(options.pretrained), given).items():
        logger.warning(f"{', '.join(names)}: no effect, because {reason}")
    of_pairs = args.data == "pairs"
    pairs, data = prepare_pair_items(args, training.seed) if of_pairs else (None, prepare_items(args, training.seed))
    label_format = LabelFormat(data.train.task, args.prompt_template, args.synonyms or {}, args.system_prompt)
    record, settings = begin_run(options, data)
    build = partial(build_warm_label_policy, args, training, data, label_format)
    model, tokenizer, pieces = open_policy(options, record, build, label_format)
    judge = LabelJudge(model, tokenizer, label_format, pieces=pieces)
    log_layout_difference(judge.encoder)

    longest = longest_prompt(model, judge.answer_tokens, args.max_prompt_tokens)
    train, train_prompts, n_long = _drop_long(judge, data.train, longest)
    progress = training.process_index == 0 and not training.disable_tqdm
    if of_pairs:
        held_out = _held_out_pairs(judge, pairs.held_out, longest, args.n_eval_pairs, progress)
    else:
        held_out = _held_out_items(judge, data.held_out, longest, progress)
    logger.info(
        f"dropped because the prompt has more than {longest:,} tokens: {n_long:,} {held_out.trained}, "
        f"{held_out.n_long:,} held-out {args.data}"
    )
    if not (len(train) and len(held_out.rows)):
        raise UserError(f"no training item, or no held-out one, has a prompt of at most {longest} tokens")
    log_memory(judge, [(prompt,) for prompt in train_prompts], training, model_config)
    with gathered(model), evaluation_precision(training):
        before = held_out.evaluate()

    start_tracking(training, settings, record.run)
    rows = Dataset.from_list(alignment_rows(train, train_prompts))
    trainer = AlignmentTrainer(model, training, judge.tree, tokenizer.pad_token_id, train_dataset=rows)
    for callback in held_out.callbacks(trainer):
        trainer.add_callback(callback)
    ineffective = ineffective_for_labels(args, bool(options.pretrained), settings)
    unused = [name for names in ineffective.values() for name in names]
    shown = shown_settings(settings, options)
    card = {
        "base_model": options.pretrained or FROM_SCRATCH,
        "prompt_text": label_format.text,
        "settings": {name: value for name, value in shown.items() if name not in unused},
        "labels": label_format.task.labels,
        "warning": data.warning,
    }
    finish_run(trainer, judge, record, held_out.evaluate, partial(held_out.write, training.output_dir, card, before))


def _held_out_pairs(judge: LabelJudge, pairs: list[Pair], longest: int, n_eval_pairs: int, progress: bool) -> HeldOut:
    kept, prompts, n_long = drop_long(pairs, judge.encoder.encode(pairs), longest)

    def callbacks(trainer: Trainer) -> list[TrainerCallback]:
        return [CalibrationCallback(trainer, judge, kept, prompts, n_eval_pairs)]

    return HeldOut(
        rows=kept,
        n_long=n_long,
        trained="prompts of training pairs",
        evaluate=partial(evaluate, judge, kept, prompts, progress=progress),
        write=partial(write_pair_run, title=TITLE, method="alignment"),
        callbacks=callbacks,
    )


def _held_out_items(judge: LabelJudge, items: ItemSet, longest: int, progress: bool) -> HeldOut:
    kept, prompts, n_long = _drop_long(judge, items, longest)
    return HeldOut(
        rows=kept,
        n_long=n_long,
        trained="training items",
        evaluate=partial(evaluate_items, judge, kept, prompts, progress=progress),
        write=write_item_run,
        callbacks=lambda _: [],
    )


def build_warm_label_policy(
    args: AlignmentArguments, training: AlignmentConfig, data: TrainingData[ItemSet], label_format: LabelFormat
) -> str:
    """As `autorater.training.warm_start.build_warm_policy`, for a policy that answers with a label."""

    def rows(tokenizer: PreTrainedTokenizerBase) -> list[dict]:
        encoder = PromptEncoder(tokenizer, label_format)
        label_tokens = LabelTree(tokenizer, encoder.context, label_format.words).label_tokens
        prompts = encoder.encode_texts([item.texts for item in data.warm_start.items])
        return [
            {"prompt_ids": prompt.ids, "answer_ids": [*label_tokens[verdict], tokenizer.eos_token_id]}
            for prompt, verdict in zip(prompts, data.verdicts, strict=True)
            if len(prompt.ids) <= args.max_prompt_tokens
        ]

    words = "".join(f" {word}" for words in label_format.words for word in words)
    texts = [item.texts for item in data.train.items]
    return warm_started(args, training, texts, label_format.text + words, rows)


def _drop_long(judge: LabelJudge, items: ItemSet, longest: int) -> tuple[ItemSet, list[EncodedPrompt], int]:
    """The items whose prompts fit, their prompts, and the number of the others."""
    kept, prompts, n_dropped = drop_long(items.items, [(prompt,) for prompt in judge.encode(items)], longest)
    return ItemSet(items.task, kept), [prompt for (prompt,) in prompts], n_dropped
