"""Audit a judge: does it care which response is shown first?

    python recipes/audit_position_bias.py --judge recorded:verdicts.jsonl                       # verdicts that exist
    python recipes/audit_position_bias.py --judge endpoint:gpt-4o-mini --dataset_name votes.jsonl
    python recipes/audit_position_bias.py --judge runs/grpo_simulated --dataset_name votes.jsonl

Every pair is read twice, with the responses swapped in between, and the judge is told by how much it contradicts
itself: with intervals, a test against no bias, a picture, and the pairs that flip.
"""

import sys

from autorater.audit.arguments import parse_arguments
from autorater.audit.run import run_audit
from autorater.cli import run_script
from autorater.evaluation.results import prepare_output_dir

BIASED, INTERRUPTED = 3, 130


def main() -> None:
    args = parse_arguments(sys.argv[1:], __doc__)
    folder = prepare_output_dir(args.output_dir)
    outcome = run_audit(args, folder, print)
    print(f"\n{outcome.summary}\n\nreport: {folder / 'report.html'}")
    if outcome.unfinished:
        raise ValueError(outcome.unfinished)
    if args.fail_above is not None and outcome.metrics["flip_rate"] > args.fail_above:
        print(f"flip_rate {outcome.metrics['flip_rate']:.4f} is above {args.fail_above}", file=sys.stderr)
        sys.exit(BIASED)


if __name__ == "__main__":
    try:
        run_script(main)
    except KeyboardInterrupt:
        print("interrupted; what was judged is kept, the same command goes on from here", file=sys.stderr)
        sys.exit(INTERRUPTED)
