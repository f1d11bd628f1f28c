"""Scripts: one line for a user's mistake, one logger."""

import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from torch import distributed

from autorater import cli
from autorater.cli import COMMANDS, run_script
from autorater.data.errors import AlreadyFinished, DataWarning, UserError
from autorater.evaluation.results import prepare_output_dir
from tests.conftest import full_disk


def test_user_errors_are_one_line_and_others_keep_their_traceback(capsys):
    def main():
        raise UserError("row 3: no label")

    with pytest.raises(SystemExit) as stopped:
        run_script(main)
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "error: row 3: no label\n"
    for error in (ValueError("a bug"), OSError("another")):
        with pytest.raises(type(error), match=str(error)):
            run_script(lambda error=error: (_ for _ in ()).throw(error))


def test_an_unusable_file_or_disk_is_one_line(tmp_path, capsys):
    def message(action):
        with pytest.raises(SystemExit) as stopped:
            run_script(action)
        assert stopped.value.code == 2
        return capsys.readouterr().err

    assert message((tmp_path / "none").read_text) == f"error: {tmp_path / 'none'}: No such file or directory\n"
    assert message(tmp_path.read_text) == f"error: {tmp_path}: Is a directory\n"
    assert message(full_disk) == "error: No space left on device\n"

    def full_disk_of_tokenizers():
        raise Exception("No space left on device (os error 28)")

    assert message(full_disk_of_tokenizers) == "error: No space left on device\n"


def output_of(code, **options):
    """The ended process of a script whose `main` is the code, with buffered output."""
    script = f"import logging, sys\nfrom autorater.cli import run_script\ndef main():\n    {code}\nrun_script(main)"
    environment = os.environ | {"PYTHONUNBUFFERED": ""} | options.pop("env", {})
    return subprocess.run([sys.executable, "-c", script], text=True, check=False, env=environment, **options)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("print('line', flush=True)", 141),
        ("logging.getLogger('autorater').info('line')", 0),  # a training does not end with the reader of its log
        ("print('line')", 0),
        ("print('line'); sys.exit(3)", 3),
        ("raise BrokenPipeError(32, 'of a connection')", 1),
    ],
)
def test_a_reader_may_end_before_the_output_does(code, status):
    reading, writing = os.pipe()
    if status != 1:
        os.close(reading)
    done = output_of(code, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert done.returncode == status, done.stderr
    assert (done.stderr == "") == (status != 1)


def test_output_on_a_full_disk_is_one_line():
    with open("/dev/full", "w") as full:
        done = output_of("print('line')", stdout=full, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (2, "error: No space left on device\n")


def test_characters_that_the_terminal_lacks_are_escaped():
    environment = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0"}
    code = r"print('\xb1'); logging.getLogger('autorater').info('\u03ba')"
    done = output_of(code, env=environment, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "\\xb1\n\\u03ba\n", "")


def test_closed_streams_are_not_the_numbers_of_files(tmp_path):
    path = tmp_path / "file"
    code = (
        f"import os; file = open({str(path)!r}, 'w'); os.write(2, b'of a library'); sys.exit(file.fileno() > 2 and 5)"
    )
    done = output_of(code, preexec_fn=lambda: os.closerange(0, 3))
    assert done.returncode == 5
    assert path.read_text() == ""


def test_nothing_left_to_do_is_no_error(capsys):
    def main():
        raise AlreadyFinished("the run is finished")

    run_script(main)
    assert capsys.readouterr().out == "the run is finished\n"


@pytest.mark.parametrize("end", [None, AlreadyFinished("the run is finished")])
def test_a_run_that_ends_leaves_its_process_group(tmp_path, end):
    def main():
        distributed.init_process_group("gloo", rank=0, world_size=1, init_method=f"file://{tmp_path}/meet")
        if end:
            raise end

    run_script(main)
    assert not distributed.is_initialized()


def test_ctrl_c_is_one_line_and_status_130(capsys):
    def main():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as stopped:
        run_script(main, interrupted="interrupted; all judgments are saved")
    assert stopped.value.code == 130
    assert capsys.readouterr().err == "\ninterrupted; all judgments are saved\n"


@pytest.mark.parametrize(
    ("rank", "out", "err"),
    [
        ("0", "1,000 pairs\n", "warning: two are empty\n"),
        ("", "1,000 pairs\n", "warning: two are empty\n"),
        ("1", "", ""),
    ],
)
def test_only_the_main_process_prints_what_is_logged(capsys, monkeypatch, rank, out, err):
    def main():
        logger = logging.getLogger("autorater.anything")
        logger.info("1,000 pairs")
        logger.debug("details")
        logger.warning("two are empty")

    monkeypatch.setenv("RANK", rank)
    before = list(logging.getLogger("autorater").handlers)
    run_script(main)
    assert capsys.readouterr() == (out, err)
    assert logging.getLogger("autorater").handlers == before


def test_a_warning_about_data_is_one_line(capsys):
    def main():
        warnings.warn("votes.jsonl: 3 rows left out", DataWarning, stacklevel=1)

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        run_script(main)
    assert capsys.readouterr().err == "warning: votes.jsonl: 3 rows left out\n"


@pytest.mark.parametrize(
    ("category", "package", "is_line"),
    [(RuntimeWarning, "autorater", True), (RuntimeWarning, "torch", False), (FutureWarning, "autorater", False)],
)
def test_a_warning_of_autorater_is_one_line(capsys, category, package, is_line):
    place = Path(cli.__file__).parents[1] / package / "training" / "grpo.py"

    def main():
        warnings.warn_explicit("no answer parses", category, str(place), 3)

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        run_script(main)
    assert (capsys.readouterr().err == "warning: no answer parses\n") == is_line


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
        "import sys, autorater.cli, rewards, autorater.metrics, autorater.report, autorater.data.population;"
        "import autorater.integrations.verl;"
        "sys.exit(bool({'torch', 'transformers', 'datasets', 'trl'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_is_shown_at_once(name):
    code = (
        "import sys\nfrom autorater.cli import command\n"
        "try: command(sys.argv[1:])\nexcept SystemExit as done: assert done.code == 0\n"
        "heavy = {'torch', 'scipy', 'matplotlib', 'pyarrow'} & set(sys.modules)\n"
        "sys.exit(f'{heavy}' if heavy else 0 if len(sys.modules) < 400 else f'{len(sys.modules)} modules')"
    )
    arguments = [sys.executable, "-c", code, *filter(None, [name]), "--help"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, env=os.environ | {"COLUMNS": "100"})
    assert done.returncode == 0, done.stderr
    assert "usage: autorater" in done.stdout
