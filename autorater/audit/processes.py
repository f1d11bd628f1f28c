"""The processes of one `autorater judge`, as `torchrun --nproc_per_node 8 --no-python autorater judge …` starts them.

Process r of W judges block r of the requests, block r + W, …, on its own GPU if there are several, and stores its
judgments in a folder of its own; the first process adds them to the store of the run. So the blocks, on which the last
digits depend, are those of a single process, and a stopped run can be resumed with another number of processes.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from autorater.evaluation.judgment_store import JudgmentStore

_TIMEOUT = timedelta(days=30)  # of a wait for the slowest process


@dataclass(frozen=True)
class Processes:
    """This process, from 0, and how many there are."""

    rank: int = 0
    size: int = 1

    @classmethod
    def of_environment(cls) -> Processes:
        """Those of torchrun; this one alone without it. Takes the GPU of this process."""
        if (size := int(os.environ.get("WORLD_SIZE") or 1)) == 1:  # a RANK alone is a left-over
            return cls()
        import torch

        from autorater.models.shares import gpu_of_process

        if torch.cuda.is_available():
            torch.cuda.set_device(gpu_of_process())
        return cls(int(os.environ.get("RANK") or 0), size)

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def folder(self, run: Path) -> Path:
        """Where a process that is not the first stores its judgments, see `collect`."""
        return run / f"process-{self.rank}"

    def has_block(self, index: int) -> bool:
        """Whether this process judges a block of requests."""
        return index % self.size == self.rank

    def wait(self) -> None:
        """Returns once all processes are here."""
        if self.size > 1:
            import torch.distributed as dist

            if not dist.is_initialized():
                dist.init_process_group("gloo", timeout=_TIMEOUT)
            dist.barrier()


ALONE = Processes()


def collect(store: JudgmentStore, run: Path, open_store: Callable[[Path], JudgmentStore]) -> None:
    """Adds what the other processes, also of a stopped run, have stored to the store of the run."""
    for folder in sorted(run.glob("process-*")):
        with closing(open_store(folder)) as other:
            for number in other.numbers():
                if number not in store:
                    store.append(number, other[number])
        shutil.rmtree(folder)
