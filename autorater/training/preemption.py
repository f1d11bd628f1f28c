"""Being asked to leave: SIGTERM (clusters, containers) and SIGUSR1 (SLURM's `--signal=USR1@120`).

A script that was asked leaves at once, with exit status 143: what a shell says of a process that SIGTERM ended. Within
`notice()` it is told instead, and leaves by itself when it has put its work away. Asking again changes nothing: under
a launcher a signal often comes twice, from the scheduler and from the launcher. Needs no torch.

Launchers of several processes pass a signal on. `accelerate launch` of one process does not; it dies, and its child is
told by the kernel.

Deliberately left out: SIGINT. Who presses Ctrl-C wants the prompt back, and gets Python's traceback.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

STATUS = 143
_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
_TELL_WHEN_PARENT_DIES = 1  # PR_SET_PDEATHSIG of prctl(2)


@dataclass
class Notice:
    """Whether this process was asked to leave.

    Attributes:
        signal: Name of the signal that asked, or None.
    """

    signal: str | None = None


@contextmanager
def leaving_when_asked() -> Iterator[None]:
    """Within it a signal ends the process with a line on stderr and status 143, PID 1 of a container included."""
    before = {number: signal.signal(number, _leave_at_once) for number in _SIGNALS}
    if "ACCELERATE_MIXED_PRECISION" in os.environ and "RANK" not in os.environ and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_TELL_WHEN_PARENT_DIES, signal.SIGTERM)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def notice() -> Iterator[Notice]:
    """Within it a signal is only noted."""
    noted = Notice()

    def note(number: int, frame) -> None:
        noted.signal = signal.Signals(number).name

    before = {number: signal.signal(number, note) for number in _SIGNALS}
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def leave(message: str) -> None:
    """Says why, once for all processes of a run, and ends the process with status 143."""
    if is_main():
        print(message, file=sys.stderr, flush=True)
    raise SystemExit(STATUS)


def is_main() -> bool:
    """Whether a launcher has made this process the first of a run, or there is only one."""
    return os.environ.get("RANK", "0") == "0"


def _leave_at_once(number: int, frame) -> None:
    for other in _SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    leave(f"stopped by {signal.Signals(number).name}")
