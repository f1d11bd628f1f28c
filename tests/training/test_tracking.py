"""Trackers: missing ones are an error; W&B records offline without login or connection, and never delays a step."""

import sys
import threading
from importlib.machinery import ModuleSpec
from types import SimpleNamespace

import pytest
from transformers.integrations import WandbCallback

from autorater.data.errors import UserError
from autorater.training import tracking
from autorater.training.tracking import check_trackers, start_tracking, tolerate_tracker_errors


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
        fake.options = kwargs

    fake.__spec__ = ModuleSpec("wandb", None)  # transformers checks whether it is installed
    fake.init, fake.login = init, lambda **_: fake.logged_in
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    return fake


ARGS = {"output_dir": "out", "run_name": "x", "process_index": 0}


@pytest.mark.parametrize(
    ("logged_in", "reachable", "modes", "message"),
    [
        (False, True, ["offline"], "no login, recording offline in out/wandb"),
        (True, True, [None], ""),
        (True, False, ["offline"], "cannot be reached (no route), recording offline"),
    ],
)
def test_falls_back_to_offline(wandb, caplog, logged_in, reachable, modes, message):
    wandb.logged_in, wandb.reachable = logged_in, reachable
    with caplog.at_level("INFO", "autorater"):
        start_tracking(SimpleNamespace(**ARGS, report_to=["wandb"]), {"a": 1}, "r1")
    assert wandb.started == modes
    assert message in caplog.text
    assert bool(message) == bool(caplog.messages)
    assert (wandb.options["id"], wandb.options["resume"]) == ("r1", "allow"), "a resumed run is the same run"


def test_mode_of_the_environment_is_kept(wandb, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    start_tracking(SimpleNamespace(**ARGS, report_to=["wandb"]), {}, "r1")
    assert wandb.started == ["disabled"]


def test_trackers_are_checked(monkeypatch):
    integration = "transformers.integrations.integration_utils"
    monkeypatch.setattr(f"{integration}.is_mlflow_available", lambda: False)
    with pytest.raises(UserError, match="report_to: mlflow is not installed"):
        check_trackers(SimpleNamespace(report_to=["mlflow"]))
    with pytest.raises(UserError, match=r"report_to: got 'wandbb'; expected none or one of .*wandb"):
        check_trackers(SimpleNamespace(report_to=["wandbb"]))
    monkeypatch.setattr(f"{integration}.is_mlflow_available", lambda: True)
    check_trackers(SimpleNamespace(report_to=["mlflow"]))
    check_trackers(SimpleNamespace(report_to=[]))


def test_a_missing_tracker_is_an_error_before_anything_is_written(tmp_path, monkeypatch):
    from trl import ModelConfig

    from autorater.training.arguments import JudgeArguments
    from autorater.training.options import RunOptions
    from autorater.training.run import begin_run

    monkeypatch.setattr("transformers.integrations.integration_utils.is_mlflow_available", lambda: False)
    training = SimpleNamespace(report_to=["mlflow"], output_dir=str(tmp_path / "out"), eval_strategy="no", n_gpu=0)
    with pytest.raises(UserError, match="mlflow is not installed"):
        begin_run(RunOptions(JudgeArguments(), training, ModelConfig()), SimpleNamespace(summary="3 pairs"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("changes", [{"report_to": ["trackio"]}, {"report_to": []}, {"process_index": 1}])
def test_nothing_to_start(wandb, changes):
    start_tracking(SimpleNamespace(**ARGS | {"report_to": ["wandb"]} | changes), {}, "r1")
    assert wandb.started == []


@pytest.fixture
def log(wandb, monkeypatch):
    """The callback of a run that has begun, and an event that lets W&B's `log` return."""
    responds = threading.Event()
    wandb.logged, wandb.error = [], None

    def log(values):
        responds.wait(timeout=300)
        if wandb.error:
            raise wandb.error
        wandb.logged.append(values)

    wandb.log, wandb.run = log, SimpleNamespace(summary={})
    monkeypatch.setattr(WandbCallback, "setup", lambda *_, **__: None)
    callbacks = []
    trainer = SimpleNamespace(pop_callback=lambda kind: kind, add_callback=lambda kind: callbacks.append(kind()))
    tolerate_tracker_errors(trainer)
    state = SimpleNamespace(is_world_process_zero=True, global_step=0)
    monkeypatch.setattr(WandbCallback, "on_train_begin", lambda *_, **__: None)
    callbacks[0].on_train_begin(None, state, None)
    callbacks[0]._initialized = True
    return SimpleNamespace(callback=callbacks[0], state=state, responds=responds)


def end(log, monkeypatch):
    log.responds.set()
    monkeypatch.setattr(WandbCallback, "on_train_end", lambda *_, **__: None)
    log.callback.on_train_end(None, log.state, None)


def test_a_step_does_not_wait_for_the_tracker(wandb, log, monkeypatch):
    for step in range(5):
        log.state.global_step = step
        log.callback.on_log(None, log.state, None, logs={"loss": step})
        wandb.log({"completions": step})  # as TRL does
    assert wandb.logged == [], "no response yet"
    end(log, monkeypatch)
    assert [values.get("completions", values.get("train/global_step")) for values in wandb.logged] == [
        step for step in range(5) for _ in range(2)
    ], "in order, each with the step that it was logged at"


def test_an_error_of_the_tracker_ends_the_tracking(wandb, log, monkeypatch):
    wandb.error = ConnectionError("gone")
    for _ in range(3):
        log.callback.on_log(None, log.state, None, logs={"loss": 0.0})
    with pytest.warns(RuntimeWarning, match="tracking has ended, the training continues.*gone"):
        end(log, monkeypatch)
    assert wandb.run is None
    log.callback.on_log(None, log.state, None, logs={"loss": 0.0})


def test_the_end_does_not_wait_long(wandb, log, monkeypatch):
    monkeypatch.setattr(tracking, "_UPLOAD_SECONDS", 0.05)
    monkeypatch.setattr(log.responds, "set", lambda: None)
    log.callback.on_log(None, log.state, None, logs={"loss": 0.0})
    with pytest.warns(RuntimeWarning, match="no response for 0.05 s"):
        end(log, monkeypatch)
