"""Train a judge on the vote shares themselves, as text or on its exact answers, and measure it in both orders.

    accelerate launch recipes/sft.py                                               # simulated annotators, on a CPU
    accelerate launch recipes/sft.py --objective tokenized_brier                   # or tokenized_log
    accelerate launch recipes/sft.py --dataset_name votes.jsonl --split_by topic     # your votes, small policy
    accelerate launch recipes/sft.py --dataset_name votes.jsonl --model_name_or_path Qwen/Qwen2.5-7B-Instruct

With neither --config nor --model_name_or_path it takes its settings from recipes/configs/sft_simulated.yaml; every key
can be given on the command line, which wins. In --output_dir it leaves what recipes/grpo.py leaves: metrics.json,
predictions.jsonl, report.html, reliability.png and the judge.
"""

import sys
from pathlib import Path

from autorater.cli import config_arguments, run_script
from autorater.models.libraries import quiet_libraries

DEFAULT_CONFIG = Path(__file__).parent / "configs" / "sft_simulated.yaml"


def main() -> None:
    quiet_libraries()
    from datasets import Dataset
    from trl import ModelConfig, TrlParser, get_peft_config

    from autorater.training.config import DenseArguments
    from autorater.training.run import open_run
    from autorater.training.sft import JudgeSFTConfig, JudgeSFTTrainer, sft_rows

    parser = TrlParser((DenseArguments, JudgeSFTConfig, ModelConfig))
    args, training, model_config = parser.parse_args_and_config(config_arguments(sys.argv[1:], DEFAULT_CONFIG))
    run = open_run(args, training, model_config, args.prompt_format)
    trainer = JudgeSFTTrainer(
        run.judge.model,
        training,
        run.judge.tree,
        train_dataset=Dataset.from_list(sft_rows(run.train, run.prompts, run.judge.tokenizer, training)),
        processing_class=run.judge.tokenizer,
        peft_config=get_peft_config(model_config),
    )
    run.finish(trainer, title=f"SFT on vote shares ({training.objective})")


if __name__ == "__main__":
    run_script(main)
