"""Checkpoints: one that is not whole is named, the one before it is taken; no good one goes before its successor."""

import json
import shutil

import pytest

from autorater.training.checkpointing import checkpoints
from autorater.training.checkpointing.checkpoints import (
    MANIFEST,
    CheckpointError,
    Unfinished,
    check_checkpoint,
    choose_checkpoint,
    remove_older,
    seal,
    write_json,
)

ABOUT = {"run": "r1", "settings": {"seed": 0, "learning_rate": 1e-3}}


def write(folder, step, about=ABOUT, sealed=True):
    path = folder / f"checkpoint-{step}"
    (path / "shards").mkdir(parents=True)
    (path / "model.safetensors").write_bytes(bytes(range(256)) * step)
    (path / "shards" / "optimizer.pt").write_bytes(b"o" * 100)
    if sealed:
        seal(path, step, about)
    return path


def truncate(path):
    with (path / "model.safetensors").open("r+b") as file:
        file.truncate(100)


def flip(path):
    data = bytearray((path / "shards" / "optimizer.pt").read_bytes())
    data[50] ^= 1
    (path / "shards" / "optimizer.pt").write_bytes(data)


DAMAGES = {
    r"model\.safetensors has 100 bytes, it was written with 10,240": truncate,
    r"optimizer\.pt is not what was written": flip,
    r"optimizer\.pt is missing": lambda path: (path / "shards" / "optimizer.pt").unlink(),
    r"manifest\.json is damaged": lambda path: (path / MANIFEST).write_text('{"files": {'),
    r"has no manifest\.json: it was not written to its end": lambda path: (path / MANIFEST).unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES.items(), ids=lambda damage: damage[1].__name__)
def test_damage_is_named_and_the_checkpoint_before_is_taken(tmp_path, damage):
    message, harm = damage
    write(tmp_path, 9), write(tmp_path, 20)
    last = write(tmp_path, 40)
    assert check_checkpoint(last)["step"] == 40
    harm(last)
    with pytest.raises(CheckpointError, match=message):
        check_checkpoint(last)
    said = []
    assert choose_checkpoint(tmp_path, "true", ABOUT, said.append) == tmp_path / "checkpoint-20"
    assert "checkpoint-40" in said[0]
    with pytest.raises(CheckpointError, match=message):
        choose_checkpoint(tmp_path, str(last), ABOUT)


@pytest.mark.parametrize("wanted", ["true", True, "auto"])
def test_damaged_and_none_before_it_is_an_error(tmp_path, wanted):
    flip(write(tmp_path, 4))
    with pytest.raises(CheckpointError, match=r"no whole checkpoint .*optimizer\.pt is not what was written"):
        choose_checkpoint(tmp_path, wanted, ABOUT, lambda line: None)


def test_auto_begins_at_the_start_where_no_checkpoint_was_ever_completed(tmp_path):
    assert choose_checkpoint(tmp_path, "auto", ABOUT) is None
    write(tmp_path, 4, sealed=False)
    said = []
    assert choose_checkpoint(tmp_path, "auto", ABOUT, said.append) is None
    assert "was not written to its end" in said[0]
    with pytest.raises(CheckpointError, match="no whole checkpoint"):
        choose_checkpoint(tmp_path, "true", ABOUT, said.append)
    assert choose_checkpoint(tmp_path, None, ABOUT) is None


def test_checkpoints_of_an_earlier_run_are_neither_taken_nor_removed(tmp_path):
    write(tmp_path, 100, ABOUT | {"run": "r0"})
    assert choose_checkpoint(tmp_path, "auto", ABOUT) is None
    for step in (10, 20, 30):
        write(tmp_path, step)
    remove_older(tmp_path, "r1", 2)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["checkpoint-100", "checkpoint-20", "checkpoint-30"]
    remove_older(tmp_path, "r1", None)
    assert choose_checkpoint(tmp_path, "auto", ABOUT, lambda line: None) == tmp_path / "checkpoint-30"


def test_a_named_checkpoint_of_other_settings_is_refused(tmp_path):
    path = write(tmp_path, 4)
    assert choose_checkpoint("elsewhere", str(path), ABOUT) == path
    other = {"run": "r2", "settings": {"seed": 1, "beta": 0.1, "learning_rate": 1e-3}}
    with pytest.raises(CheckpointError, match=r"beta was the default and is 0\.1, seed was 0 and is 1"):
        choose_checkpoint(tmp_path, str(path), other)
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        choose_checkpoint(tmp_path, str(tmp_path / "checkpoint-5"), ABOUT)


def test_a_removal_that_is_interrupted_leaves_nothing_that_looks_whole(tmp_path, monkeypatch):
    write(tmp_path, 1), write(tmp_path, 2)

    def killed(folder):
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        remove_older(tmp_path, "r1", 1)
    with pytest.raises(Unfinished):
        check_checkpoint(tmp_path / "checkpoint-1")
    assert check_checkpoint(tmp_path / "checkpoint-2")


def test_a_write_that_is_interrupted_leaves_the_old_content(tmp_path, monkeypatch):
    write_json(tmp_path / "run.json", {"a": 1})

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_json(tmp_path / "run.json", {"a": 2})
    assert json.loads((tmp_path / "run.json").read_text()) == {"a": 1}
