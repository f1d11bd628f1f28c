"""The command `autorater audit`, and the body of `recipes/audit_position_bias.py`."""

import argparse
import sys

from autorater.audit.run import run_audit
from autorater.data.errors import refuse_several_processes
from autorater.evaluation.results import prepare_output_dir, refuse_results_of_judges
from autorater.report.decisions.gate import gate_run, predictions_of

BIASED = 3  # exit status


def run(args: argparse.Namespace) -> None:
    """Audits a judge; exits with `BIASED` if its flip rate is above `--fail_above`, or it is worse than `--baseline`.

    Errors as in `run_audit` and `gate_run`, if the results would replace those of the judge, and if there are several
    processes.
    """
    refuse_several_processes()
    folder = prepare_output_dir(args.output_dir)
    refuse_results_of_judges([args.judge], folder)
    if args.baseline is not None:
        predictions_of(args.baseline, folder)  # before the first request
    flip_rate = run_audit(args, folder).get("flip_rate", 0.0)
    if args.baseline is not None and gate_run(args.baseline, folder):
        sys.exit(BIASED)
    if args.fail_above is not None and flip_rate > args.fail_above:
        print(f"flip_rate {flip_rate:.4f} is above {args.fail_above}", file=sys.stderr)
        sys.exit(BIASED)
