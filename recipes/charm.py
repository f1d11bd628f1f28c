"""Calibrate a reward model by Elo (CHARM), and evaluate it on held-out models and prompts.

    python recipes/charm.py                                                   # simulated arena of eight models, a CPU
    python recipes/charm.py --config recipes/configs/charm_pandalm.yaml       # five models, real votes
    python recipes/charm.py --stage diagnose --model_name_or_path org/reward-model \\
        --responses_name responses.jsonl --elo_table arena.csv                # which models does it overvalue?
    accelerate launch recipes/charm.py --model_name_or_path org/reward-model --responses_name responses.jsonl \\
        --eval_responses_name eval.jsonl --elo_table arena.csv --overvalued gemma-simpo --reference gpt-4o-mini

Stages: `score` (can be resumed), `diagnose`, `train` (without and with calibration), `evaluate`; `all` executes all of
them, and a stage includes the stages that it requires. Without a model, a small one is trained on the votes. It writes
to --output_dir: scores/, preferences, the models uncalibrated/ and calibrated/, metrics.json, report.md, report.html,
and layouts.json, the prompts as the chat template rendered them at first: it may write the date.
"""

from pathlib import Path

from autorater.cli import run_script
from autorater.evaluation.results import prepare_output_dir
from autorater.models.libraries import quiet_libraries

DEFAULT_CONFIG = Path(__file__).parent / "configs" / "charm_simulated.yaml"


def main() -> None:
    quiet_libraries()
    from trl import ModelConfig

    from autorater.charm.arguments import CharmArguments
    from autorater.charm.run import CharmRun
    from autorater.charm.training import RewardTrainingConfig
    from autorater.training.recipe_parser import parse_arguments

    parsed = parse_arguments((CharmArguments, RewardTrainingConfig, ModelConfig), DEFAULT_CONFIG)
    args, training, model_config = parsed
    args.check_effective(parsed.given, model_config.model_name_or_path)
    prepare_output_dir(training.output_dir)
    CharmRun(args, training, model_config).execute()


if __name__ == "__main__":
    run_script(main)
