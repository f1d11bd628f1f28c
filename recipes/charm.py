"""Calibrate a reward model by Elo (CHARM), and measure whether it helped on models and prompts that had no part in it.

    python recipes/charm.py                                                   # simulated arena of eight models, a CPU
    python recipes/charm.py --config recipes/configs/charm_pandalm.yaml       # five models, real votes
    python recipes/charm.py --stage diagnose --model_name_or_path org/reward-model \\
        --responses_name responses.jsonl --elo_table arena.csv                # whom does it overvalue?
    accelerate launch recipes/charm.py --model_name_or_path org/reward-model --responses_name responses.jsonl \\
        --eval_responses_name eval.jsonl --elo_table arena.csv --overvalued gemma-simpo --reference gpt-4o-mini

Stages: `score` (resumable), `diagnose`, `train` (without and with calibration), `evaluate`; `all` does everything, and
what a stage needs is done first. Without a model, a small one is trained on the votes. In --output_dir it leaves
scores/, preferences, the models uncalibrated/ and calibrated/, metrics.json, report.md and report.html.
"""

import sys
from pathlib import Path

from autorater.cli import config_arguments, run_script
from autorater.evaluation.results import prepare_output_dir
from autorater.models.libraries import quiet_libraries

DEFAULT_CONFIG = Path(__file__).parent / "configs" / "charm_simulated.yaml"


def main() -> None:
    quiet_libraries()
    from trl import ModelConfig, TrlParser

    from autorater.charm.data import CharmArguments, prepare_charm
    from autorater.charm.report import versions_table, write_charm_report
    from autorater.charm.run import CharmRun, RewardTrainingConfig
    from autorater.training.config import settings

    parser = TrlParser((CharmArguments, RewardTrainingConfig, ModelConfig))
    args, training, model_config = parser.parse_args_and_config(config_arguments(sys.argv[1:], DEFAULT_CONFIG))
    output_dir = prepare_output_dir(training.output_dir)
    say = print if training.process_index == 0 else lambda *_: None

    data = prepare_charm(args, training.seed)
    say(data.summary)
    run = CharmRun(args, training, model_config, data, say)
    run.score("original")
    if args.stage == "score":
        return
    calibration = run.calibrate()
    say(calibration.text)
    versions = {"original": run.evaluate("original")}
    if args.stage != "diagnose":
        for version in calibration.sets:
            run.train(version, calibration)
            if args.stage != "train":
                run.score(version)
                versions[version] = run.evaluate(version)
    if args.stage == "train" or training.process_index != 0:
        return
    run.write_metrics(versions, calibration)
    write_charm_report(
        output_dir,
        versions,
        data.ratings,
        overvalued=calibration.overvalued,
        reference=calibration.reference,
        calibration=calibration.text,
        settings=settings(args, training, model_config),
    )
    say(f"\n{versions_table(versions, calibration.overvalued, calibration.reference).text}")
    say(f"\nreport: {output_dir / 'report.html'}")


if __name__ == "__main__":
    run_script(main)
