"""W&B: offline when there is no login or no connection, said in a line, and never in the way."""

import sys
from types import SimpleNamespace

import pytest

from autorater.training.tracking import start_tracking


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
