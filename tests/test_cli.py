"""What a script says: one line for a mistake, and the config that it takes by itself."""

import subprocess
import sys
from pathlib import Path

import pytest

from autorater.cli import config_arguments, run_script
from autorater.evaluation.results import prepare_output_dir

DEFAULT = Path("default.yaml")


@pytest.mark.parametrize("argv", [["--model_name_or_path=m"], ["--help"], ["-h"]])
def test_own_config_or_model_keeps_the_default_away(argv):
    assert config_arguments(argv, DEFAULT) == argv


def test_default_config_comes_first_so_that_the_command_line_wins():
    assert config_arguments(["--seed", "1"], DEFAULT) == ["--config", "default.yaml", "--seed", "1"]
    assert config_arguments([], DEFAULT) == ["--config", "default.yaml"]


def test_config_may_be_given_with_an_equals_sign(tmp_path):
    config = tmp_path / "a=b.yaml"
    config.write_text("seed: 1\n")
    assert config_arguments([f"--config={config}", "--seed=2"], DEFAULT) == ["--config", str(config), "--seed=2"]


def test_mistakes_are_one_line(capsys, monkeypatch):
    monkeypatch.delenv("AUTORATER_TRACEBACK", raising=False)

    def main():
        raise ValueError("row 3: no")

    with pytest.raises(SystemExit) as stopped:
        run_script(main)
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith("error: row 3: no\n")
    monkeypatch.setenv("AUTORATER_TRACEBACK", "1")
    with pytest.raises(ValueError, match="row 3"):
        run_script(main)


def test_output_dir_is_tried_before_the_run(tmp_path):
    assert prepare_output_dir(tmp_path / "a" / "b").is_dir()
    assert list((tmp_path / "a" / "b").iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be written"):
        prepare_output_dir(tmp_path / "file" / "run")
    with pytest.raises(ValueError, match=r"output_dir '/proc/autorater' cannot be written"):
        prepare_output_dir("/proc/autorater")


def test_the_base_install_needs_no_torch():
    code = (
        "import sys, autorater, rewards, autorater.metrics, autorater.report, autorater.data.population;"
        "sys.exit(bool({'torch', 'transformers', 'datasets', 'trl'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
