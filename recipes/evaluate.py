"""Evaluate judges by every judging method, with swap averaging and recalibration as post-processing, in one table.

    python recipes/evaluate.py                                                        # the judge of `make train`
    python recipes/evaluate.py --judge runs/a runs/b --methods answer_mean            # several judges
    python recipes/evaluate.py --judge Qwen/Qwen2.5-7B-Instruct --dataset_name votes.jsonl --methods all
    python recipes/evaluate.py --save_recalibration odd_temperature                   # and save it with the judge

The command `autorater evaluate` with the judge of `make train` as default; `--help` lists its options.
"""

import sys
from pathlib import Path

from autorater.cli import command, run_script
from autorater.data.config_file import config_arguments, read_config
from autorater.data.errors import UserError

DEFAULT_CONFIG = Path(__file__).parent / "configs" / "evaluate.yaml"


def check_default_judge() -> None:
    given = {word.split("=")[0] for word in sys.argv[1:]}
    (judge,) = read_config(DEFAULT_CONFIG)["judge"]
    if not given & {"--judge", "--config", "-h", "--help"} and not Path(judge).exists():
        raise UserError(f"{judge}: no such folder; run make train, or name --judge")


if __name__ == "__main__":
    run_script(check_default_judge)
    command(["evaluate", *config_arguments(sys.argv[1:], DEFAULT_CONFIG)])
