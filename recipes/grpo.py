"""Train a judge by GRPO on votes, and evaluate it in both orders before, during and after training.

    accelerate launch recipes/grpo.py                                                 # simulated annotators, on a CPU
    accelerate launch recipes/grpo.py --dataset_name votes.jsonl --split_by topic     # your votes, small policy
    accelerate launch recipes/grpo.py --config recipes/configs/grpo_convincing.yaml   # real votes, see the file
    accelerate launch recipes/grpo.py --dataset_name votes.jsonl --model_name_or_path Qwen/Qwen2.5-7B-Instruct
    accelerate launch recipes/grpo.py --config recipes/configs/pointwise_convincing.yaml   # scores of single responses

Without --config and --model_name_or_path the settings are those of recipes/configs/grpo_simulated.yaml. Options on the
command line override a config (--use_peft, --max_steps 100, …). Writes metrics.json, predictions.jsonl, report.html,
reliability.png and the judge, for `autorater.Judge.from_pretrained`, to --output_dir.
"""

from pathlib import Path

from autorater.cli import run_script
from autorater.models.libraries import quiet_libraries

DEFAULT_CONFIG = Path(__file__).parent / "configs" / "grpo_simulated.yaml"


def main() -> None:
    quiet_libraries()
    from trl import ModelConfig

    from autorater.training.arguments import JudgeArguments
    from autorater.training.config import JudgeGRPOConfig
    from autorater.training.grpo import train_on_votes
    from autorater.training.recipe_parser import parse_arguments

    parsed = parse_arguments((JudgeArguments, JudgeGRPOConfig, ModelConfig), DEFAULT_CONFIG)
    args, training, model_config = parsed
    train_on_votes(args, training, model_config, parsed.given, method="grpo")


if __name__ == "__main__":
    run_script(main)
