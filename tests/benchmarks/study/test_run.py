"""One run of a study. Whole runs are in tests/recipes."""

import json
from dataclasses import replace

import pytest

from benchmarks.study import run as one_run
from benchmarks.study.runner import recorded


def test_a_stopped_warm_start_is_not_recorded_with_earlier_settings(plan, tmp_path, monkeypatch):
    """Its policy may be overwritten already, and the other runs would start from it after a change back."""

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(one_run, "build_warm_policy", stop)
    before, *_ = plan.starts
    path = tmp_path / before.path
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"hash": before.hash}))
    changed = replace(before, settings=before.settings | {"n_train": 4})
    with pytest.raises(KeyboardInterrupt):
        one_run.train_and_evaluate(changed, tmp_path)
    assert recorded(before, tmp_path) is None
