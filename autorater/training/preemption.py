"""Graceful shutdown: SIGTERM (clusters, containers), SIGUSR1 (SLURM's `--signal=USR1@120`) and Ctrl-C (SIGINT).

Outside training a signal ends a script at once. During training it is recorded, and the training ends after a
checkpoint. The exit status is 130 after Ctrl-C and 143 after the others.

A second Ctrl-C ends the training at once. Other repeated signals change nothing: schedulers and launchers both send
them. Under a launcher Ctrl-C arrives twice too, so there it counts as the second only after `REPEAT_SECONDS`.
`accelerate launch` of one process forwards no signal: it ends, and the kernel notifies its child. Needs no torch.
"""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

INTERRUPTED, TERMINATED = 130, 143
REPEAT_SECONDS = 2.0
_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
_SIGNAL_WHEN_PARENT_ENDS = 1  # PR_SET_PDEATHSIG of prctl(2)


@dataclass
class ReceivedSignal:
    """Name of the first signal that this process received, or None, and its time on the monotonic clock."""

    name: str | None = None
    time: float = 0.0

    @property
    def status(self) -> int:
        """The exit status of a process that the signal ends."""
        return INTERRUPTED if self.name == "SIGINT" else TERMINATED


@contextmanager
def exit_on_signal() -> Iterator[None]:
    """Within it SIGTERM and SIGUSR1 end the process with a line on stderr and status 143, also as PID 1."""
    if "ACCELERATE_MIXED_PRECISION" in os.environ and "RANK" not in os.environ and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SIGNAL_WHEN_PARENT_ENDS, signal.SIGTERM)

    def end(number: int, frame) -> None:
        for other in _SIGNALS:
            signal.signal(other, signal.SIG_IGN)
        exit_with(f"stopped by {signal.Signals(number).name}")

    with _handlers(dict.fromkeys(_SIGNALS, end)):
        yield


@contextmanager
def deferred_signals(then: str = "the run ends after this step, with a checkpoint") -> Iterator[ReceivedSignal]:
    """Within it a signal is only recorded and `then` printed; a second Ctrl-C raises KeyboardInterrupt."""
    received = ReceivedSignal()

    def record(number: int, frame) -> None:
        name = signal.Signals(number).name
        if received.name is None:
            received.name, received.time = name, time.monotonic()
            if is_main():  # not print(): the signal may have interrupted one
                os.write(2, f"\n{name}: {then}\n".encode())
        elif number == signal.SIGINT:
            seconds = time.monotonic() - received.time
            if "RANK" not in os.environ or seconds >= REPEAT_SECONDS:
                raise KeyboardInterrupt

    handlers = dict.fromkeys(_SIGNALS, record)
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # ignored in background jobs of a shell script
        handlers[signal.SIGINT] = record
    with _handlers(handlers):
        yield received


@contextmanager
def _handlers(handlers: dict) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def exit_with(message: str, status: int = TERMINATED) -> None:
    """Prints a message on stderr, once for all processes of a run, and ends the process."""
    if is_main():
        print(message, file=sys.stderr, flush=True)
    raise SystemExit(status)


def is_main() -> bool:
    """Whether this is the only process of a run, or the first one of a launcher."""
    return (os.environ.get("RANK") or "0") == "0"
