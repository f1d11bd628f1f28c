"""Train a judge by GRPO on votes, and measure it in both orders before, during and after.

    accelerate launch recipes/grpo.py                                                 # simulated annotators, on a CPU
    accelerate launch recipes/grpo.py --dataset_name votes.jsonl --split_by topic     # your votes, small policy
    accelerate launch recipes/grpo.py --config recipes/configs/grpo_convincing.yaml   # real votes, see the file
    accelerate launch recipes/grpo.py --dataset_name votes.jsonl --model_name_or_path Qwen/Qwen2.5-7B-Instruct

With neither --config nor --model_name_or_path it takes its settings from recipes/configs/grpo_simulated.yaml. Any key
of a config can be given on the command line, which wins (--use_peft, --max_steps 100, …). In --output_dir it leaves
metrics.json, predictions.jsonl, report.html, reliability.png and the judge, for `autorater.Judge.from_pretrained`.
"""

import sys
from pathlib import Path

from autorater.console import config_arguments, prepare_output_dir, quiet_libraries, run_script

DEFAULT_CONFIG = Path(__file__).parent / "configs" / "grpo_simulated.yaml"


def main() -> None:
    quiet_libraries()
    from datasets import Dataset
    from trl import ModelConfig, TrlParser, get_peft_config

    import rewards
    from autorater.evaluation import evaluate, write_run
    from autorater.judges import Judge
    from autorater.policy import load_policy
    from autorater.prompts import PromptFormat, drop_long, longest_prompt
    from autorater.report import summary_table, write_model_card, write_report
    from autorater.training.callbacks import CalibrationCallback, show_progress
    from autorater.training.config import JudgeArguments, JudgeGRPOConfig, model_init_kwargs, settings
    from autorater.training.data import prepare_data
    from autorater.training.grpo import JudgeGRPOTrainer, training_rows
    from autorater.training.tracking import start_tracking
    from autorater.training.warm_start import build_warm_policy

    parser = TrlParser((JudgeArguments, JudgeGRPOConfig, ModelConfig))
    args, training, model_config = parser.parse_args_and_config(config_arguments(sys.argv[1:], DEFAULT_CONFIG))
    output_dir = prepare_output_dir(training.output_dir)
    say = print if training.process_index == 0 else lambda *_: None

    data = prepare_data(args, training.seed)
    say(data.summary + (f"\n{training.world_size} processes" if training.world_size > 1 else ""))
    base = model_config.model_name_or_path
    if base is None:
        base = build_warm_policy(args, training, data)
    model, tokenizer = load_policy(base, **model_init_kwargs(model_config, training.use_cpu))
    model.to(training.device)
    prompt_format = PromptFormat(args.prompt_layout, training.reasoning)
    judge = Judge(model, tokenizer, prompt_format, training.answer_step, training.max_completion_length)

    longest = longest_prompt(model, judge.answer_tokens, args.max_prompt_tokens)
    train, prompts, dropped = drop_long(data.train, judge.encoder.encode(data.train), longest)
    held_out, held_out_prompts, lost = drop_long(data.held_out, judge.encoder.encode(data.held_out), longest)
    say(f"prompts over {longest} tokens, left out: {dropped} training pairs, {lost} held-out pairs")
    before = evaluate(judge, held_out, held_out_prompts, progress=training.process_index == 0)

    used = settings(args, training, model_config)
    start_tracking(training, used)
    trainer = JudgeGRPOTrainer(
        model,
        getattr(rewards, f"{args.reward}_reward"),
        training,
        judge.tree,
        train_dataset=Dataset.from_list(training_rows(train, prompts, training.orders)),
        processing_class=tokenizer,
        peft_config=get_peft_config(model_config),
    )
    judge.model = trainer.accelerator.unwrap_model(trainer.model)
    trainer.add_callback(CalibrationCallback(trainer, judge, held_out, held_out_prompts, args.n_eval_pairs))
    show_progress(trainer)
    trained = trainer.train(resume_from_checkpoint=training.resume_from_checkpoint)

    after = evaluate(judge, held_out, held_out_prompts, progress=training.process_index == 0)
    trainer.save_model()
    if training.process_index == 0:
        judge.save_format(output_dir)
        write_run(output_dir, before, after, training_seconds=trained.metrics["train_runtime"])
        write_report(output_dir, before, after, title="GRPO on votes", settings=used)
        write_model_card(
            output_dir, base_model=base, prompt_text=prompt_format.text, before=before, after=after, settings=used
        )
        say(f"\n{summary_table(before, after)}\n\nreport: {output_dir / 'report.html'}")


if __name__ == "__main__":
    run_script(main)
