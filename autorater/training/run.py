"""A training run: what the recipes share, from the data to the report.

    run = open_run(args, training, model_config, …)     data, policy and judge; evaluated before training
    trainer = …Trainer(run.judge.model, …)              differs by recipe
    run.finish(trainer, title="…", method="…")          trained, evaluated again, saved and reported

`autorater.alignment.run` uses its parts, `begin_run` and `finish_run`. The same command with
`--resume_from_checkpoint auto` resumes a run that was stopped. A signal stops it after a checkpoint
(`autorater.training.preemption`).
"""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import torch
from peft import PeftConfig
from transformers import Trainer, TrainingArguments
from trl import ModelConfig

from autorater.data.errors import UserError
from autorater.data.pairs import Pair
from autorater.evaluation.judge import Evaluation, evaluate, judge_all, measure
from autorater.evaluation.objective import trained_from
from autorater.evaluation.results import prepare_output_dir
from autorater.evaluation.stored_judgments import read_stored, stored_at
from autorater.judges import Judgments
from autorater.judges.identity import CONTENTS_OF, contents_of
from autorater.judges.local import Judge
from autorater.judges.opening import judge_settings
from autorater.judges.pointwise import PointwiseJudge
from autorater.models.saving import replacing_weights
from autorater.models.sharding import gathered
from autorater.prompts.batching import drop_long, longest_prompt
from autorater.prompts.encoder import EncodedPrompt, log_layout_difference
from autorater.prompts.templates import TemplateFormat
from autorater.training.adapters import name_gguf, new_adapter
from autorater.training.arguments import JudgeArguments, ineffective_options
from autorater.training.callbacks import CalibrationCallback
from autorater.training.checkpointing.checkpoints import writes_to
from autorater.training.checkpointing.record import RunRecord, from_main
from autorater.training.checkpointing.stages import EVALUATED, REPORT
from autorater.training.checks import check_run
from autorater.training.compatibility import REASONING, is_pointwise
from autorater.training.config import JudgeGRPOConfig, non_default_settings
from autorater.training.data import TrainingData, prepare_data
from autorater.training.faults import check_batch
from autorater.training.format_warm_up import teach_format
from autorater.training.interruptible import run_training
from autorater.training.memory import log_memory, log_warm_up_memory
from autorater.training.options import RunOptions
from autorater.training.policy import open_policy, reopen
from autorater.training.precision import evaluation_precision, use_pretrained_defaults, warn_of_emulation
from autorater.training.prefix_sharing import check_answers_at_once
from autorater.training.recalibration import fit_platt, fit_temperature
from autorater.training.results import upload, write_pair_run
from autorater.training.teaching.stage import learn_from_teacher
from autorater.training.teaching.teachers import labelled_by
from autorater.training.tracking import start_tracking
from autorater.training.warm_start import build_warm_policy

FROM_SCRATCH = "a small policy from scratch"  # the base model in a card
Prompts = tuple[EncodedPrompt, EncodedPrompt]
T = TypeVar("T")
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EncodedPairs:
    """Pairs and their prompts in both orders."""

    pairs: list[Pair]
    prompts: Sequence[Prompts]


@dataclass
class JudgeRun:
    """The training run of a judge of pairs.

    Attributes:
        judge: The judge of the model to train, `judge.model`, with `judge.tokenizer`.
        train, held_out: The pairs to train on and to evaluate on.
        recalibration: The pairs that a recalibration is fitted to, if there is one.
        before: The evaluation before training.
        card: As in `write_pair_run`.
    """

    options: RunOptions
    record: RunRecord
    judge: Judge
    train: EncodedPairs
    held_out: EncodedPairs
    recalibration: EncodedPairs | None
    before: Evaluation
    card: Mapping[str, object]

    @property
    def peft_config(self) -> PeftConfig | None:
        """The adapter to add; None if the model already is one, which training continues."""
        return new_adapter(self.judge.model, self.options.model_config, self.options.given)

    def finish(self, trainer: Trainer, title: str, method: str) -> None:
        """Trains `judge.model`, evaluates it and writes the output folder; options as in `write_pair_run`."""
        held_out = self.held_out.pairs, self.held_out.prompts
        trainer.add_callback(CalibrationCallback(trainer, self.judge, *held_out, self.options.args.n_eval_pairs))
        folder = self.options.training.output_dir
        write = partial(write_pair_run, folder, self.card, self.before, title=title, method=method)
        finish_run(trainer, self.judge, self.record, self._evaluate, write)

    def _evaluate(self) -> Evaluation:
        args, training = self.options.args, self.options.training
        progress = not training.disable_tqdm
        if self.recalibration is not None:
            pairs = self.recalibration.pairs
            judgments = judge_all(self.judge, pairs, self.recalibration.prompts, progress=progress)
            with_shift = args.recalibration == "platt" and not is_pointwise(training)
            fit = fit_platt if with_shift else fit_temperature
            self.judge.recalibration = fit(judgments, pairs, args.temperature_labels)
        return evaluate(self.judge, self.held_out.pairs, self.held_out.prompts, progress=progress)


def open_run(
    args: JudgeArguments,
    training: TrainingArguments,
    model_config: ModelConfig,
    prompt_format: TemplateFormat,
    max_reasoning_tokens: int = 512,
    given: Collection[str] = (),
) -> JudgeRun:
    """Loads the data, loads or builds the policy, evaluates it and, if asked to, warms it up.

    Args:
        args, training, model_config, given: As in `RunOptions`; `training` has an `answer_step`.
        prompt_format: That of the judge, which is pointwise if the mode of `training` is.
        max_reasoning_tokens: As in `Judge`; without effect on a pointwise judge.

    Raises:
        UserError, AlreadyFinished: If a row is invalid, no pair fits, or as in `begin_run`.
    """
    options = RunOptions(args, training, model_config, given)
    data = prepare_data(args, training.seed)
    if isinstance(training, JudgeGRPOConfig) and not is_pointwise(training):  # later also of the pairs that fit
        check_batch(len(data.train) * (1 if training.orders == "coupled" else 2), training)
    record, settings = begin_run(options, data)
    build = partial(build_warm_policy, args, training, data)
    model, tokenizer, pieces = open_policy(options, record, build, prompt_format)
    if is_pointwise(training):
        judge = PointwiseJudge(model, tokenizer, training.score_scale, prompt_format=prompt_format, pieces=pieces)
    else:
        judge = Judge(model, tokenizer, prompt_format, training.answer_step, max_reasoning_tokens, pieces=pieces)
    del model  # a warm-up replaces that of the judge
    log_layout_difference(judge.encoder)

    longest = longest_prompt(judge.model, judge.answer_tokens + judge.tree.closing_tokens, args.max_prompt_tokens)
    train, held_out, recalibration = _short_enough(judge, data, longest)
    if recalibration is not None and args.temperature_labels == "teacher":
        with evaluation_precision(training):  # before the training takes the memory
            pairs = labelled_by(args.teacher, recalibration.pairs, training.device, progress=not training.disable_tqdm)
        recalibration = replace(recalibration, pairs=pairs)
    if getattr(training, "mode", "") == REASONING:
        with gathered(judge.model):
            some_prompt = train.prompts[0][0].ids
            check_answers_at_once(judge.model, judge.tree, some_prompt, training.gradient_checkpointing)
    log_memory(judge, train.prompts, training, model_config)
    if options.pretrained and record.warm_start is None and args.warm_start_steps:
        log_warm_up_memory(judge, train.prompts, options)
    opened_warm = record.warm_start is not None and EVALUATED in record.completed
    before = _judged_before(judge, held_out, options, record)
    if options.pretrained and not opened_warm:  # a policy from scratch was warmed up when it was built
        _warm_up(judge, train, data.warm_start, before, longest, options, record)
    start_tracking(training, settings, record.run)
    card = {
        "base_model": from_main(lambda: trained_from(training.output_dir)[0]) if options.pretrained else FROM_SCRATCH,
        "prompt_text": judge.encoder.format.described,
        "settings": shown_settings(settings, options),
        "warning": data.warning,
        "pointwise": is_pointwise(training),
    }
    return JudgeRun(options, record, judge, train, held_out, recalibration, before, card)


def _short_enough(
    judge: Judge, data: TrainingData[list[Pair]], longest: int
) -> tuple[EncodedPairs, EncodedPairs, EncodedPairs | None]:
    """The pairs to train on, to evaluate on and to recalibrate on whose prompts have at most `longest` tokens."""
    short: list[EncodedPairs | None] = []
    dropped = []
    for name, pairs in (("training", data.train), ("held-out", data.held_out), ("recalibration", data.recalibration)):
        if pairs is None:
            short.append(None)
            continue
        *kept, n_long = drop_long(pairs, judge.encoder.encode(pairs), longest)
        short.append(EncodedPairs(*kept))
        dropped.append(f"{n_long:,} {name}")
        if not short[-1].pairs:
            raise UserError(f"no {name} pair has a prompt of at most {longest} tokens")
    logger.info(f"pairs dropped because the prompt has more than {longest:,} tokens: {', '.join(dropped)}")
    return tuple(short)


def _judged_before(judge: Judge, held_out: EncodedPairs, options: RunOptions, record: RunRecord) -> Evaluation:
    """The evaluation before training, from the judgments that the run or another one has stored, if there are any."""

    def judge_held_out() -> Judgments:
        progress = not options.training.disable_tqdm
        return judge_all(judge, held_out.pairs, held_out.prompts, progress=progress)

    def judge_or_read() -> Judgments:
        if options.pretrained and options.args.untrained_judgments_dir:
            return _kept_judgments(judge, held_out.pairs, options, judge_held_out)
        return judge_held_out()

    with gathered(judge.model), evaluation_precision(options.training):
        return measure(held_out.pairs, record.judgments_before(judge_or_read))


def _kept_judgments(
    judge: Judge, held_out: list[Pair], options: RunOptions, judge_held_out: Callable[[], Judgments]
) -> Judgments:
    """The judgments of an untrained judge from `untrained_judgments_dir`; they are made and kept there if missing."""
    args, training, model_config, _ = options
    settings = judge_settings(options.pretrained, judge), model_config.model_revision
    answers = judge.max_reasoning_tokens, getattr(judge, "scale", None)
    precision = torch.is_autocast_enabled(training.device.type)
    quantized = model_config.load_in_4bit, model_config.load_in_8bit
    about = (*settings, judge.encoder.pieces, *answers, precision, *quantized)
    path = from_main(partial(stored_at, args.untrained_judgments_dir, about, held_out))
    judgments = from_main(partial(read_stored, path))
    if judgments is not None:
        logger.info(f"judgments before training: those of {path}")
        return judgments
    judgments = judge_held_out()
    if training.process_index == 0:
        with writes_to(args.untrained_judgments_dir):
            judgments.save(path)
    return judgments


def _warm_up(
    judge: Judge,
    train: EncodedPairs,
    loaded: Sequence[Pair],
    before: Evaluation,
    longest: int,
    options: RunOptions,
    record: RunRecord,
) -> None:
    """Gives a pretrained judge the weights that training begins from, after it was evaluated without them."""
    if record.warm_start is not None:
        reopen(judge, options, record.warm_start)
    elif options.args.teacher:
        learn_from_teacher(judge, train.pairs, options, record, longest, loaded)
    else:
        teach_format(judge, train.prompts, before, options, record)


def begin_run(options: RunOptions, data: TrainingData) -> tuple[RunRecord, dict[str, object]]:
    """Checks options, libraries and output folder, and begins a run or resumes it.

    A warning names the options that the user set and that have no effect.

    Args:
        options: The options; some of `training` may change.
        data: The rows of the run.

    Returns:
        The completed stages, and all settings that are not defaults.

    Raises:
        UserError: As in `check_run`, or if the output folder cannot be written or the run to resume began with other
            settings.
        AlreadyFinished: If the run to resume is finished.
    """
    args, training, model_config, given = options
    check_run(args, training, model_config)
    for reason, names in _without_effect(options).items():
        logger.warning(f"{', '.join(names)}: no effect, because {reason}")
    if "run_name" not in given and not {"output_dir", "dataset_name"}.isdisjoint(given):
        training.run_name = None  # that of the default config is the name of another run
    use_pretrained_defaults(training, model_config, given)
    warn_of_emulation(training)
    prepare_output_dir(training.output_dir)
    logger.info(data.summary)
    if data.warning:
        logger.warning(data.warning)
    if training.world_size > 1:
        logger.info(f"{training.world_size} processes")
    settings = non_default_settings(args, training, model_config)
    contents = contents_of({"warm_start_verdicts": args.warm_start_verdicts})
    if args.dataset_name:  # else they are simulated from the settings
        contents[f"{CONTENTS_OF}the data"] = data.digest
    record = RunRecord.open(training, settings | contents, data.summary)
    if training.resume_from_checkpoint and training.save_strategy == "no":
        logger.info("save_strategy: no: a checkpoint is saved only when a signal stops the run")
    return record, settings


def _without_effect(options: RunOptions) -> dict[str, list[str]]:
    args, training, model_config, given = options
    pretrained, mode = bool(options.pretrained), getattr(training, "mode", "")
    use_vllm = getattr(training, "use_vllm", False)
    return ineffective_options(args, pretrained, mode, given, training.eval_steps, model_config.use_peft, use_vllm)


def shown_settings(settings: Mapping[str, object], options: RunOptions) -> dict[str, object]:
    """The settings for report and card: those with an effect, learning rate and seed also if they are defaults."""
    always = {name: getattr(options.training, name) for name in ("learning_rate", "seed")}
    without_effect = _without_effect(options._replace(given=settings))
    unused = {name for names in without_effect.values() for name in names}
    return {k: value for k, value in (always | settings).items() if value not in (None, []) and k not in unused}


def finish_run(
    trainer: Trainer, judge, record: RunRecord, evaluate: Callable[[], T], write: Callable[[T, float], None]
) -> None:
    """Trains `judge.model`, evaluates it, saves it with its format and writes the results.

    Args:
        evaluate: Evaluates the judge; all processes call it.
        write: Takes the evaluation and the seconds of training; the main process calls it.
    """
    judge.model = trainer.accelerator.unwrap_model(trainer.model)
    name_gguf(judge.model)  # also of an adapter that TRL has added
    trained = run_training(trainer, record)
    # without the trainer's autocast: in the precision of the evaluation before training
    judge.model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    folder = trainer.args.output_dir
    is_main = trainer.args.process_index == 0
    with writes_to(folder):
        with replacing_weights(folder, is_main):
            trainer.save_model(_internal_call=True)  # before the evaluation, which a signal may end; no upload yet
        if is_main:
            judge.tokenizer.save_pretrained(folder)
            judge.save_format(folder)
    with evaluation_precision(trainer.args):
        after = evaluate()
    if is_main:
        with writes_to(folder):
            judge.save_format(folder)  # with the recalibration
            write(after, trained.metrics["train_runtime"])
        if trainer.args.push_to_hub:
            upload(trainer)
    record.mark(REPORT)
