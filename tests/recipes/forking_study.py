"""`recipes/study.py` with forks as workers, for a process with the libraries (`tests/recipes/forked.py`)."""

import multiprocessing
import runpy
import sys
from pathlib import Path

import benchmarks.study.runner as runner

ROOT = Path(__file__).parents[2]

if __name__ == "__main__":
    runner.get_context = lambda _: multiprocessing.get_context("fork")
    sys.argv[0] = str(ROOT / "recipes" / "study.py")
    runpy.run_path(sys.argv[0], run_name="__main__")
