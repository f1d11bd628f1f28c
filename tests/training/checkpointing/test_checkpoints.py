"""Checkpoints: damage is reported, the checkpoint before is used, and no complete one is removed too early."""

import shutil

import pytest

from autorater.training.checkpointing import checkpoints
from autorater.training.checkpointing.checkpoints import (
    MANIFEST,
    CheckpointError,
    IncompleteCheckpoint,
    check_checkpoint,
    check_settings,
    choose_checkpoint,
    complete,
    remove_older,
)

ABOUT = {"run": "r1", "settings": {"seed": 0, "learning_rate": 1e-3}}


def write(folder, step, about=ABOUT, completed=True):
    path = folder / f"checkpoint-{step}"
    (path / "shards").mkdir(parents=True)
    (path / "model.safetensors").write_bytes(bytes(range(256)) * step)
    (path / "shards" / "optimizer.pt").write_bytes(b"o" * 100)
    if completed:
        complete(path, step, about)
    return path


def truncate(path):
    with (path / "model.safetensors").open("r+b") as file:
        file.truncate(100)


def flip(path):
    data = bytearray((path / "shards" / "optimizer.pt").read_bytes())
    data[50] ^= 1
    (path / "shards" / "optimizer.pt").write_bytes(data)


DAMAGES = {
    r"model\.safetensors has 100 bytes, expected 10,240": truncate,
    r"optimizer\.pt is damaged: its SHA-256 differs": flip,
    r"optimizer\.pt is missing": lambda path: (path / "shards" / "optimizer.pt").unlink(),
    r"manifest\.json is damaged": lambda path: (path / MANIFEST).write_text('{"files": {'),
    r"has no manifest\.json: its write was interrupted": lambda path: (path / MANIFEST).unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES.items(), ids=lambda damage: damage[1].__name__)
def test_damage_is_reported_and_the_checkpoint_before_is_used(tmp_path, caplog, damage):
    message, harm = damage
    write(tmp_path, 9), write(tmp_path, 20)
    last = write(tmp_path, 40)
    assert check_checkpoint(last)["step"] == 40
    harm(last)
    with pytest.raises(CheckpointError, match=message):
        check_checkpoint(last)
    assert choose_checkpoint(tmp_path, "true", ABOUT) == tmp_path / "checkpoint-20"
    assert "checkpoint-40" in caplog.messages[0]
    with pytest.raises(CheckpointError, match=message):
        choose_checkpoint(tmp_path, str(last), ABOUT)


def test_large_files_are_not_hashed(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "_LARGEST_HASHED", 200)
    files = check_checkpoint(write(tmp_path, 1))["files"]
    assert {name: list(entry) for name, entry in files.items()} == {
        "model.safetensors": ["bytes"],
        "shards/optimizer.pt": ["bytes", "sha256"],
    }
    truncate(tmp_path / "checkpoint-1")
    with pytest.raises(CheckpointError, match="has 100 bytes, expected 256"):
        check_checkpoint(tmp_path / "checkpoint-1")


@pytest.mark.parametrize("resume", ["true", True, "auto"])
def test_a_damaged_checkpoint_and_none_before_it_is_an_error(tmp_path, resume):
    flip(write(tmp_path, 4))
    with pytest.raises(CheckpointError, match=r"no complete checkpoint .*optimizer\.pt is damaged"):
        choose_checkpoint(tmp_path, resume, ABOUT)


def test_auto_begins_at_the_start_where_no_checkpoint_was_ever_completed(tmp_path, caplog):
    assert choose_checkpoint(tmp_path, "auto", ABOUT) is None
    write(tmp_path, 4, completed=False)
    assert choose_checkpoint(tmp_path, "auto", ABOUT) is None
    assert "its write was interrupted" in caplog.messages[0]
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        choose_checkpoint(tmp_path, "true", ABOUT)
    assert choose_checkpoint(tmp_path, None, ABOUT) is None


def test_checkpoints_of_an_earlier_run_are_neither_used_nor_removed(tmp_path):
    write(tmp_path, 100, ABOUT | {"run": "r0"})
    assert choose_checkpoint(tmp_path, "auto", ABOUT) is None
    for step in (10, 20, 30):
        write(tmp_path, step)
    remove_older(tmp_path, "r1", 2)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["checkpoint-100", "checkpoint-20", "checkpoint-30"]
    remove_older(tmp_path, "r1", None)
    assert choose_checkpoint(tmp_path, "auto", ABOUT) == tmp_path / "checkpoint-30"


def test_a_named_checkpoint_of_other_settings_is_refused(tmp_path):
    path = write(tmp_path, 4)
    assert choose_checkpoint("elsewhere", str(path), ABOUT) == path
    other = {"run": "r2", "settings": {"seed": 1, "beta": 0.1, "learning_rate": 1e-3}}
    with pytest.raises(CheckpointError, match=r"beta was the default and is 0\.1, seed was 0 and is 1"):
        choose_checkpoint(tmp_path, str(path), other)
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        choose_checkpoint(tmp_path, str(tmp_path / "checkpoint-5"), ABOUT)


@pytest.mark.parametrize(
    ("earlier", "now", "accepted"),
    [
        ({"max_steps": 4}, {"max_steps": 8}, True),
        ({"max_steps": 8}, {"max_steps": 4}, False),
        ({"max_steps": -1, "num_train_epochs": 1.0}, {"max_steps": -1, "num_train_epochs": 2.5}, True),
        ({"max_steps": -1, "num_train_epochs": 2.0}, {"max_steps": -1, "num_train_epochs": 1.0}, False),
        ({"max_steps": -1}, {"max_steps": 8}, False),
        ({"max_steps": 8}, {"max_steps": -1}, False),
        ({"max_steps": 4, "seed": 0}, {"max_steps": 8, "seed": 1}, False),
    ],
)
def test_the_length_of_a_run_may_only_increase(earlier, now, accepted):
    if accepted:
        check_settings(earlier, now, "run.json")
    else:
        with pytest.raises(CheckpointError, match="only max_steps and num_train_epochs may increase"):
            check_settings(earlier, now, "run.json")


def test_a_removal_that_is_interrupted_leaves_an_incomplete_checkpoint(tmp_path, monkeypatch):
    write(tmp_path, 1), write(tmp_path, 2)

    def killed(folder):
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        remove_older(tmp_path, "r1", 1)
    with pytest.raises(IncompleteCheckpoint):
        check_checkpoint(tmp_path / "checkpoint-1")
    assert check_checkpoint(tmp_path / "checkpoint-2")
