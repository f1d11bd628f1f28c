"""The config of a command line."""

from pathlib import Path

import pytest

from autorater.data.config_file import config_arguments

DEFAULT = Path("default.yaml")


@pytest.mark.parametrize("argv", [["--model_name_or_path=m"], ["--help"], ["-h"]])
def test_own_config_or_model_replaces_the_default_config(argv):
    assert config_arguments(argv, DEFAULT) == argv


def test_default_config_comes_first_so_that_the_command_line_wins():
    assert config_arguments(["--seed", "1"], DEFAULT) == ["--config", "default.yaml", "--seed", "1"]
    assert config_arguments([], DEFAULT) == ["--config", "default.yaml"]


def test_config_may_be_given_with_an_equals_sign(tmp_path):
    config = tmp_path / "a=b.yaml"
    config.write_text("seed: 1\n")
    assert config_arguments([f"--config={config}", "--seed=2"], DEFAULT) == ["--config", str(config), "--seed=2"]
