"""The files of a run are replaced in one step."""

import pytest

from autorater.evaluation.results import write_metrics, write_predictions
from tests.conftest import full_disk


def test_results_that_cannot_be_written_leave_those_before(tmp_path, simulated, monkeypatch):
    write_metrics(tmp_path, {"brier": 0.25})
    write_predictions(tmp_path, simulated.pairs[:2], lambda i, order: {"probability": 0.5})
    before = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert set(before) == {"metrics.json", "predictions.jsonl"}
    with pytest.raises(OSError, match="No space"):
        write_predictions(tmp_path, simulated.pairs[:2], full_disk)
    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_metrics(tmp_path, {"brier": 0.5})
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == before
