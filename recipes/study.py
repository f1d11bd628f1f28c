"""Train and read every method on the same grounds, votes, policies and seeds; tables and figures of all of it.

    python recipes/study.py --config recipes/configs/study.yaml             # everything; the file says how long
    python recipes/study.py --config recipes/configs/study.yaml --quick     # a small version
    python recipes/study.py --config recipes/configs/study.yaml --finished  # run nothing, show what is there

One cell is one method on one ground with one seed. A finished cell is kept in a file and is not run again while its
settings stay as they are, so the study can be stopped (Ctrl-C) and continued, and a changed config runs what changed.
In output_dir (with --quick: of the config's `quick` part): study.md, study.json, figures/, cells/ and the warm-started
policies.
"""

import argparse
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the study is in benchmarks/, which is not installed


from autorater.cli import run_script
from autorater.evaluation.results import prepare_output_dir
from benchmarks.study.page import clock_text, write_study
from benchmarks.study.plan import read_plan
from benchmarks.study.results import Results
from benchmarks.study.running import recorded, run_study


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="The study, a YAML file.")
    parser.add_argument("--quick", action="store_true", help="The small version that the file describes.")
    parser.add_argument("--output_dir", help="In place of the config's.")
    parser.add_argument(
        "--finished", action="store_true", help="Run nothing; tables and figures of the methods that are finished."
    )
    parser.add_argument("--processes", type=int, help="Cells at a time, in place of the config's.")
    args = parser.parse_args()

    began = time.perf_counter()
    plan = read_plan(args.config, quick=args.quick, output_dir=args.output_dir, processes=args.processes)
    folder = prepare_output_dir(plan.output_dir)
    cells = [*plan.starts, *plan.cells]
    there = {cell for cell in cells if recorded(cell, folder) is not None}
    print(f"{len(cells)} cells, {len(there)} of them already there; {plan.processes} at a time")
    if args.finished:
        plan = plan.finished(there)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ended by a scheduler: as by Ctrl-C
    try:
        results = run_study(plan, folder)
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        sys.exit(130)
    clock = {
        "seconds": round(time.perf_counter() - began, 1),
        "cells_run": len(cells) - len(there) if not args.finished else 0,
        "cpu_seconds": round(sum(result["cpu_seconds"] for result in results.values()), 1),
    }
    write_study(Results(plan, results), folder, clock)
    print(f"{clock_text(clock)}\n{folder / 'study.md'}")


if __name__ == "__main__":
    run_script(main)
