"""`autorater recipes`: the scripts and configs of a checkout, copied; nothing is overwritten."""

from pathlib import Path

import pytest

from autorater.cli import command as autorater
from autorater.data.errors import UserError
from autorater.data.recipes import copy_recipes

ROOT = Path(__file__).parents[2]


def test_the_recipes_are_copied(tmp_path, capsys):
    autorater(["recipes", str(tmp_path / "mine")])
    assert f"accelerate launch {tmp_path}/mine/grpo.py" in capsys.readouterr().out
    assert not list((tmp_path / "mine").rglob("study*"))
    for name in ("grpo.py", "compare.py", "configs/grpo_simulated.yaml", "accelerate/zero2.yaml"):
        assert (tmp_path / "mine" / name).read_bytes() == (ROOT / "recipes" / name).read_bytes()
    assert not list(tmp_path.rglob("__pycache__"))


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "grpo.py").write_text("mine")
    with pytest.raises(UserError, match="is not empty; nothing is overwritten"):
        copy_recipes(tmp_path)
    assert (tmp_path / "grpo.py").read_text() == "mine"
    with pytest.raises(UserError, match="cannot be written"):
        copy_recipes("/proc/autorater")
