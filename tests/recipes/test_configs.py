"""Every config parsed by its recipe, and the configs for large models with a small one of the same family."""

import re
import runpy
import sys
from pathlib import Path

import pytest
import yaml

from autorater.data.loading import write_pairs
from autorater.data.population import simulate_pairs
from autorater.evaluation import arguments
from autorater.training import recipe_parser
from benchmarks.study.plan import read_plan
from tests.conftest import make_model, make_tokenizer
from tests.recipes.forked import run_forked

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "recipes" / "configs").glob("*.yaml"))
LARGE = [path for path in CONFIGS if re.match("paper|exact|vllm", path.stem)]


class Parsed(Exception):
    """The recipe has parsed its config and loaded nothing yet."""


def parsed_by_its_recipe(config, monkeypatch, tmp_path):
    """The options that the recipe, which the first command of the config names, parses from it."""
    parse = recipe_parser.parse_arguments

    def parse_only(*args, **kwargs):
        raise Parsed(parse(*args, **kwargs))

    script = ROOT / re.search(r"^#   .*?(recipes/\w+\.py)", config.read_text(), re.MULTILINE | re.DOTALL).group(1)
    if script.stem == "study":  # a plan with its own keys, as the next
        return read_plan(config, output_dir=str(tmp_path))
    if script.stem == "evaluate":  # a command of the package
        return arguments.parse_arguments(["--config", str(config), "--output_dir", str(tmp_path)], "")
    recipe = runpy.run_path(str(script))
    if script.stem == "compare":
        plan = yaml.safe_load(config.read_text())
        unknown = set(plan) - set(recipe["KEYS"])
        if unknown:
            raise ValueError(f"unknown key {unknown}")
        return plan
    assert "parse_arguments(" in script.read_text(), f"{script.stem} must be parsed without being run"
    with monkeypatch.context() as patched:
        patched.setattr(recipe_parser, "parse_arguments", parse_only)
        patched.setattr(sys, "argv", [str(script), "--config", str(config), "--output_dir", str(tmp_path)])
        with pytest.raises(Parsed) as parsed:
            recipe["main"]()
    return parsed.value.args[0]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_recipe_parses_config(path, monkeypatch, tmp_path):
    assert parsed_by_its_recipe(path, monkeypatch, tmp_path)
    misspelt = tmp_path / path.name
    misspelt.write_text(path.read_text() + "\nlearnign_rate: 1\n")
    with pytest.raises(ValueError, match="learnign_rate"):
        parsed_by_its_recipe(misspelt, monkeypatch, tmp_path)


@pytest.mark.parametrize("path", [p for p in CONFIGS if p.stem.startswith("paper")], ids=lambda p: p.stem)
def test_paper_hyper_parameters(path, monkeypatch, tmp_path):
    """arXiv 2510.00263, Table 5, on eight GPUs."""
    args, training, _ = parsed_by_its_recipe(path, monkeypatch, tmp_path)
    per_update = 8 * training.per_device_train_batch_size * training.gradient_accumulation_steps
    per_draw = 8 * training.per_device_train_batch_size * training.steps_per_generation
    assert per_update == 512
    assert training.num_generations == 32
    assert per_draw == 32 * (32 if "gemma" in path.stem else 64)
    assert (training.learning_rate, training.beta, training.epsilon) == (3e-7, 0.01, 0.2)
    assert (training.adam_beta1, training.adam_beta2, training.adam_epsilon) == (0.9, 0.999, 1e-8)
    assert (training.weight_decay, training.num_train_epochs, training.warmup_steps) == (0.001, 1, 50)
    assert args.max_prompt_tokens + training.max_completion_length == training.vllm_max_model_length == 2048
    assert (training.scale_rewards, training.reward, args.labels) == ("none", "brier", "sparse")


@pytest.mark.parametrize("path", LARGE, ids=lambda p: p.stem)
def test_memory_and_command_in_the_comments(path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from memory_estimate import as_text, estimate

    text = path.read_text()
    gpus = int(re.search(r"--num_processes (\d)", text).group(1)) if "--num_processes" in text else 8
    assert f"# Memory: {as_text(estimate(path, gpus=gpus))} (benchmarks/memory_estimate.py)." in text
    assert f"--config recipes/configs/{path.name}" in text
    assert (ROOT / re.search(r"recipes/accelerate/\w+\.yaml", text).group()).exists()


@pytest.mark.parametrize("path", LARGE, ids=lambda p: p.stem)
def test_a_large_model_keeps_one_checkpoint(path):
    assert yaml.safe_load(path.read_text())["save_total_limit"] == 1, "of about 100 GB each"


def test_memory_estimate_counts_published_sizes(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from memory_estimate import SIZES, count_parameters

    counted = {name.split("/")[1]: count_parameters(make()) for name, make in SIZES.items()}
    assert counted == {
        "Qwen2.5-7B-Instruct": 7_615_616_512,
        "gemma-2-9b-it": 9_241_705_984,
        "Llama-3.1-8B-Instruct": 8_030_261_248,
    }


@pytest.mark.parametrize(
    ("name", "family", "digits"),
    [
        ("paper_gemma-2-9b", "gemma", "split"),
        pytest.param("paper_qwen2.5-7b", "qwen", "split", marks=pytest.mark.slow),
        pytest.param("paper_llama-3.1-8b", "llama", "merged", marks=pytest.mark.slow),
        pytest.param("exact_gemma-2-9b", "gemma", "split", marks=pytest.mark.slow),
        pytest.param("exact_qwen2.5-7b", "qwen", "split", marks=pytest.mark.slow),
        pytest.param("exact_llama-3.1-8b", "llama", "merged", marks=pytest.mark.slow),
    ],
)
def test_config_runs_with_a_small_model_of_its_family(tmp_path, name, family, digits):
    """As with the large model, in bfloat16 too, except for paths, vLLM and the numbers of steps and answers."""
    tokenizer = make_tokenizer(digits, chat=True)
    make_model(family, len(tokenizer)).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    write_pairs(simulate_pairs(16, n_votes=3, seed=0).pairs, tmp_path / "votes.jsonl")
    fewer = ("--per_device_train_batch_size=4", "--num_generations=4")
    done = run_forked(
        "grpo", "--config", f"recipes/configs/{name}.yaml", "--max_steps=1",
        f"--model_name_or_path={tmp_path / 'model'}", f"--dataset_name={tmp_path / 'votes.jsonl'}",
        f"--output_dir={tmp_path / 'out'}", "--use_vllm=false", "--report_to=none", "--use_cpu", "--bf16=true",
        "--save_strategy=no", "--max_prompt_tokens=900", *(fewer if name.startswith("paper") else ()),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "report.html").exists()
    assert "shared prefix disabled" not in done.stderr
