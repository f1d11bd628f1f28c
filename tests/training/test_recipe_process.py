"""Recipes in processes of their own: resumed, stopped by a signal, and their failures."""

import os
import signal
import threading
import time

import pytest
import yaml

from autorater.data.errors import UserError
from autorater.training.recipe_process import run_recipe

RECIPE = """
import os, pathlib, signal, sys, time
place = pathlib.Path(sys.argv[sys.argv.index("--config") + 1]).parent
signal.signal(signal.SIGTERM, lambda *_: sys.exit({stopped}))
print("started with", sys.argv[3:], flush=True)
(place / "started").touch()
time.sleep({seconds})
print("the reason")
(place / "gpu").write_text(os.environ["CUDA_VISIBLE_DEVICES"])
sys.exit({status})
"""


@pytest.fixture
def start(tmp_path):
    """Starts a stand-in of a recipe; returns its log."""

    def start(name="grpo", status=0, seconds=0, stopped=143):
        script = tmp_path / f"{name}.py"
        script.write_text(RECIPE.format(status=status, seconds=seconds, stopped=stopped))
        run_recipe(script, {"output_dir": str(tmp_path / "out"), "max_steps": 3})
        return (tmp_path / "out" / "log.txt").read_text()

    return start


def test_a_recipe_is_executed_in_its_folder(start, tmp_path):
    log = start()
    assert log == "started with ['--resume_from_checkpoint', 'auto']\nthe reason\n"
    options = yaml.safe_load((tmp_path / "out" / "settings.yaml").read_text())
    assert options == {"output_dir": str(tmp_path / "out"), "max_steps": 3}
    with pytest.raises(UserError, match=r"^grpo\.py failed with status 2; see .*out/log\.txt$"):
        start(status=2)
    assert start() == 3 * log, "the log has all starts"


@pytest.mark.parametrize(("visible", "used"), [(None, "0"), ("3,1", "3"), ("", "")])
def test_a_recipe_has_one_gpu(start, tmp_path, monkeypatch, visible, used):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    start()
    assert (tmp_path / "out" / "gpu").read_text() == used


def test_a_recipe_that_does_not_resume_begins_again(start):
    assert start("charm") == "started with []\nthe reason\n"


@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGUSR1", 143), ("SIGINT", 130)])
@pytest.mark.parametrize("ended", [143, 0], ids=["unfinished", "finished"])
def test_a_signal_reaches_the_recipe(start, tmp_path, capfd, monkeypatch, name, status, ended):
    ours = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
    before = [signal.getsignal(number) for number in ours]
    monkeypatch.setattr(signal, "getsignal", lambda number: signal.default_int_handler)  # tests may run in background

    def stop():
        while not (tmp_path / "out" / "started").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), getattr(signal, name))

    threading.Thread(target=stop, daemon=True).start()
    with pytest.raises(SystemExit) as stopped:
        start(seconds=60, stopped=ended)
    assert "the reason" not in (tmp_path / "out" / "log.txt").read_text(), "it did not run to its end"
    assert stopped.value.code == status
    message = f"\n{name}: stopping; training saves a checkpoint first\nstopped; the same command resumes\n"
    assert capfd.readouterr().err == message
    monkeypatch.undo()
    assert [signal.getsignal(number) for number in ours] == before


def test_a_recipe_that_a_signal_stopped_is_no_failure(start):
    with pytest.raises(SystemExit):
        start(status=143)
