"""A training run from its pairs to its report: what the recipes that train a judge of pairs have in common.

    run = open_run(args, training, model_config, …)     data, policy, judge; over-long prompts left out; measured
    trainer = …Trainer(run.judge.model, …)              what a recipe is about
    run.finish(trainer, title="…")                      trained, measured again, saved and reported

Deliberately left out: judges of items (`recipes/align.py`), which are measured on other figures.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import Trainer, TrainingArguments
from trl import ModelConfig

from autorater.console import prepare_output_dir
from autorater.evaluation import Evaluation, evaluate, write_run
from autorater.judges import Judge
from autorater.pairs import Pair
from autorater.policy import load_policy
from autorater.prompts import EncodedPrompt, PromptFormat, drop_long, longest_prompt
from autorater.report import summary_table, write_model_card, write_report
from autorater.sharding import gathered
from autorater.training.callbacks import CalibrationCallback, show_progress
from autorater.training.config import JudgeArguments, model_init_kwargs, settings
from autorater.training.data import prepare_data
from autorater.training.tracking import start_tracking
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

    def finish(self, trainer: Trainer, title: str) -> None:
        """Trains, measures the judge on the held-out pairs while and after, and fills the output folder."""
        judge, output_dir = self.judge, Path(self.training.output_dir)
        judge.model = trainer.accelerator.unwrap_model(trainer.model)
        trainer.add_callback(
            CalibrationCallback(trainer, judge, self.held_out, self.held_out_prompts, self.args.n_eval_pairs)
        )
        show_progress(trainer)
        trained = trainer.train(resume_from_checkpoint=self.training.resume_from_checkpoint)
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
        ValueError: If options do not fit, or nothing can be written to the output folder.
    """
    prepare_output_dir(training.output_dir)
    is_main = training.process_index == 0
    say = print if is_main else lambda *_: None
    data = prepare_data(args, training.seed)
    say(data.summary + (f"\n{training.world_size} processes" if training.world_size > 1 else ""))
    base = model_config.model_name_or_path or build_warm_policy(args, training, data)
    model, tokenizer = load_policy(base, **model_init_kwargs(model_config, training.use_cpu))
    judge = Judge(model.to(training.device), tokenizer, prompt_format, training.answer_step, max_reasoning_tokens)

    longest = longest_prompt(model, judge.answer_tokens, args.max_prompt_tokens)
    train, prompts, dropped = drop_long(data.train, judge.encoder.encode(data.train), longest)
    held_out, held_out_prompts, lost = drop_long(data.held_out, judge.encoder.encode(data.held_out), longest)
    say(f"prompts over {longest} tokens, left out: {dropped} training pairs, {lost} held-out pairs")
    with gathered(model):
        before = evaluate(judge, held_out, held_out_prompts, progress=is_main)
    used = settings(args, training, model_config)
    start_tracking(training, used)
    return JudgeRun(args, training, judge, base, train, prompts, held_out, held_out_prompts, before, used)
