"""Train and evaluate every method on the same datasets, votes, policies and seeds; write tables and figures.

    python recipes/study.py --config recipes/configs/study.yaml             # everything; see the file for the time
    python recipes/study.py --config recipes/configs/study.yaml --quick     # a small version
    python recipes/study.py --config recipes/configs/study.yaml --finished  # tables and figures of finished runs
    python recipes/study.py --config recipes/configs/study_smollm2.yaml     # a pretrained model on real votes; long

One run is one method on one dataset with one seed. A finished run is stored in a file and not executed again unless
its settings change, so the study can be stopped (Ctrl-C) and resumed, and a changed config executes only what changed.
With a pretrained model, which takes long to train, a changed run is refused until its folder is removed; then so are
the runs that begin with its judge.
In output_dir (with --quick: of the config's `quick` part): study.md, study.json, figures/, runs/ and the warm-started
policies.
"""

import argparse
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the study is in benchmarks/, which is not installed


from autorater.cli import run_script
from autorater.data.errors import refuse_several_processes
from autorater.data.tables import check_data_files
from autorater.evaluation.results import prepare_output_dir
from autorater.judges.options import CommandParser
from benchmarks.study.page import clock_text, write_study
from benchmarks.study.plan import read_plan
from benchmarks.study.pretrained_page import write_pretrained_study
from benchmarks.study.results import Results
from benchmarks.study.runner import recorded, run_study


def main() -> None:
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="The study, a YAML file.")
    parser.add_argument("--quick", action="store_true", help="The small version defined in the file.")
    parser.add_argument("--output_dir", help="Overrides the config's.")
    parser.add_argument(
        "--finished", action="store_true", help="Execute nothing; tables and figures of the finished methods."
    )
    parser.add_argument("--processes", type=int, help="Number of concurrent runs; overrides the config's.")
    args = parser.parse_args()

    refuse_several_processes()
    began = time.perf_counter()
    plan = read_plan(args.config, quick=args.quick, output_dir=args.output_dir, processes=args.processes)
    folder = prepare_output_dir(plan.output_dir)
    runs = [*plan.starts, *plan.runs]
    there = {run for run in runs if recorded(run, folder) is not None}
    print(f"{len(runs)} runs, {len(there)} of them recorded; {plan.processes} at a time")
    for run in [] if args.finished else [run for run in runs if run not in there]:
        check_data_files(run.settings, args.config)
    if args.finished and not plan.pretrained:
        plan = plan.finished(there)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler's signal acts like Ctrl-C
    try:
        if args.finished and plan.pretrained:  # single seeds too
            results = {run: recorded(run, folder) for run in there}
        else:
            results = run_study(plan, folder)
    except KeyboardInterrupt:
        print("\nstopped; the same command resumes", file=sys.stderr)
        sys.exit(130)
    clock = {
        "seconds": round(time.perf_counter() - began, 1),
        "runs_executed": len(runs) - len(there) if not args.finished else 0,
        "cpu_seconds": round(sum(result["cpu_seconds"] for result in results.values()), 1),
    }
    write = write_pretrained_study if plan.pretrained else write_study
    write(Results(plan, results), folder, clock)
    print(f"{clock_text(clock)}\n{folder / 'study.md'}")


if __name__ == "__main__":
    run_script(main)
