"""Rows that the processes of a run share: process r of W works on rows r, r + W, r + 2 W, …, and all get all results.

Where each process has rows of its own, `gathered_rows` gives all of them to all.
Without a process group (`torchrun`, `accelerate launch`) there is one process. torch is not imported for the question.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Sequence
from itertools import chain
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakKeyDictionary

import numpy as np

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

T = TypeVar("T")
R = TypeVar("R", bound=Sequence)
_on_cpus: WeakKeyDictionary[ProcessGroup, ProcessGroup] = WeakKeyDictionary()  # of the group of all processes


def this_process() -> tuple[int, int]:
    """The number of this process, from 0, and how many there are."""
    dist = sys.modules.get("torch.distributed")
    return (dist.get_rank(), dist.get_world_size()) if _has_group(dist) else (0, 1)


def _has_group(dist: ModuleType | None) -> bool:
    return dist is not None and dist.is_available() and dist.is_initialized()


def leave_group() -> None:
    """Ends the process group of this process, if there is one; for the end of a run.

    A thread of a group that still holds a tensor when Python ends aborts the process, and a finished run would count
    as failed (https://github.com/pytorch/pytorch/issues/190489).
    """
    dist = sys.modules.get("torch.distributed")
    if _has_group(dist):
        dist.destroy_process_group()
        gc.collect()  # a group ends with the last model that refers to it


def gpu_of_process() -> int:
    """The GPU of this process among those of its launcher; without a launcher the current one."""
    import torch

    rank = os.environ.get("LOCAL_RANK")
    return int(rank) % torch.cuda.device_count() if rank else torch.cuda.current_device()


def in_shares(rows: Sequence[T], work: Callable[[Sequence[T]], R]) -> list[R]:
    """What `work` returns for the share of each process, in order; all processes must call this together.

    A process without rows works on the first row, without result: a sharded model may have to be called by all.

    Args:
        rows: N rows, at least one, the same on every process.
        work: Returns a result of equal length, which can be sliced and pickled.

    Returns:
        W results, of the rows w, w + W, w + 2 W, …; see `interleaved`.

    Raises:
        Exception: What `work` raises on a process is raised on all of them.
    """
    process, n_processes = this_process()
    if n_processes == 1:
        return [work(rows)]
    own, outcomes = rows[process::n_processes], [None] * n_processes
    result, failure = None, None
    try:
        result = work(own if len(own) else rows[:1])[: len(own)]
    except Exception as error:  # any: the other processes wait for the outcome
        failure = error
    sys.modules["torch.distributed"].all_gather_object(outcomes, (result, failure))
    if failure is not None:
        raise failure  # with its traceback, which the copies for the others do not have
    for process, (_, error) in enumerate(outcomes):
        if error is not None:
            error.add_note(f"raised on process {process}, whose traceback says where")
            raise error
    return [result for result, _ in outcomes]


def gathered_rows(rows: Sequence[T]) -> tuple[list[T], range]:
    """The rows of all processes, and the numbers of this one's among them; all processes must call this together.

    The rows of a process can be pickled, and may differ in number from those of another.
    """
    process, n_processes = this_process()
    if n_processes == 1:
        return list(rows), range(len(rows))
    dist, parts = sys.modules["torch.distributed"], [None] * n_processes
    world = dist.group.WORLD
    if world not in _on_cpus:  # needs no GPU: NCCL takes that of the thread, which may be another one
        _on_cpus[world] = dist.new_group(backend="gloo")
    dist.all_gather_object(parts, list(rows), group=_on_cpus[world])
    start = sum(map(len, parts[:process]))
    return list(chain.from_iterable(parts)), range(start, start + len(rows))


def interleaved(shares: Sequence[np.ndarray]) -> np.ndarray:
    """The results for N rows, shape (N, …), from those of W shares, each of shape (about N / W, …)."""
    joined = np.empty((sum(map(len, shares)), *shares[0].shape[1:]), shares[0].dtype)
    for w, share in enumerate(shares):
        joined[w :: len(shares)] = share
    return joined
