"""Train a judge by PPO on votes, with one sampled answer per prompt, or by RLOO; evaluated as in recipes/grpo.py.

    accelerate launch recipes/ppo.py                                                # simulated annotators, on a CPU
    accelerate launch recipes/ppo.py --algorithm rloo                               # the other answers as the baseline
    accelerate launch recipes/ppo.py --dataset_name votes.jsonl --split_by topic    # your votes, small policy
    accelerate launch recipes/ppo.py --dataset_name votes.jsonl --model_name_or_path Qwen/Qwen2.5-7B-Instruct

Without --config and --model_name_or_path the settings are those of recipes/configs/ppo_simulated.yaml. Options on the
command line override a config (--use_peft, --max_steps 100, …). Writes metrics.json, predictions.jsonl, report.html,
reliability.png, the judge, for `autorater.Judge.from_pretrained`, and PPO's value head to --output_dir.
"""

from pathlib import Path

from autorater.cli import parse_arguments, run_script
from autorater.models.libraries import quiet_libraries

DEFAULT_CONFIG = Path(__file__).parent / "configs" / "ppo_simulated.yaml"


def main() -> None:
    quiet_libraries()
    from datasets import Dataset
    from trl import ModelConfig, get_peft_config

    import rewards
    from autorater.prompts.templates import PromptFormat
    from autorater.training.arguments import JudgeArguments
    from autorater.training.data import training_rows
    from autorater.training.grpo import grpo_trainer
    from autorater.training.ppo import JudgePPOConfig
    from autorater.training.run import open_run

    parsed = parse_arguments((JudgeArguments, JudgePPOConfig, ModelConfig), DEFAULT_CONFIG)
    args, training, model_config = parsed
    prompt_format = PromptFormat(args.prompt_layout, training.reasoning)
    run = open_run(args, training, model_config, prompt_format, training.max_completion_length, parsed.given)
    trainer = grpo_trainer(
        run.judge.model,
        getattr(rewards, f"{training.reward}_reward"),
        training,
        run.judge.tree,
        train_dataset=Dataset.from_list(training_rows(run.train, run.prompts, training.orders)),
        processing_class=run.judge.tokenizer,
        peft_config=get_peft_config(model_config),
    )
    run.finish(trainer, title=f"{training.algorithm.upper()} on votes", method=training.algorithm)


if __name__ == "__main__":
    run_script(main)
