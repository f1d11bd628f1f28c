"""Options of a recipe, from YAML and the command line."""

import json
import re
from dataclasses import dataclass, field
from typing import Literal

import pytest
from trl import ModelConfig

from autorater.data.errors import UserError
from autorater.training.arguments import JudgeArguments
from autorater.training.config import JudgeGRPOConfig
from autorater.training.recipe_parser import parse_arguments


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
    argv = ["--config", str(config), "--output_dir", str(folder), "--report_to", "none"]
    return parse_arguments((JudgeArguments, JudgeGRPOConfig, ModelConfig), config, argv)


def test_help_shows_our_options_first(config, capsys):
    with pytest.raises(SystemExit) as stopped:
        parse_arguments((Data, JudgeGRPOConfig, ModelConfig), config, ["--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert re.search(r"--no_shared_prefix\s+Turns off --shared_prefix\.", text)
    titles = ["data:", "objective:", "TRL GRPOConfig:", "TRL ModelConfig:", "transformers TrainingArguments:"]
    places = [text.index(f"\n{title}\n") for title in titles]
    assert places == sorted(places)
    for option, title in {"n_train": 0, "symmetry_coef": 1, "epsilon_high": 2, "lora_r": 3, "weight_decay": 4}.items():
        end = places[title + 1] if title + 1 < len(places) else len(text)
        assert places[title] < text.index(f"\n  --{option} ") < end, option
