"""Signals end a script at once, or within training after a checkpoint, with status 143 or, after Ctrl-C, 130."""

import os
import signal
import subprocess
import sys

import pytest

from autorater.training import preemption
from autorater.training.preemption import deferred_signals, exit_on_signal, exit_with

WAITING = """
import os, sys, time
from autorater.cli import run_script
def main():
    try:
        print("ready", flush=True)
        time.sleep(600)
    finally:
        print("tidied up", flush=True)
run_script(main)
"""


def start(code=WAITING, **env):
    """Starts Python with the default handling of Ctrl-C, which a test run in the background may ignore."""
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | env, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "status", "message"),
    [
        ("SIGTERM", 143, "stopped by SIGTERM\n"),
        ("SIGUSR1", 143, "stopped by SIGUSR1\n"),
        ("SIGINT", 130, "\ninterrupted\n"),
    ],
)
def test_a_script_ends_at_once(name, status, message):
    script = start()
    assert script.stdout.readline() == "ready\n"
    script.send_signal(getattr(signal, name))
    out, err = script.communicate(timeout=300)
    assert script.returncode == status
    assert (out, err) == ("tidied up\n", message)


def test_only_the_first_of_several_processes_prints_the_reason():
    script = start(RANK="1")
    script.stdout.readline()
    script.send_signal(signal.SIGTERM)
    assert script.communicate(timeout=300)[1] == ""
    assert script.returncode == 143


def test_the_child_of_a_launcher_ends_with_it():
    """`accelerate launch` of one process forwards no signal."""
    launcher = start(
        f"import subprocess, sys; subprocess.run([sys.executable, '-c', {WAITING!r}])", ACCELERATE_MIXED_PRECISION="no"
    )
    assert launcher.stdout.readline() == "ready\n"
    launcher.terminate()
    out, err = launcher.communicate(timeout=300)  # the pipes close when the child has ended
    assert (out, err) == ("tidied up\n", "stopped by SIGTERM\n")


def send(*names):
    for name in names:
        os.kill(os.getpid(), getattr(signal, name))


@pytest.fixture
def ctrl_c(monkeypatch):
    """Python's default handling of Ctrl-C, and no launcher."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.delenv("RANK", raising=False)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("names", "status"),
    [
        (["SIGUSR1", "SIGTERM", "SIGTERM"], 143),
        (["SIGINT"], 130),
        (["SIGINT", "SIGTERM"], 130),
    ],
)
def test_deferred_signals_are_recorded_and_the_first_one_counts(ctrl_c, capfd, names, status):
    with exit_on_signal(), deferred_signals() as received:
        assert received.name is None
        send(*names)
        assert (received.name, received.status) == (names[0], status)
    assert capfd.readouterr().err == f"\n{names[0]}: the run ends after this step, with a checkpoint\n"
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler


@pytest.mark.parametrize("first", ["SIGINT", "SIGTERM"])
def test_ctrl_c_after_a_signal_ends_at_once(ctrl_c, first):
    with pytest.raises(KeyboardInterrupt), deferred_signals():
        send(first, "SIGINT")


def test_under_a_launcher_the_forwarded_ctrl_c_is_not_a_second_one(ctrl_c, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(preemption, "REPEAT_SECONDS", 600.0)
    with deferred_signals() as received:
        send("SIGINT", "SIGINT")
        assert received.name == "SIGINT"
        monkeypatch.setattr(preemption, "REPEAT_SECONDS", 0.0)
        with pytest.raises(KeyboardInterrupt):
            send("SIGINT")


def test_an_ignored_ctrl_c_stays_ignored(ctrl_c):
    """A shell script ignores it for its background jobs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with deferred_signals() as received:
        send("SIGINT")
        assert received.name is None


@pytest.mark.parametrize("status", [130, 143])
def test_exit_with_prints_the_reason(capsys, status):
    with pytest.raises(SystemExit) as stopped:
        exit_with("stopped after step 3", status)
    assert stopped.value.code == status
    assert capsys.readouterr().err == "stopped after step 3\n"
