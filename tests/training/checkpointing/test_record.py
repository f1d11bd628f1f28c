"""What a run has behind it: read back with the same settings, refused with others, anew where nobody says resume."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from autorater.data.errors import AlreadyFinished
from autorater.judges import Judgments
from autorater.training.checkpointing.checkpoints import CheckpointError, seal
from autorater.training.checkpointing.record import RunRecord

SETTINGS = {"seed": 0, "learning_rate": 1e-3, "synonyms": ["a"], "save_steps": 5}


def opened(folder, settings=SETTINGS, resume="auto", data="3 pairs", processes=1):
    args = SimpleNamespace(output_dir=str(folder), resume_from_checkpoint=resume, world_size=processes)
    return RunRecord.open(args, settings, data)


def test_a_run_goes_on_under_its_name_and_is_finished_once(tmp_path):
    first = opened(tmp_path)
    made = []
    assert first.once("warm_start", lambda: made.append(1)) == str(tmp_path / "warm_start")
    again = opened(tmp_path, SETTINGS | {"save_steps": 50, "report_to": "none"}, resume="true")
    assert again.run == first.run
    again.once("warm_start", lambda: made.append(2))
    assert made == [1], "a warm start is made once"
    again.mark("report")
    with pytest.raises(AlreadyFinished, match="is finished, with its report"):
        opened(tmp_path)
    anew = opened(tmp_path, resume=None)
    assert anew.run != first.run
    assert anew.done == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"settings": SETTINGS | {"seed": 1}}, "seed was 0 and is 1"),
        ({"settings": SETTINGS | {"beta": 0.1}}, r"beta was the default and is 0\.1"),
        ({"data": "4 pairs"}, "data was '3 pairs' and is '4 pairs'"),
        ({"processes": 2}, "processes was 1 and is 2"),
    ],
)
def test_other_settings_are_refused(tmp_path, changes, message):
    opened(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        opened(tmp_path, **changes)


def test_there_has_to_be_a_run_where_resuming_is_all_that_is_wanted(tmp_path):
    with pytest.raises(CheckpointError, match=r"there is no run in .* to go on with"):
        opened(tmp_path, resume="true")
    assert not list(tmp_path.iterdir())


def test_beginning_anew_says_what_is_left_behind(tmp_path, capsys):
    first = opened(tmp_path)
    (tmp_path / "checkpoint-7").mkdir()
    seal(tmp_path / "checkpoint-7", 7, first.about)
    opened(tmp_path, resume=None)
    assert f"--resume_from_checkpoint {tmp_path / 'checkpoint-7'} would have gone on" in capsys.readouterr().out
    assert (tmp_path / "checkpoint-7").exists()


@pytest.mark.parametrize("greedy", [True, False])
def test_the_first_evaluation_is_kept_to_the_last_bit(tmp_path, greedy):
    columns = np.random.default_rng(0).random((4, 3, 2))
    said = Judgments(*columns, greedy=np.full((3, 2), np.nan) if greedy else None)
    record = opened(tmp_path)
    assert record.judged_before(lambda: said) is said
    read = opened(tmp_path).judged_before(lambda: pytest.fail("asked again"))
    for name, column in vars(said).items():
        np.testing.assert_array_equal(getattr(read, name), column)


def test_the_record_is_readable(tmp_path):
    record = opened(tmp_path)
    record.mark("warm_start")
    kept = json.loads((tmp_path / "run.json").read_text())
    assert kept == {"run": record.run, "settings": dict(record.settings), "done": ["warm_start"]}
    assert "save_steps" not in kept["settings"]
