"""W&B: offline when there is no login or no connection, said in a line, and never in the way."""

import sys
import threading
import time
from importlib.machinery import ModuleSpec
from types import SimpleNamespace

import pytest
from transformers.integrations import WandbCallback

from autorater.training import tracking
from autorater.training.tracking import forgive_tracker, start_tracking


class FakeError(Exception):
    pass


@pytest.fixture
def wandb(monkeypatch):
    fake = SimpleNamespace(
        logged_in=False, reachable=True, started=[], Settings=lambda **kw: kw, errors=SimpleNamespace(Error=FakeError)
    )

    def init(mode=None, **kwargs):
        if mode != "offline" and not fake.reachable:
            raise FakeError("no route")
        fake.started.append(mode)
        fake.told = kwargs

    fake.__spec__ = ModuleSpec("wandb", None)  # transformers looks whether it is installed
    fake.init, fake.login = init, lambda **_: fake.logged_in
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    return fake


ARGS = {"output_dir": "out", "run_name": "x", "process_index": 0}


@pytest.mark.parametrize(
    ("logged_in", "reachable", "modes", "said"),
    [
        (False, True, ["offline"], "no login, recording offline in out/wandb"),
        (True, True, [None], ""),
        (True, False, ["offline"], "cannot be reached (no route), recording offline"),
    ],
)
def test_falls_back_to_offline(wandb, capsys, logged_in, reachable, modes, said):
    wandb.logged_in, wandb.reachable = logged_in, reachable
    start_tracking(SimpleNamespace(**ARGS, report_to=["wandb"]), {"a": 1}, "r1")
    assert wandb.started == modes
    assert said in capsys.readouterr().out
    assert (wandb.told["id"], wandb.told["resume"]) == ("r1", "allow"), "a resumed run is the same run"


def test_mode_of_the_environment_is_kept(wandb, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    start_tracking(SimpleNamespace(**ARGS, report_to=["wandb"]), {}, "r1")
    assert wandb.started == ["disabled"]


@pytest.mark.parametrize("changes", [{"report_to": ["trackio"]}, {"report_to": []}, {"process_index": 1}])
def test_nothing_to_start(wandb, changes):
    start_tracking(SimpleNamespace(**ARGS | {"report_to": ["wandb"]} | changes), {}, "r1")
    assert wandb.started == []


@pytest.fixture
def log(wandb, monkeypatch):
    """W&B's `log` of a run that has begun, and a callback around it."""
    answers = threading.Event()
    wandb.logged, wandb.answers, wandb.error = [], answers, None

    def log(what):
        answers.wait()
        if wandb.error:
            raise wandb.error
        wandb.logged.append(what)

    wandb.log, wandb.run = log, SimpleNamespace(summary={})
    monkeypatch.setattr(WandbCallback, "setup", lambda *_, **__: None)
    callbacks = []
    trainer = SimpleNamespace(pop_callback=lambda kind: kind, add_callback=lambda kind: callbacks.append(kind()))
    forgive_tracker(trainer)
    state = SimpleNamespace(is_world_process_zero=True, global_step=0)
    monkeypatch.setattr(WandbCallback, "on_train_begin", lambda *_, **__: None)
    callbacks[0].on_train_begin(None, state, None)
    callbacks[0]._initialized = True
    return SimpleNamespace(callback=callbacks[0], state=state, answers=answers)


def end(log, monkeypatch):
    log.answers.set()
    monkeypatch.setattr(WandbCallback, "on_train_end", lambda *_, **__: None)
    log.callback.on_train_end(None, log.state, None)


def test_a_step_does_not_wait_for_the_tracker(wandb, log, monkeypatch):
    began = time.monotonic()
    for step in range(5):
        log.state.global_step = step
        log.callback.on_log(None, log.state, None, logs={"loss": step})
        wandb.log({"completions": step})  # as TRL does
    assert time.monotonic() - began < 1
    assert wandb.logged == [], "nobody has answered yet"
    end(log, monkeypatch)
    assert [what.get("completions", what.get("train/global_step")) for what in wandb.logged] == [
        step for step in range(5) for _ in range(2)
    ], "in order, each with the step that it was logged at"


def test_an_error_of_the_tracker_ends_the_tracking(wandb, log, monkeypatch):
    wandb.error = ConnectionError("gone")
    for _ in range(3):
        log.callback.on_log(None, log.state, None, logs={"loss": 0.0})
    with pytest.warns(RuntimeWarning, match="tracking has ended, the training goes on.*gone"):
        end(log, monkeypatch)
    assert wandb.run is None
    log.callback.on_log(None, log.state, None, logs={"loss": 0.0})


def test_the_end_does_not_wait_long(wandb, log, monkeypatch):
    monkeypatch.setattr(tracking, "_UPLOAD_SECONDS", 0.05)
    monkeypatch.setattr(log.answers, "set", lambda: None)
    log.callback.on_log(None, log.state, None, logs={"loss": 0.0})
    with pytest.warns(RuntimeWarning, match="took nothing for 0.05 s"):
        end(log, monkeypatch)
