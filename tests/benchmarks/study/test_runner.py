"""What is kept of a run, when it counts, and how long the rest will take. Running runs is in tests/recipes."""

import json

import pytest

from benchmarks.study.runner import TimeLeft, recorded


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
