"""Completed stages of a run: resumed with the same settings or more steps, refused with others."""

import json
import re
import shutil
from multiprocessing import get_context
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors import SafetensorError

from autorater.data.errors import AlreadyFinished
from autorater.judges import Judgments
from autorater.prompts.templates import PromptFormat
from autorater.training.checkpointing import checkpoints
from autorater.training.checkpointing.checkpoints import CheckpointError, choose_checkpoint, complete
from autorater.training.checkpointing.record import RunRecord, _held

SETTINGS = {"seed": 0, "learning_rate": 1e-3, "synonyms": ["a"], "save_steps": 5}


def opened(folder, settings=SETTINGS, resume="auto", data="3 pairs", processes=1, max_steps=4, epochs=3.0):
    args = SimpleNamespace(
        output_dir=str(folder), resume_from_checkpoint=resume, world_size=processes, max_steps=max_steps,
        num_train_epochs=epochs,
    )  # fmt: skip
    return RunRecord.open(args, settings, data)


def test_a_run_is_resumed_under_its_name_and_finished_once(tmp_path):
    first = opened(tmp_path)
    built = []
    assert first.warm_started_policy(lambda: built.append(1)) == str(tmp_path / "warm_start")
    again = opened(tmp_path, SETTINGS | {"save_steps": 50, "report_to": "none"}, resume="true")
    assert again.run == first.run
    again.warm_started_policy(lambda: built.append(2))
    assert again.warm_start_seconds == first.warm_start_seconds >= 0
    assert built == [1], "a warm start is made once"
    again.mark("report")
    with pytest.raises(AlreadyFinished, match="is finished, with its report"):
        opened(tmp_path)
    anew = opened(tmp_path, resume=None)
    assert anew.run != first.run
    assert anew.completed == []


@pytest.mark.parametrize("longer", [{"max_steps": 8}, {"epochs": 4.0}])
def test_a_finished_run_continues_with_more_steps(tmp_path, longer):
    first = opened(tmp_path)
    first.mark("warm_start")
    first.mark("report")
    again = opened(tmp_path, **longer)
    assert (again.run, again.completed) == (first.run, ["warm_start"])
    assert opened(tmp_path, **longer).completed == ["warm_start"], "the longer run may be interrupted too"
    with pytest.raises(CheckpointError, match=r"(max_steps was 8 and is 4|num_train_epochs was 4\.0 and is 3\.0)"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"settings": SETTINGS | {"seed": 1}}, "seed was 0 and is 1"),
        ({"settings": SETTINGS | {"beta": 0.1}}, r"beta was the default and is 0\.1"),
        ({"data": "4 pairs"}, "data was '3 pairs' and is '4 pairs'"),
        ({"processes": 2}, "processes was 1 and is 2"),
        ({"max_steps": 2}, "max_steps was 4 and is 2"),
    ],
)
def test_other_settings_are_refused(tmp_path, changes, message):
    opened(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        opened(tmp_path, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"logging_strategy": "epoch", "log_level": "info", "log_unique_prompts": True},
        {"push_to_hub": True, "hub_model_id": "me/judge", "hub_private_repo": True},
        {"project": "judges", "dataloader_num_workers": 2, "save_on_each_node": True},
    ],
)
def test_settings_of_logging_and_saving_may_change(tmp_path, changes):
    first = opened(tmp_path)
    assert opened(tmp_path, SETTINGS | changes).run == first.run


def test_resume_true_requires_a_run(tmp_path):
    with pytest.raises(CheckpointError, match=r"there is no run in .* to resume"):
        opened(tmp_path, resume="true")
    assert not list(tmp_path.iterdir())


def test_a_new_run_reports_the_checkpoints_of_the_earlier_one(tmp_path, caplog):
    first = opened(tmp_path)
    (tmp_path / "checkpoint-7").mkdir()
    complete(tmp_path / "checkpoint-7", 7, first.about)
    opened(tmp_path, resume=None)
    assert f"--resume_from_checkpoint {tmp_path / 'checkpoint-7'} resumes the earlier one" in caplog.text
    assert (tmp_path / "checkpoint-7").exists()


def test_a_new_run_reports_that_an_earlier_one_was_being_taught(tmp_path, caplog):
    first = opened(tmp_path)
    (tmp_path / "warm_start" / "checkpoint-7").mkdir(parents=True)
    complete(tmp_path / "warm_start" / "checkpoint-7", 7, first.about)
    opened(tmp_path, resume=None)
    assert "a new run begins; --resume_from_checkpoint auto resumes the earlier one" in caplog.text


def test_a_moved_folder_is_resumed_with_what_it_holds(tmp_path):
    (tmp_path / "a").mkdir()
    first = opened(tmp_path / "a", SETTINGS | {"model_name_or_path": str(tmp_path / "a" / "teacher")})
    (tmp_path / "a").rename(tmp_path / "b")
    again = opened(tmp_path / "b", SETTINGS | {"model_name_or_path": str(tmp_path / "b" / "teacher")})
    assert again.run == first.run


def test_a_run_of_an_older_version_did_not_record_contents(tmp_path):
    first = opened(tmp_path)
    again = opened(tmp_path, SETTINGS | {"contents of the data": "0a"})
    assert again.run == first.run
    with pytest.raises(CheckpointError, match="contents of the data was '0a' and is '0b'"):
        opened(tmp_path, SETTINGS | {"contents of the data": "0b"})


def test_the_token_that_older_versions_wrote_is_neither_compared_nor_kept(tmp_path, monkeypatch):
    with monkeypatch.context() as older:
        older.setattr(checkpoints, "_CHANGEABLE_PREFIXES", ())
        first = opened(tmp_path, SETTINGS | {"hub_token": "hf_old"})
    checkpoint = tmp_path / "checkpoint-7"
    checkpoint.mkdir()
    complete(checkpoint, 7, first.about)
    assert "hf_old" in (tmp_path / "run.json").read_text()
    again = opened(tmp_path, SETTINGS | {"hub_token": "hf_new"})
    assert again.run == first.run
    assert "hf_" not in (tmp_path / "run.json").read_text()
    assert choose_checkpoint(tmp_path, str(checkpoint), again.about) == checkpoint


def test_a_folder_that_was_removed_is_held_again(tmp_path):
    (tmp_path / "a").mkdir()
    opened(tmp_path / "a")
    shutil.rmtree(tmp_path / "a")
    (tmp_path / "a").mkdir()
    opened(tmp_path / "a")
    assert (tmp_path / "a" / "_lock").exists()


def exit_code_of_another_process(*arguments):
    """That of `opened` in a fork, which holds none of this process's runs."""

    def open_run():
        _held.clear()  # the files stay open, and locked
        opened(*arguments)

    other = get_context("fork").Process(target=open_run)
    other.start()
    other.join()
    return other.exitcode


def test_one_process_at_a_time_has_a_run_in_a_folder(tmp_path):
    run = opened(tmp_path)
    assert exit_code_of_another_process(tmp_path) == 1, "the folder is in use"
    run.mark("report")
    assert not (tmp_path / "_lock").exists()
    assert exit_code_of_another_process(tmp_path, SETTINGS, None) == 0


def test_a_new_run_in_the_folder_of_a_finished_one_says_that_it_replaces_the_judge(tmp_path, caplog):
    opened(tmp_path).mark("report")
    opened(tmp_path, resume=None).mark("report")
    assert not caplog.text, "the same command again"
    opened(tmp_path, SETTINGS | {"seed": 1}, resume=None)
    assert f"{tmp_path} holds a finished run with other settings, whose judge will be replaced" in caplog.text


@pytest.mark.parametrize("seed", [SETTINGS["seed"], 5], ids=["same", "other"])
def test_a_new_run_that_fails_at_its_start_leaves_the_record_of_a_finished_one(tmp_path, caplog, seed):
    first, other = opened(tmp_path), SETTINGS | {"seed": seed}
    first.mark("report")
    finished = (tmp_path / "run.json").read_text()
    for _ in range(2):
        opened(tmp_path, other, resume=None)  # and stopped in its warm start
    says = "until the new run has completed a stage, run.json.before is the earlier run.json" in caplog.text
    assert says == (other != SETTINGS)
    assert (tmp_path / "run.json.before").read_text() == finished
    (tmp_path / "run.json.before").rename(tmp_path / "run.json")
    assert opened(tmp_path, max_steps=8).run == first.run
    opened(tmp_path, max_steps=8).mark("report")
    opened(tmp_path, other, resume=None).warm_started_policy(lambda: None)
    assert not (tmp_path / "run.json.before").exists(), "its warm start is replaced"


@pytest.mark.parametrize("greedy", [True, False])
def test_the_first_evaluation_is_stored_exactly(tmp_path, greedy):
    columns = np.random.default_rng(0).random((4, 3, 2))
    judgments = Judgments(*columns, greedy=np.full((3, 2), np.nan) if greedy else None)
    record = opened(tmp_path)
    assert record.judgments_before(lambda: judgments) is judgments
    loaded = opened(tmp_path).judgments_before(lambda: pytest.fail("judged again"))
    for name, column in vars(judgments).items():
        np.testing.assert_array_equal(getattr(loaded, name), column)


def test_the_content_of_run_json(tmp_path):
    record = opened(tmp_path)
    record.mark("warm_start")
    content = json.loads((tmp_path / "run.json").read_text())
    assert content == {"run": record.run, "settings": dict(record.settings), "completed": ["warm_start"]}
    assert "save_steps" not in content["settings"]


@pytest.mark.parametrize("content", ["", "{", "null", '{"run": "r1", "settings": {}, "done": []}'])
def test_a_damaged_record_is_named_with_the_remedy(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"run\.json is damaged: .*; move the folder away, or choose another"):
        opened(tmp_path)


@pytest.mark.parametrize("n_kept", [0, 100])
def test_a_damaged_first_evaluation_is_repeated(tmp_path, caplog, n_kept):
    judgments = Judgments(*np.random.default_rng(0).random((4, 3, 2)))
    opened(tmp_path).judgments_before(lambda: judgments)
    path = tmp_path / "before.npz"
    path.write_bytes(path.read_bytes()[:n_kept])
    again = opened(tmp_path)
    assert again.completed == []
    assert re.search(r"before\.npz cannot be read \(.+\); its pairs are judged again", caplog.text)
    assert again.judgments_before(lambda: judgments) is judgments
    np.testing.assert_array_equal(opened(tmp_path).judgments_before(pytest.fail).mean, judgments.mean)


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        SafetensorError("I/O error: No space left on device (os error 28)"),
        Exception("No space left on device (os error 28)"),  # of tokenizers
    ],
)
def test_a_full_disk_says_how_to_resume(tmp_path, monkeypatch, error):
    record = opened(tmp_path)

    def full(*_, **__):
        raise error

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(CheckpointError, match=r"No space left on device.*\); .* with --resume_from_checkpoint auto"):
        record.judgments_before(lambda: Judgments(*np.zeros((4, 3, 2))))
    assert {file.name for file in tmp_path.iterdir()} == {"_lock", "run.json"}, "no temporary file is left"


def test_the_rendered_prompt_of_a_run_is_used_again(tmp_path):
    first = opened(tmp_path)
    assert first.prompt_pieces(PromptFormat("short"), lambda: ("27 Nov", "x")) == ["27 Nov", "x"]
    again = opened(tmp_path)
    assert again.prompt_pieces(PromptFormat("short"), lambda: pytest.fail("rendered again")) == ["27 Nov", "x"]
    with pytest.raises(CheckpointError, match=r"run\.json: the run began with another prompt template"):
        opened(tmp_path).prompt_pieces(PromptFormat("short", system_prompt="Hi."), lambda: ())
    assert opened(tmp_path, resume=None).prompt is None
