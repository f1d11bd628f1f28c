"""The command `autorater audit`, and the body of `recipes/audit_position_bias.py`."""

import sys
from collections.abc import Sequence

from autorater.audit.arguments import parse_arguments

BIASED = 3  # exit status


def main(argv: Sequence[str], prog: str = "autorater audit", description: str = "Audit a judge.") -> None:
    """Audits a judge; exits with `BIASED` if its flip rate is above `--fail_above`. Errors as in `run_audit`."""
    args = parse_arguments(argv, prog, description)
    # --help must not wait for SciPy
    from autorater.audit.run import run_audit
    from autorater.evaluation.results import prepare_output_dir

    flip_rate = run_audit(args, prepare_output_dir(args.output_dir)).get("flip_rate", 0.0)
    if args.fail_above is not None and flip_rate > args.fail_above:
        print(f"flip_rate {flip_rate:.4f} is above {args.fail_above}", file=sys.stderr)
        sys.exit(BIASED)
