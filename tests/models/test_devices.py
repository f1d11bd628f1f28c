"""A device that does not exist is an error of one line, before a model is loaded."""

import json

import pytest
import torch

from autorater.alignment.judge import LabelJudge
from autorater.data.errors import UserError
from autorater.judges import Judge, LinearProbe
from autorater.judges.saved import FORMAT_FILE
from autorater.models.devices import usable_device

TASK = {"labels": ["x", "y"], "titles": ["Text"], "question": "Which?", "ordinal": False}


def test_devices_that_exist():
    assert usable_device("cpu") == "cpu"
    assert usable_device(torch.device("cpu")) == torch.device("cpu")
    assert usable_device() == (f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "mtia", "hpu", "vulkan"])
def test_devices_that_do_not_exist(device):
    with pytest.raises(UserError, match=f"device {device}: cannot be used here .*; expected cpu") as error:
        usable_device(device)
    assert "\n" not in str(error.value)


def test_the_device_is_checked_before_a_model_is_loaded(tmp_path):
    label_format = {"label_format": {"task": TASK, "layout": "", "synonyms": {}}}
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / FORMAT_FILE).write_text(json.dumps(label_format))
    (tmp_path / "probe.json").write_text(json.dumps({"model": str(tmp_path), "layer": 1, "strength": 1.0}))
    (tmp_path / "probe.npz").touch()
    for load in (
        lambda: Judge.from_pretrained(str(tmp_path), device="gpu"),
        lambda: LabelJudge.from_pretrained(str(tmp_path), device="gpu"),
        lambda: LinearProbe.fit(str(tmp_path), [], device="gpu"),
        lambda: LinearProbe.load(tmp_path, device="gpu"),
    ):
        with pytest.raises(UserError, match="device gpu"):
            load()
