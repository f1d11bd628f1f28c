"""Evaluate judges by every judging method, with swap averaging and recalibration as post-processing, in one table.

    python recipes/evaluate.py                                                        # the judge of `make train`
    python recipes/evaluate.py --judge runs/a runs/b --methods answer_mean            # several judges
    python recipes/evaluate.py --judge Qwen/Qwen2.5-7B-Instruct --dataset_name votes.jsonl --methods all
    python recipes/evaluate.py --save_recalibration odd_temperature                   # and save it with the judge

The command `autorater evaluate` with the judge of `make train` as default; `--help` lists its options.
"""

import sys
from pathlib import Path

from autorater.cli import command, config_arguments

DEFAULT_CONFIG = Path(__file__).parent / "configs" / "evaluate.yaml"

if __name__ == "__main__":
    command(["evaluate", *config_arguments(sys.argv[1:], DEFAULT_CONFIG)])
