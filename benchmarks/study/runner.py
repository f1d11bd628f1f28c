"""Executes the runs of a study: each once, several at a time, with an estimate of the remaining time.

A run whose file holds its hash is not executed again. A file is written in one step, so it is always complete; after
Ctrl-C the same command resumes the study. A failed run writes its traceback next to its file, and the others continue.

Every worker imports the training libraries once and uses one thread: a second thread does not help a small policy.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from multiprocessing import get_context
from pathlib import Path
from queue import Queue
from threading import RLock

from tqdm import tqdm

from autorater.data.atomic import write_text
from autorater.data.errors import UserError
from autorater.models.libraries import quiet_libraries
from benchmarks.study.plan import Plan, Run


def run_study(plan: Plan, folder: str | Path) -> dict[Run, dict]:
    """Executes the runs that are not recorded yet.

    Args:
        plan: The study.
        folder: An existing folder.

    Returns:
        The results of all runs, including warm starts.

    Raises:
        UserError: If runs failed; the message names them.
    """
    folder = Path(folder)
    runs = [*plan.starts, *plan.runs]
    missing = [run for run in runs if recorded(run, folder) is None]
    if missing:
        _execute(missing, plan.processes, folder)
    results = {run: recorded(run, folder) for run in runs}
    if failed := [run for run, result in results.items() if result is None]:
        names = ", ".join(f"{run.method} ({run.dataset}, seed {run.seed})" for run in failed[:5])
        raise UserError(f"{len(failed)} runs failed: {names}; see {_failure(failed[0], folder)}")
    return results


def recorded(run: Run, folder: str | Path) -> dict | None:
    """The recorded result of a run, or None if there is none with these settings."""
    path = Path(folder, run.path)
    if not path.exists():
        return None
    result = json.loads(path.read_text(encoding="utf-8"))
    return result if result.get("hash") == run.hash else None


def _execute(runs: Sequence[Run], processes: int, folder: Path) -> None:
    """Executes runs; a run waits for its warm start and for the judges that it needs, and is left out if one fails."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when a worker imports its libraries
    clock, ended = TimeLeft(runs, processes), Queue()
    missing: dict[Run, set[Run]] = {}  # what a run waits for
    for run in runs:
        begins = {run.start} if run.start is not None and not run.pretrained else set()
        missing[run] = {other for other in begins | set(run.needs) if other in runs}
    with (
        tqdm(total=len(runs), desc="runs", unit="run", bar_format=clock.format) as bar,
        get_context("spawn").Pool(processes, initializer=_prepare_worker) as pool,  # leaving it ends the workers
    ):

        def submit(runs: Sequence[Run]) -> None:
            for run in runs:
                pool.apply_async(_work, (run, folder), callback=ended.put, error_callback=ended.put)

        submit([run for run in in_order(runs) if not missing[run]])
        while clock.waiting:
            outcome = ended.get()
            if isinstance(outcome, BaseException):
                raise outcome
            run, seconds, failed = outcome
            clock.done(run, seconds)
            if failed:
                bar.write(f"failed: {run.method} ({run.dataset}, seed {run.seed})")
                for other in [other for other in _dependents(run, missing) if other in clock.waiting]:
                    clock.done(other, 0.0)
                    bar.write(f"not run, because it needs that: {other.method} ({other.dataset}, seed {other.seed})")
                    bar.update()
            else:
                ready = [other for other, needs in missing.items() if needs == {run}]
                for needs in missing.values():
                    needs.discard(run)
                submit(in_order(ready))
            bar.set_postfix_str(clock.text, refresh=False)
            bar.update()


def _dependents(run: Run, missing: Mapping[Run, set[Run]]) -> list[Run]:
    """The runs that wait for a run, or for one that does."""
    found = [other for other, needs in missing.items() if run in needs]
    return list(dict.fromkeys([*found, *(further for other in found for further in _dependents(other, missing))]))


def in_order(runs: Sequence[Run]) -> list[Run]:
    """The order in which runs start: as given; those of a pretrained model seed by seed.

    All methods are then in the table after the first seed. Its untrained model is judged last; nothing waits for it.
    """

    def place(run: Run) -> tuple[int, bool]:
        return (run.seed, run.start is None) if run.pretrained else (0, False)

    return sorted(runs, key=place)


class TimeLeft:
    """An estimate of the remaining time from the finished runs of each method.

    Args:
        runs: All runs to execute.
        processes: Number of concurrent runs.
    """

    format = "{desc} {n_fmt}/{total_fmt} |{bar}| {elapsed}{postfix}"

    def __init__(self, runs: Sequence[Run], processes: int):
        self.waiting, self.processes = list(runs), processes
        self.taken: dict[tuple[str, str], list[float]] = {}

    def done(self, run: Run, seconds: float) -> None:
        """Records the end of a run."""
        self.waiting.remove(run)
        self.taken.setdefault((run.dataset, run.method), []).append(seconds)

    @property
    def seconds(self) -> float:
        """Remaining seconds, 0 before the first run ends; methods without a finished run count as the mean."""
        everything = [seconds for taken in self.taken.values() for seconds in taken]
        if not everything:
            return 0.0
        means = (self.taken.get((run.dataset, run.method), everything) for run in self.waiting)
        return sum(sum(taken) / len(taken) for taken in means) / self.processes

    @property
    def text(self) -> str:
        """Text for the terminal."""
        return f"about {self.seconds / 60:.0f} min left"


def _prepare_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all of a terminal's processes; the main one decides
    sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - bars of concurrent runs
    tqdm.set_lock(RLock())  # a terminated worker would not release the lock between processes
    quiet_libraries()
    import torch

    torch.set_num_threads(1)


def _work(run: Run, folder: Path) -> tuple[Run, float, bool]:
    """Executes a run and writes its file; returns the run, its seconds and whether it failed."""
    began = time.perf_counter()
    if run.pretrained:
        from benchmarks.study.pretrained import train_and_evaluate
    else:
        from benchmarks.study.run import train_and_evaluate

    path = folder / run.path
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        result = train_and_evaluate(run, folder)
    except Exception:  # any failure: the other runs continue, and the traceback is kept
        _failure(run, folder).write_text(traceback.format_exc(), encoding="utf-8")
        return run, time.perf_counter() - began, True
    _failure(run, folder).unlink(missing_ok=True)
    write_text(path, json.dumps(result) + "\n")
    return run, time.perf_counter() - began, False


def _failure(run: Run, folder: Path) -> Path:
    return (folder / run.path).with_suffix(".error.txt")
