"""A training run from its pairs to its report: what the recipes that train a judge of pairs have in common.

    run = open_run(args, training, model_config, …)     data, policy, judge; over-long prompts left out; measured
    trainer = …Trainer(run.judge.model, …)              what a recipe is about
    run.finish(trainer, title="…")                      trained, measured again, saved and reported

A run that was killed goes on where it was when its command is given again with `--resume_from_checkpoint auto`, and a
run that is asked to leave (`autorater.training.preemption`) puts a checkpoint down first.

Deliberately left out: judges of items (`recipes/align.py`), which are measured on other figures.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import Trainer, TrainingArguments
from transformers.trainer_utils import TrainOutput
from trl import ModelConfig

from autorater.data.pairs import Pair
from autorater.evaluation.judge import Evaluation, evaluate, judge_all, measure
from autorater.evaluation.results import prepare_output_dir, write_run
from autorater.judges import Judge
from autorater.models.loading import load_policy, train_only
from autorater.models.sharding import gathered
from autorater.prompts.batching import drop_long, longest_prompt
from autorater.prompts.encoder import EncodedPrompt
from autorater.prompts.templates import PromptFormat
from autorater.report import summary_table, write_model_card, write_report
from autorater.training.callbacks import CalibrationCallback, LogFileCallback, PreemptionCallback, show_progress
from autorater.training.checkpointing.checkpoints import checkpoints
from autorater.training.checkpointing.record import RunRecord
from autorater.training.config import JudgeArguments, model_init_kwargs, settings
from autorater.training.data import prepare_data
from autorater.training.preemption import leave, notice
from autorater.training.tracking import forgive_tracker, start_tracking
from autorater.training.warm_start import build_warm_policy

Prompts = tuple[EncodedPrompt, EncodedPrompt]


@dataclass
class JudgeRun:
    """A run that is open: what was read, what will be trained, and how it judged before.

    Attributes:
        args, training: What the run was told.
        judge: Reads the model that will be trained, `judge.model`, with `judge.tokenizer`.
        base: Name or folder of the model that the training starts from.
        train, prompts: Training pairs with their prompts in both orders.
        held_out, held_out_prompts: The pairs it is measured on.
        before: How the judge did before the training.
        used: Every setting that is not a default, for the report and the tracker.
        record: What it has behind it.
    """

    args: JudgeArguments
    training: TrainingArguments
    judge: Judge
    base: str
    train: list[Pair]
    prompts: Sequence[Prompts]
    held_out: list[Pair]
    held_out_prompts: Sequence[Prompts]
    before: Evaluation
    used: dict
    record: RunRecord

    def finish(self, trainer: Trainer, title: str) -> None:
        """Trains, measures the judge on the held-out pairs while and after, and fills the output folder."""
        judge, output_dir = self.judge, Path(self.training.output_dir)
        judge.model = trainer.accelerator.unwrap_model(trainer.model)
        trainer.add_callback(
            CalibrationCallback(trainer, judge, self.held_out, self.held_out_prompts, self.args.n_eval_pairs)
        )
        trained = run_training(trainer, self.record)
        is_main = self.training.process_index == 0
        after = evaluate(judge, self.held_out, self.held_out_prompts, progress=is_main)
        trainer.save_model()
        if is_main:
            judge.save_format(output_dir)
            write_run(output_dir, self.before, after, training_seconds=trained.metrics["train_runtime"])
            told = {"before": self.before, "after": after, "settings": self.used}
            write_report(output_dir, title=title, **told)
            write_model_card(output_dir, base_model=self.base, prompt_text=judge.encoder.format.text, **told)
            print(f"\n{summary_table(self.before, after)}\n\nreport: {output_dir / 'report.html'}")
        self.record.mark("report")


def run_training(trainer: Trainer, record: RunRecord) -> TrainOutput:
    """Trains from the start or a checkpoint, with progress bar and log; ends the process where it is asked to."""
    args = trainer.args
    show_progress(trainer)
    forgive_tracker(trainer)
    trainer.about = record.about
    with notice() as asked:
        preemption = PreemptionCallback(asked)
        trainer.add_callback(LogFileCallback(Path(args.output_dir, "log.jsonl")))
        trainer.add_callback(preemption)
        trained = trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    if preemption.leaving or asked.signal:
        newest = next(iter(checkpoints(args.output_dir, record.run)), "there is no checkpoint")
        leave(
            f"asked to leave ({asked.signal or 'another process'}) behind step {trainer.state.global_step} of "
            f"{trainer.state.max_steps}: {newest}; the same command with --resume_from_checkpoint auto goes on"
        )
    return trained


def open_run(
    args: JudgeArguments,
    training: TrainingArguments,
    model_config: ModelConfig,
    prompt_format: PromptFormat,
    max_reasoning_tokens: int = 512,
) -> JudgeRun:
    """Reads the data, loads the policy or builds one, and measures it.

    Args:
        args, training, model_config: As parsed; `training` has an `answer_step`.
        prompt_format: What the judge is asked.
        max_reasoning_tokens: Where the format asks for reasoning: as in `Judge`.

    Raises:
        DataError: If a row is bad.
        ValueError: If options do not fit, no pair fits, nothing can be written to the output folder, or the run to go
            on with began with other settings.
        AlreadyFinished: If it should go on with a run that is finished.
    """
    if args.train_only and model_config.use_peft:
        raise ValueError("train_only chooses among the model's own parameters; adapters have lora_target_modules")
    prepare_output_dir(training.output_dir)
    is_main = training.process_index == 0
    say = print if is_main else lambda *_: None
    data = prepare_data(args, training.seed)
    say(data.summary + (f"\n{training.world_size} processes" if training.world_size > 1 else ""))
    used = settings(args, training, model_config)
    record = RunRecord.open(training, used, data.summary)
    if training.resume_from_checkpoint and training.save_strategy == "no":
        say("save_strategy: no: there will be a checkpoint only where the run is asked to leave")
    base = model_config.model_name_or_path or record.once(
        "warm_start", lambda: build_warm_policy(args, training, data)
    )
    model, tokenizer = load_policy(base, **model_init_kwargs(model_config, training.use_cpu))
    if args.train_only:
        train_only(model, args.train_only)
    judge = Judge(model.to(training.device), tokenizer, prompt_format, training.answer_step, max_reasoning_tokens)

    longest = longest_prompt(model, judge.answer_tokens + judge.tree.closing_tokens, args.max_prompt_tokens)
    kept, prompts, dropped = drop_long(data.train, judge.encoder.encode(data.train), longest)
    held_out, held_out_prompts, lost = drop_long(data.held_out, judge.encoder.encode(data.held_out), longest)
    say(f"prompts over {longest} tokens, left out: {dropped} training pairs, {lost} held-out pairs")
    for name, left in (("training", kept), ("held-out", held_out)):
        if not left:
            raise ValueError(f"no {name} pair has a prompt of at most {longest} tokens")
    with gathered(model):
        said = record.judged_before(lambda: judge_all(judge, held_out, held_out_prompts, progress=is_main))
    before = measure(held_out, said)
    start_tracking(training, used, record.run)
    return JudgeRun(args, training, judge, base, kept, prompts, held_out, held_out_prompts, before, used, record)
