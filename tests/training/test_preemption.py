"""Asked to leave: at once, or when the work is put away; always with status 143."""

import os
import signal
import subprocess
import sys

import pytest

from autorater.training.preemption import leave, leaving_when_asked, notice

WAITING = """
import os, sys, time
from autorater.cli import run_script
def main():
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally:
        print("tidied up", flush=True)
run_script(main)
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_a_script_leaves_at_once(name):
    script = subprocess.Popen(
        [sys.executable, "-c", WAITING], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert script.stdout.readline() == "ready\n"
    script.send_signal(getattr(signal, name))
    out, err = script.communicate(timeout=20)
    assert script.returncode == 143
    assert (out, err) == ("tidied up\n", f"stopped by {name}\n")


def test_only_the_first_of_several_processes_says_it():
    script = subprocess.Popen(
        [sys.executable, "-c", WAITING], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"RANK": "1"},
    )  # fmt: skip
    script.stdout.readline()
    script.send_signal(signal.SIGTERM)
    assert script.communicate(timeout=20)[1] == ""
    assert script.returncode == 143


def test_a_launcher_that_dies_takes_its_child_along():
    """`accelerate launch` of one process passes no signal on."""
    launch = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {WAITING!r}])"
    launcher = subprocess.Popen(
        [sys.executable, "-c", launch], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"ACCELERATE_MIXED_PRECISION": "no"},
    )  # fmt: skip
    assert launcher.stdout.readline() == "ready\n"
    launcher.terminate()
    out, err = launcher.communicate(timeout=20)  # the pipes close when the child has gone
    assert (out, err) == ("tidied up\n", "stopped by SIGTERM\n")


def test_within_a_notice_signals_are_only_noted():
    with leaving_when_asked(), notice() as noted:
        assert noted.signal is None
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert noted.signal == "SIGTERM"
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_leaving_says_why(capsys):
    with pytest.raises(SystemExit) as left:
        leave("asked to leave behind step 3")
    assert left.value.code == 143
    assert capsys.readouterr().err == "asked to leave behind step 3\n"
