"""The files of a run are replaced in one step."""

import pytest

from autorater.cli import command
from autorater.data.errors import UserError
from autorater.evaluation.results import refuse_results_of_judges, write_metrics, write_predictions
from autorater.training.checkpointing.stages import RECORD
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


@pytest.mark.parametrize("measuring", [["audit"], ["evaluate", "--dataset_name", "votes.jsonl"]])
def test_the_judgments_and_the_training_of_a_judge_are_not_overwritten(tmp_path, capsys, monkeypatch, measuring):
    monkeypatch.chdir(tmp_path)
    earlier = tmp_path / "predictions.jsonl"
    earlier.write_text('{"id": "x", "p_ab": 0.7, "p_ba": 0.4}\n')
    with pytest.raises(SystemExit, match="2"):
        command([*measuring, "--judge", "recorded:predictions.jsonl", "--output_dir", "."])
    assert "predictions.jsonl would be overwritten, and it is the file to read" in capsys.readouterr().err
    (tmp_path / RECORD).write_text("{}")
    local = [*measuring[:1], "--dataset_name", "votes.jsonl", "--judge", str(tmp_path), "--output_dir", "."]
    with pytest.raises(SystemExit, match="2"):
        command(local)
    assert f"--output_dir: . is the folder of {tmp_path}, whose metrics.json and" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"predictions.jsonl", RECORD}
    assert earlier.read_text() == '{"id": "x", "p_ab": 0.7, "p_ba": 0.4}\n'


def test_a_folder_with_earlier_results_of_its_own_may_be_used_again(tmp_path):
    write_metrics(tmp_path, {"brier": 0.25})
    others = ["org/name", "endpoint:m", f"recorded:{tmp_path / 'votes.jsonl'}"]
    refuse_results_of_judges([str(tmp_path), *others], tmp_path)
    (tmp_path / RECORD).touch()
    with pytest.raises(UserError, match="is the folder of"):
        refuse_results_of_judges([str(tmp_path)], tmp_path)
    (tmp_path / "audit").mkdir()
    refuse_results_of_judges([str(tmp_path)], tmp_path / "audit")
