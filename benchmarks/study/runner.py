"""Executes the runs of a study: each once, several at a time, with an estimate of the remaining time.

A run whose file holds its hash is not executed again. A file is written in one step, so it is always complete; after
Ctrl-C the same command resumes the study. A failed run writes its traceback next to its file, and the others continue,
also if the process of the run was killed, or the disk is full.

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
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from threading import RLock

from tqdm import tqdm

from autorater.data.atomic import write_text
from autorater.data.errors import UserError, first_line
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
        UserError: If runs failed; the message names them. If the plan has no process.
    """
    if plan.processes < 1:
        raise UserError(f"processes: got {plan.processes}; expected at least 1")
    folder = Path(folder)
    runs = [*plan.starts, *plan.runs]
    missing = [run for run in runs if recorded(run, folder) is None]
    if missing:
        _execute(missing, plan.processes, folder)
    results = {run: recorded(run, folder) for run in runs}
    if failed := [run for run, result in results.items() if result is None]:
        names = ", ".join(_name(run) for run in failed[:5])
        left = "--finished writes tables and figures without them"
        see = f"see {failure}; " if (failure := _failure(failed[0], folder)).exists() else ""
        raise UserError(f"{len(failed)} runs failed: {names}; {see}{left}")
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
    clock, workers = TimeLeft(runs, processes), []
    missing: dict[Run, set[Run]] = {}  # what a run waits for
    for run in runs:
        begins = {run.start} if run.start is not None and not run.pretrained else set()
        missing[run] = {other for other in begins | set(run.needs) if other in runs}
    ready = in_order([run for run in runs if not missing[run]])
    try:
        workers.extend(_Worker(folder) for _ in range(min(processes, len(runs))))
        with tqdm(total=len(runs), desc="runs", unit="run", bar_format=clock.format) as bar:
            while clock.waiting:
                for worker in [worker for worker in workers if worker.run is None][: len(ready)]:
                    worker.begin(ready.pop(0))
                for worker in wait([worker for worker in workers if worker.run is not None]):
                    run, seconds, problem = worker.end()
                    clock.done(run, seconds)
                    if problem is not None:
                        bar.write(f"failed: {_name(run)}: {problem}")
                        for other in [other for other in _dependents(run, missing) if other in clock.waiting]:
                            clock.done(other, 0.0)
                            bar.write(f"not run, because it needs that: {_name(other)}")
                            bar.update()
                    else:
                        ready += in_order([other for other, needs in missing.items() if needs == {run}])
                        for needs in missing.values():
                            needs.discard(run)
                    bar.set_postfix_str(clock.text, refresh=False)
                    bar.update()
    finally:
        for worker in workers:
            worker.process.terminate()
        for worker in workers:
            worker.process.join()


class _Worker:
    """A process that executes a run at a time. Its connection ends with it; a `Pool` would wait for a killed process.

    Attributes:
        run: The run that it executes.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.run: Run | None = None
        self._start()

    def _start(self) -> None:
        context = get_context("spawn")
        self.connection, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(other, self.folder), daemon=True)
        self.process.start()
        other.close()

    def fileno(self) -> int:
        """For `wait`."""
        return self.connection.fileno()

    def begin(self, run: Run) -> None:
        """Begins a run."""
        self.run = run
        with suppress(BrokenPipeError):  # the process was killed; `end` returns that
            self.connection.send(run)

    def end(self) -> tuple[Run, float, str | None]:
        """The run that has ended, its seconds and why it failed; starts another process if this one has ended."""
        run, self.run = self.run, None
        try:
            return run, *self.connection.recv()
        except (EOFError, ConnectionError):
            self.process.join()
        status = f"status {self.process.exitcode} (143: stopped; -9: killed, often for lack of memory)"
        problem = f"the process of this run ended with {status}"
        _keep_failure(run, self.folder, problem + "\n")
        self._start()
        return run, 0.0, problem


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


def _serve(connection: Connection, folder: Path) -> None:
    """Executes the runs that a connection sends, until the main process ends."""
    _prepare_worker()
    with suppress(EOFError):
        while True:
            connection.send(_work(connection.recv(), folder))


def _work(run: Run, folder: Path) -> tuple[float, str | None]:
    """Executes a run and writes its file; returns its seconds and why it failed."""
    began, path = time.perf_counter(), folder / run.path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if run.pretrained:
            from benchmarks.study.pretrained import train_and_evaluate
        else:
            from benchmarks.study.run import train_and_evaluate

        write_text(path, json.dumps(train_and_evaluate(run, folder)) + "\n")
    except Exception as error:  # any failure: the other runs continue, and the traceback is kept
        _keep_failure(run, folder, traceback.format_exc())
        return time.perf_counter() - began, f"{type(error).__name__}: {first_line(error)}"
    _failure(run, folder).unlink(missing_ok=True)
    return time.perf_counter() - began, None


def _name(run: Run) -> str:
    return f"{run.method} ({run.dataset}, seed {run.seed})"


def _keep_failure(run: Run, folder: Path, text: str) -> None:
    """Writes why a run failed, unless this fails too, as on a full disk: its line in the terminal has the reason."""
    path = _failure(run, folder)
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)


def _failure(run: Run, folder: Path) -> Path:
    return (folder / run.path).with_suffix(".error.txt")
