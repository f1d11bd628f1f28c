"""Train a judge on vote shares, as text or on its exact answers, and evaluate it in both orders.

    accelerate launch recipes/sft.py                                               # simulated annotators, on a CPU
    accelerate launch recipes/sft.py --objective tokenized_brier                   # or tokenized_log
    accelerate launch recipes/sft.py --dataset_name votes.jsonl --split_by topic   # your votes, small policy
    accelerate launch recipes/sft.py --dataset_name votes.jsonl --model_name_or_path Qwen/Qwen2.5-7B-Instruct

Without --config and --model_name_or_path the settings are those of recipes/configs/sft_simulated.yaml. Options on the
command line override a config. Writes the same files as recipes/grpo.py to --output_dir.
"""

from pathlib import Path

from autorater.cli import run_script
from autorater.models.libraries import quiet_libraries

DEFAULT_CONFIG = Path(__file__).parent / "configs" / "sft_simulated.yaml"


def main() -> None:
    quiet_libraries()
    from datasets import Dataset
    from trl import ModelConfig

    from autorater.training.arguments import DenseArguments
    from autorater.training.recipe_parser import parse_arguments
    from autorater.training.run import open_run
    from autorater.training.sft import JudgeSFTConfig, JudgeSFTTrainer, sft_rows

    parsed = parse_arguments((DenseArguments, JudgeSFTConfig, ModelConfig), DEFAULT_CONFIG)
    args, training, model_config = parsed
    run = open_run(args, training, model_config, args.prompt_format, given=parsed.given)
    trainer = JudgeSFTTrainer(
        run.judge.model,
        training,
        run.judge.tree,
        train_dataset=Dataset.from_list(sft_rows(run.train.pairs, run.train.prompts, run.judge.tokenizer, training)),
        processing_class=run.judge.tokenizer,
        peft_config=run.peft_config,
    )
    run.finish(trainer, title=f"SFT on vote shares ({training.objective})", method="sft")


if __name__ == "__main__":
    run_script(main)
