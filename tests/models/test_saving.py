"""Weights that replace those of an earlier run."""

import os

import pytest

from autorater.models.saving import replacing_weights

OURS = (
    "adapter_config.json",
    "adapter_model.safetensors",
    "model-00001-of-00002.safetensors",
    "value_head.safetensors",
)
OTHERS = ("vae.safetensors", "adapter_notes.md", "config.json", "models.bin")


@pytest.fixture
def folder(tmp_path):
    for name in (*OURS, *OTHERS, "model.safetensors"):
        (tmp_path / name).write_text("old")
        os.utime(tmp_path / name, ns=(0, 0))
    (tmp_path / "adapter_first").mkdir()
    (tmp_path / "model.bin").mkdir()
    return tmp_path


def test_weights_that_are_not_written_again_are_removed(folder):
    with replacing_weights(folder):
        (folder / "model.safetensors").write_text("new")
    names = {path.name for path in folder.iterdir()}
    assert names == {*OTHERS, "model.safetensors", "adapter_first", "model.bin"}


def test_nothing_is_removed_if_the_new_ones_cannot_be_written(folder):
    before = {path.name for path in folder.iterdir()}
    with pytest.raises(OSError, match="full"), replacing_weights(folder):
        raise OSError("full")
    assert {path.name for path in folder.iterdir()} == before
