"""Scripts: options from YAML and the command line, one line for a user's mistake, one logger."""

import json
import logging
import os
import re
import subprocess
import sys
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from autorater import cli
from autorater.cli import COMMANDS, config_arguments, parse_arguments, run_script
from autorater.data.errors import AlreadyFinished, DataWarning, UserError
from autorater.evaluation.results import prepare_output_dir
from tests.conftest import full_disk

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


@dataclass
class Data:
    _argument_group_name = "data"

    n_train: int = field(default=3, metadata={"help": "Pairs."})
    shuffled: bool = field(default=True, metadata={"help": "Shuffle."})


@dataclass
class Policy:
    hidden_size: int = 8
    rate: float = 0.1
    name: str | None = None
    width: float | None = None
    form: Literal["a", "b"] | None = None
    parts: list[str] | None = None

    def __post_init__(self):
        if self.hidden_size > 100:
            raise ValueError("hidden_size is too large")


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "default.yaml"
    path.write_text("n_train: 5\nrate: 1e-3\n")
    return path


def test_the_command_line_wins_over_the_file_and_the_file_over_defaults(config):
    data, policy = parsed = parse_arguments((Data, Policy), config, ["--hidden_size=16", "--no_shuffled"])
    assert (data.n_train, data.shuffled, policy.hidden_size, policy.rate) == (5, False, 16, 0.001)
    assert parsed.given == {"hidden_size", "shuffled"}, "the default config is not the user's"
    own = config.with_name("own.yaml")
    own.write_text("rate: 0.5\n")
    parsed = parse_arguments((Data, Policy), config, [f"--config={own}", "--n_train", "7"])
    assert (parsed[0].n_train, parsed[1].rate, parsed.given) == (7, 0.5, {"rate", "n_train"})


@pytest.mark.parametrize(("name", "value"), [("name", "x"), ("width", 2), ("form", "b"), ("parts", ["p", "q"])])
@pytest.mark.parametrize("words", ["--{} null", "--{}=null"])
def test_null_unsets_an_option_as_in_the_file(config, name, value, words):
    config.write_text(json.dumps({name: value}))
    assert getattr(parse_arguments((Policy,), config, [])[0], name) == value
    parsed = parse_arguments((Policy,), config, words.format(name).split())
    assert getattr(parsed[0], name) is None
    assert parsed.given == {name}


@pytest.mark.parametrize(
    ("content", "argv", "message"),
    [
        ("n_trian: 1\n", [], r"unknown option n_trian in .*own\.yaml; did you mean n_train\?"),
        ("rate: 1\n", ["--n_trian=1"], "unknown option n_trian on the command line; did you mean n_train"),
        ("1: 5\n", [], r"own\.yaml: got 1 as a name"),
        ("rate: fast\n", [], "invalid float value: 'fast'"),
        ("rate: 1\n", ["--n_train=x"], "invalid int value: 'x'"),
        ("rate: 1\n", ["--rate=null"], "invalid float value: 'null'"),
        ("rate: 1\n", ["--hidden_size=101"], "hidden_size is too large"),
        ("a: [\n", [], r"own\.yaml is not YAML"),
        ("- a\n", [], r"own\.yaml: expected `name: value` lines, got list"),
        (None, [], r"own\.yaml cannot be read: No such file"),
        ("rate: 1\n", ["--config"], "--config: expected a file"),
    ],
)
def test_wrong_options_are_user_errors(config, content, argv, message):
    own = config.with_name("own.yaml")
    if content is not None:
        own.write_text(content)
    with pytest.raises(UserError, match=message):
        parse_arguments((Data, Policy), config, ["--config", str(own), *argv])


def test_an_option_of_a_config_that_is_not_compatible_is_named_with_its_file(config):
    pytest.importorskip("trl")
    from autorater.training.config import JudgeGRPOConfig

    def parse(*argv):
        return parse_arguments((JudgeGRPOConfig,), config, ["--output_dir", str(config.parent / "o"), *argv])

    config.write_text("symmetry_coef: 1.5\n")
    (training,) = parse()
    assert training.symmetry_coef == 1.5
    set_in = rf"; symmetry_coef is set in {config}, the settings without --config and --model_name_or_path; add"
    with pytest.raises(UserError, match=rf"not compatible with sampled answers: .*{set_in} --symmetry_coef 0\.0$"):
        parse("--answers", "sampled")
    own = config.with_name("own.yaml")
    own.write_text("symmetry_coef: 1.5\nreward: log\n")
    with pytest.raises(UserError, match=rf"; symmetry_coef is set in {own}; add --symmetry_coef 0\.0$"):
        parse("--answers", "sampled", "--config", str(own))
    with pytest.raises(UserError, match=r"the expected answer is not known$"):
        parse("--answers", "sampled", "--symmetry_coef", "2")
    (training,) = parse("--answers", "sampled", "--symmetry_coef", "0")
    assert training.symmetry_coef == 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("max_steps: [1, 2]", r"max_steps: got \[1, 2\]; expected one value"),
        ("learning_rate: {a: 1}", r"learning_rate: got \{'a': 1\}; expected one value"),
        ("dataset_name: [a, b]", r"dataset_name: got \['a', 'b'\]; expected one value"),
        ("model_name_or_path: [a]", r"model_name_or_path: got \['a'\]; expected one value"),
        ("train_only: {a: 1}", r"train_only: got \{'a': 1\}; expected a list"),
        ("population: [a]", r"population: got \['a'\]; expected a mapping"),
    ],
)
def test_a_list_or_mapping_in_place_of_one_value(tmp_path, line, message):
    (tmp_path / "c.yaml").write_text(line)
    with pytest.raises(UserError, match=f"^{message}$"):
        parsed_recipe(tmp_path / "c.yaml", tmp_path)


def test_lists_mappings_and_an_unquoted_no_in_yaml(tmp_path):
    (tmp_path / "c.yaml").write_text(
        "population: {a: 0.2, b: 0.8}\ntrain_only: [norm]\nlora_target_modules: all-linear\n"
        "lr_scheduler_kwargs: {a: 1}\nsave_strategy: no\n"
        "logging_strategy: no\neval_strategy: no\nuse_cpu: true\nbf16: no\n"
    )
    args, training, model = parsed_recipe(tmp_path / "c.yaml", tmp_path)
    assert (args.population, args.train_only) == ({"a": 0.2, "b": 0.8}, ["norm"])
    assert (training.save_strategy, training.logging_strategy, training.eval_strategy) == ("no", "no", "no")
    assert (training.lr_scheduler_kwargs, training.bf16) == ({"a": 1}, False)
    assert model.lora_target_modules == "all-linear"


def parsed_recipe(config, folder):
    trl = pytest.importorskip("trl")
    from autorater.training.arguments import JudgeArguments
    from autorater.training.config import JudgeGRPOConfig

    argv = ["--config", str(config), "--output_dir", str(folder), "--report_to", "none"]
    return parse_arguments((JudgeArguments, JudgeGRPOConfig, trl.ModelConfig), config, argv)


def test_help_shows_our_options_first(config, capsys):
    trl = pytest.importorskip("trl")
    from autorater.training.config import JudgeGRPOConfig

    with pytest.raises(SystemExit) as stopped:
        parse_arguments((Data, JudgeGRPOConfig, trl.ModelConfig), config, ["--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert re.search(r"--no_shared_prefix\s+Turns off --shared_prefix\.", text)
    titles = ["data:", "objective:", "TRL GRPOConfig:", "TRL ModelConfig:", "transformers TrainingArguments:"]
    places = [text.index(f"\n{title}\n") for title in titles]
    assert places == sorted(places)
    for option, title in {"n_train": 0, "symmetry_coef": 1, "epsilon_high": 2, "lora_r": 3, "weight_decay": 4}.items():
        end = places[title + 1] if title + 1 < len(places) else len(text)
        assert places[title] < text.index(f"\n  --{option} ") < end, option


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
