"""Cells run, each once: kept in a file of its own, several at a time, with the time that is left.

A cell whose file holds its hash is not run again. A file is written under another name and then renamed, so that there
is a whole one or none; Ctrl-C stops the study, and the same command goes on from there. A cell that fails leaves its
traceback beside its place, the others run on.

Every worker imports the training libraries once and has one thread: a small policy gains nothing from a second one.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from multiprocessing import get_context
from pathlib import Path
from queue import Queue
from threading import RLock

from tqdm import tqdm

from autorater.models.libraries import quiet_libraries
from benchmarks.study.plan import Cell, Plan


def run_study(plan: Plan, folder: str | Path) -> dict[Cell, dict]:
    """Runs what is not there yet.

    Args:
        plan: The study.
        folder: An existing folder.

    Returns:
        The results of all cells, the warm starts among them.

    Raises:
        ValueError: If cells failed; names them.
    """
    folder = Path(folder)
    cells = [*plan.starts, *plan.cells]
    missing = [cell for cell in cells if recorded(cell, folder) is None]
    if missing:
        _run(missing, plan.processes, folder)
    results = {cell: recorded(cell, folder) for cell in cells}
    if failed := [cell for cell, result in results.items() if result is None]:
        names = ", ".join(f"{cell.method} ({cell.ground}, seed {cell.seed})" for cell in failed[:5])
        raise ValueError(f"{len(failed)} cells failed: {names}; see {_failure(failed[0], folder)}")
    return results


def recorded(cell: Cell, folder: str | Path) -> dict | None:
    """What a cell left, or None where it has not been run with these settings."""
    path = Path(folder, cell.path)
    if not path.exists():
        return None
    result = json.loads(path.read_text(encoding="utf-8"))
    return result if result.get("hash") == cell.hash else None


def _run(cells: Sequence[Cell], processes: int, folder: Path) -> None:
    """Runs cells; one that goes on from a warm start among them waits for it."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when a worker imports its libraries
    clock, ended = TimeLeft(cells, processes), Queue()
    behind: dict[Cell, list[Cell]] = {}
    for cell in cells:
        if cell.start in cells:
            behind.setdefault(cell.start, []).append(cell)
    with (
        tqdm(total=len(cells), desc="cells", unit="cell", bar_format=clock.format) as bar,
        get_context("spawn").Pool(processes, initializer=_prepare_worker) as pool,  # leaving it ends the workers
    ):

        def submit(cells: Sequence[Cell]) -> None:
            for cell in cells:
                pool.apply_async(_work, (cell, folder), callback=ended.put, error_callback=ended.put)

        submit([cell for cell in cells if cell.start not in cells])
        while clock.waiting:
            outcome = ended.get()
            if isinstance(outcome, BaseException):
                raise outcome
            cell, seconds, failed = outcome
            clock.done(cell, seconds)
            if failed:
                bar.write(f"failed: {cell.method} ({cell.ground}, seed {cell.seed})")
            submit(behind.get(cell, []))
            bar.set_postfix_str(clock.text, refresh=False)
            bar.update()


class TimeLeft:
    """An estimate of the time that is left, from what the cells of each method have taken so far.

    Args:
        cells: Everything that will be run.
        processes: How many at a time.
    """

    format = "{desc} {n_fmt}/{total_fmt} |{bar}| {elapsed}{postfix}"

    def __init__(self, cells: Sequence[Cell], processes: int):
        self.waiting, self.processes = list(cells), processes
        self.taken: dict[tuple[str, str], list[float]] = {}

    def done(self, cell: Cell, seconds: float) -> None:
        """A cell has ended."""
        self.waiting.remove(cell)
        self.taken.setdefault((cell.ground, cell.method), []).append(seconds)

    @property
    def seconds(self) -> float:
        """What is left, 0 before the first has ended; a method without a finished cell counts as the mean of all."""
        everything = [seconds for taken in self.taken.values() for seconds in taken]
        if not everything:
            return 0.0
        means = (self.taken.get((cell.ground, cell.method), everything) for cell in self.waiting)
        return sum(sum(taken) / len(taken) for taken in means) / self.processes

    @property
    def text(self) -> str:
        """For the terminal."""
        return f"about {self.seconds / 60:.0f} min left"


def _prepare_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all of a terminal's processes; the main one decides
    sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - bars of several cells at once
    tqdm.set_lock(RLock())  # the one between processes would be left behind by a worker that is ended
    quiet_libraries()
    import torch

    torch.set_num_threads(1)


def _work(cell: Cell, folder: Path) -> tuple[Cell, float, bool]:
    """Runs a cell and writes its file; the cell, the seconds it took and whether it failed."""
    began = time.perf_counter()
    from benchmarks.study.cells import run_cell

    path = folder / cell.path
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        result = run_cell(cell, folder)
    except Exception:  # whatever it is, the other cells should run; its traceback is kept
        _failure(cell, folder).write_text(traceback.format_exc(), encoding="utf-8")
        return cell, time.perf_counter() - began, True
    _failure(cell, folder).unlink(missing_ok=True)
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(json.dumps(result) + "\n", encoding="utf-8")
    unfinished.replace(path)
    return cell, time.perf_counter() - began, False


def _failure(cell: Cell, folder: Path) -> Path:
    return (folder / cell.path).with_suffix(".error.txt")
