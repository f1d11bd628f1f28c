"""What is kept of a run, when it counts, and how long the rest will take. Most runs are in tests/recipes."""

import json
import multiprocessing
import signal
import sys
from dataclasses import replace

import pytest

from autorater.data.errors import UserError
from benchmarks.study import runner
from benchmarks.study.runner import TimeLeft, recorded, run_study


def test_a_run_is_kept_while_its_settings_stay(plan, tmp_path):
    run = plan.runs[0]
    assert recorded(run, tmp_path) is None
    path = tmp_path / run.path
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"hash": run.hash, "predictions": {}}))
    assert recorded(run, tmp_path) == {"hash": run.hash, "predictions": {}}
    path.write_text(json.dumps({"hash": "that of other settings"}))
    assert recorded(run, tmp_path) is None


def test_time_left_is_that_of_the_methods_that_are_left(plan):
    runs = plan.runs[:4]  # three seeds of one method, the first of the next
    left = TimeLeft(runs, processes=2)
    assert left.seconds == 0, "nothing is known yet"
    left.done(runs[0], 60.0)
    assert left.seconds == pytest.approx((60 + 60 + 60) / 2), "the other method as the mean of all"
    left.done(runs[3], 20.0)
    assert left.seconds == pytest.approx((60 + 60) / 2)
    assert left.text == "about 1 min left"


class Ends:
    """A setting with which a process ends when it receives the run."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call[0], self.call[1:]


@pytest.fixture
def imported_once(monkeypatch):
    """Workers are forks of a server that has imported the libraries: processes as new ones, sooner."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["benchmarks.study.pretrained"])
    monkeypatch.setattr(runner, "get_context", lambda _: server)


def test_a_run_whose_process_ends_has_failed_and_the_others_continue(plan, tmp_path, imported_once):
    datasets = {"contested": replace(plan.datasets["contested"], seeds=[0])}
    common = {"model_name_or_path": "", "no_such_key": 1}  # of a pretrained model, whose warm start is the last run
    ends = {"ours": Ends(signal.raise_signal, signal.SIGKILL), "usual": Ends(sys.exit, 143)}
    methods = {name: replace(plan.methods[name], settings={"ends": end}) for name, end in ends.items()}
    plan = replace(plan, datasets=datasets, methods=methods, common=common, processes=1)

    def hangs(*_):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(120)
    try:
        with pytest.raises(UserError, match=r"^3 runs failed: warm start \(contested, seed 0\), ours"):
            run_study(plan, tmp_path)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    errors = {path.name.split(".")[0]: path.read_text() for path in tmp_path.rglob("*.error.txt")}
    assert "ended with status -9" in errors["ours"]
    assert "ended with status 143" in errors["usual"]
    assert "no_such_key" in errors["warm_start"]


def test_runs_that_cannot_be_written_have_failed_and_the_others_continue(plan, tmp_path, capsys, imported_once):
    """In place of a full disk a file where the folder of the runs should be."""
    (tmp_path / "runs").touch()
    datasets = {"contested": replace(plan.datasets["contested"], seeds=[0])}
    methods = {"ours": replace(plan.methods["ours"], settings={"ends": Ends(signal.raise_signal, signal.SIGKILL)})}
    plan = replace(plan, datasets=datasets, methods=methods, common={"model_name_or_path": ""}, processes=1)
    with pytest.raises(UserError, match=r"^2 runs failed: warm start .*, ours \(contested, seed 0\); --finished"):
        run_study(plan, tmp_path)
    printed = capsys.readouterr().out
    assert "failed: ours (contested, seed 0): the process of this run ended with status -9" in printed
    assert "failed: warm start (contested, seed 0): " in printed
    assert "Error: [Errno " in printed


def test_a_study_needs_a_process(plan, tmp_path):
    with pytest.raises(UserError, match="processes: got 0; expected at least 1"):
        run_study(replace(plan, processes=0), tmp_path)
