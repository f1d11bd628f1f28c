"""Audit a judge: does the order of the responses change its verdicts?

    python recipes/audit_position_bias.py --judge recorded:verdicts.jsonl --group_by judge,prompting
    python recipes/audit_position_bias.py --judge runs/grpo_simulated --dataset_name votes.jsonl --fail_above 0.1
    python recipes/audit_position_bias.py --judge endpoint:gpt-4o-mini --dataset_name votes.jsonl --concurrency 32 \\
        --max_requests 5000 --price_in 0.15 --price_out 0.60 --output_dir runs/audit-gpt
    python recipes/audit_position_bias.py --judge endpoint:qwen --base_url http://localhost:8000/v1 \\
        --dataset_name votes.jsonl --probe swap,injection --repeats 3 --temperature 1

Every pair is judged in both orders. The report shows how often the judge contradicts itself, with intervals, a test of
the hypothesis of no bias, a figure, and the pairs whose winner changes.
"""

import sys

from autorater.audit.arguments import parse_arguments
from autorater.cli import run_script


def main() -> None:
    args = parse_arguments(sys.argv[1:], "audit_position_bias.py", __doc__)
    from autorater.audit import command  # --help must not wait for SciPy

    command.run(args)


if __name__ == "__main__":
    run_script(main, interrupted="interrupted; all judgments so far are stored, and the same command resumes")
