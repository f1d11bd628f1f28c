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

from autorater.cli import config_arguments, run_script
from autorater.models.libraries import quiet_libraries

DEFAULT_CONFIG = Path(__file__).parent / "configs" / "grpo_simulated.yaml"


def main() -> None:
    quiet_libraries()
    from datasets import Dataset
    from trl import ModelConfig, TrlParser, get_peft_config

    import rewards
    from autorater.prompts.templates import PromptFormat
    from autorater.training.config import JudgeArguments, JudgeGRPOConfig
    from autorater.training.grpo import JudgeGRPOTrainer, training_rows
    from autorater.training.run import open_run

    parser = TrlParser((JudgeArguments, JudgeGRPOConfig, ModelConfig))
    args, training, model_config = parser.parse_args_and_config(config_arguments(sys.argv[1:], DEFAULT_CONFIG))
    prompt_format = PromptFormat(args.prompt_layout, training.reasoning)
    run = open_run(args, training, model_config, prompt_format, training.max_completion_length)
    trainer = JudgeGRPOTrainer(
        run.judge.model,
        getattr(rewards, f"{args.reward}_reward"),
        training,
        run.judge.tree,
        train_dataset=Dataset.from_list(training_rows(run.train, run.prompts, training.orders)),
        processing_class=run.judge.tokenizer,
        peft_config=get_peft_config(model_config),
    )
    run.finish(trainer, title="GRPO on votes")


if __name__ == "__main__":
    run_script(main)
