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

from autorater.cli import run_script
from autorater.models.libraries import quiet_libraries

DEFAULT_CONFIG = Path(__file__).parent / "configs" / "ppo_simulated.yaml"


def main() -> None:
    quiet_libraries()
    from trl import ModelConfig

    from autorater.training.arguments import JudgeArguments
    from autorater.training.grpo import train_on_votes
    from autorater.training.ppo import JudgePPOConfig
    from autorater.training.recipe_parser import parse_arguments

    parsed = parse_arguments((JudgeArguments, JudgePPOConfig, ModelConfig), DEFAULT_CONFIG)
    args, training, model_config = parsed
    train_on_votes(args, training, model_config, parsed.given, method=training.algorithm)


if __name__ == "__main__":
    run_script(main)
