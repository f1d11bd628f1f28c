"""What is kept of a cell, when it counts, and how long the rest will take. Running cells is in tests/recipes."""

import json

import pytest

from benchmarks.study.running import TimeLeft, recorded


def test_a_cell_counts_while_its_settings_stay(plan, tmp_path):
    cell = plan.cells[0]
    assert recorded(cell, tmp_path) is None
    path = tmp_path / cell.path
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"hash": cell.hash, "readings": {}}))
    assert recorded(cell, tmp_path) == {"hash": cell.hash, "readings": {}}
    path.write_text(json.dumps({"hash": "that of other settings"}))
    assert recorded(cell, tmp_path) is None


def test_time_left_is_that_of_the_methods_that_are_left(plan):
    cells = plan.cells[:4]  # three seeds of one method, the first of the next
    left = TimeLeft(cells, processes=2)
    assert left.seconds == 0, "nothing is known yet"
    left.done(cells[0], 60.0)
    assert left.seconds == pytest.approx((60 + 60 + 60) / 2), "the other method as the mean of all"
    left.done(cells[3], 20.0)
    assert left.seconds == pytest.approx((60 + 60) / 2)
    assert left.text == "about 1 min left"
