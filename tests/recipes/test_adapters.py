"""Judges that are adapters: training continues them, they merge, and a second one is trained on top."""

import json
import shutil
import subprocess
import sys
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from trl import ModelConfig

from autorater import Judge
from autorater.data.errors import UserError
from autorater.data.loading import write_pairs
from autorater.data.population import simulate_pairs
from autorater.judges.merging import merge_adapter
from autorater.models.loading import load_policy
from autorater.training.adapters import new_adapter
from tests.conftest import make_model, make_tokenizer
from tests.models.test_gguf import llama, write_gguf
from tests.recipes.test_grpo import run

LORA = ["--use_peft", "--lora_target_modules", "q_proj", "v_proj"]
PAIRS = simulate_pairs(6, seed=3).pairs


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a base model, pairs and a LoRA judge, `first`, trained at a high rate."""
    folder = tmp_path_factory.mktemp("adapters")
    tokenizer = make_tokenizer(chat=True)
    make_model("llama", len(tokenizer)).save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    write_pairs(simulate_pairs(60, seed=0, n_votes=3).pairs, folder / "pairs.jsonl")
    assert train(folder, "base", "first", *LORA, "--learning_rate=0.03", "--warm_start_steps=10").returncode == 0
    return folder


def train(folder, model, output, *options):
    done = run(
        f"--model_name_or_path={folder / model}", f"--dataset_name={folder / 'pairs.jsonl'}", "--split_by=topic",
        f"--output_dir={folder / output}", "--max_steps=3", "--per_device_train_batch_size=4",
        "--prompt_template=compact", "--answer_step=0.1", "--report_to=none", "--save_strategy=no", *options,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done


def probabilities(path) -> np.ndarray:
    return Judge.from_pretrained(str(path)).probabilities(PAIRS).mean


def metric(folder, name: str) -> float:
    return json.loads((folder / "metrics.json").read_text())[name]


@pytest.mark.parametrize("options", [LORA, []], ids=["use_peft", "plain"])
def test_training_continues_an_adapter(trained, tmp_path, options):
    done = train(trained, "first", tmp_path / "second", *options, "--learning_rate=1e-9")
    first, second = (load_file(d / "adapter_model.safetensors") for d in (trained / "first", tmp_path / "second"))
    for name, weight in first.items():
        torch.testing.assert_close(second[name], weight, rtol=0, atol=1e-7)
    expected = metric(trained / "first", "after/parse_rate")
    assert metric(tmp_path / "second", "before/parse_rate") == pytest.approx(expected, rel=1e-4)
    assert "Traceback" not in done.stderr
    config = json.loads((tmp_path / "second" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(trained / "base")


def test_a_merged_adapter_is_a_plain_model_for_a_second_one(trained, tmp_path):
    merge_adapter(str(trained / "first"), tmp_path / "merged")
    np.testing.assert_allclose(probabilities(tmp_path / "merged"), probabilities(trained / "first"), atol=1e-5)
    modes = {(tmp_path / "merged" / name).stat().st_mode for name in ("model.safetensors", "config.json")}
    assert len(modes) == 1, "whoever may read one of them may read both"
    assert type(AutoModelForCausalLM.from_pretrained(tmp_path / "merged")).__name__ == "LlamaForCausalLM"
    assert Judge.from_pretrained(str(tmp_path / "merged")).tree.step == 0.1
    train(trained, tmp_path / "merged", tmp_path / "second", *LORA)
    config = json.loads((tmp_path / "second" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(tmp_path / "merged")
    code = "import sys; from autorater.cli import command; command(sys.argv[1:])"
    again = [sys.executable, "-c", code, "merge", str(trained / "first"), str(tmp_path / "again")]
    assert subprocess.run(again, capture_output=True, text=True, check=True).stderr == "", "no noise of libraries"
    with pytest.raises(UserError, match="is not empty"):
        merge_adapter(str(trained / "first"), tmp_path / "merged")
    with pytest.raises(UserError, match=r"pairs\.jsonl is not empty, or a file; expected a new folder"):
        merge_adapter(str(trained / "first"), trained / "pairs.jsonl")
    with pytest.raises(UserError, match="no adapter to merge"):
        merge_adapter(str(trained / "base"), tmp_path / "other")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lora_r": 3}, r"lora_r: got 3, but the adapter of .*first, which is trained further, has 16; leave it out"),
        ({"lora_target_modules": ["o_proj"]}, r"lora_target_modules: got \['o_proj'\].*has \['q_proj', 'v_proj'\]"),
        ({"lora_target_modules": ["all-linear"]}, None),
        ({"lora_target_modules": ["v_proj", "q_proj"]}, None),
        ({"lora_modules_to_save": ["lm_head"]}, r"lora_modules_to_save: got \['lm_head'\].*has None; leave it out"),
        ({"lora_target_parameters": ["mlp.weight"]}, r"lora_target_parameters: got \['mlp\.weight'\].*has None"),
        ({"lora_r": 3, "use_peft": False}, None),
    ],
)
def test_another_kind_of_adapter_than_the_one_that_is_trained_further_is_refused(trained, options, message):
    model, _ = load_policy(str(trained / "first"))
    config = ModelConfig(**{"model_name_or_path": str(trained / "first"), "use_peft": True} | options)
    with nullcontext() if message is None else pytest.raises(UserError, match=message):
        assert new_adapter(model, config) is None


def test_an_option_that_is_given_with_its_default_is_not_ignored():
    lora = LoraConfig(r=8, target_modules=["q_proj"], modules_to_save=["norm"], task_type="SEQ_CLS")
    model = get_peft_model(make_model("llama", 50), lora)
    config = ModelConfig(model_name_or_path="first", use_peft=True, lora_modules_to_save=["norm"])
    assert new_adapter(model, config) is None
    assert new_adapter(model, config, {"lora_modules_to_save", "lora_target_modules"}) is None
    with pytest.raises(UserError, match="lora_r: got 16, but the adapter of first, which is trained further, has 8"):
        new_adapter(model, config, {"lora_r"})


def test_a_model_replaces_the_adapter_of_an_earlier_run(trained, tmp_path):
    options = ("--learning_rate=0.03", "--warm_start_steps=2")
    train(trained, "base", tmp_path / "judge", *LORA, *options)
    train(trained, "base", tmp_path / "judge", *options)
    for folder in (tmp_path / "judge", tmp_path / "judge" / "warm_start"):
        assert {file.name for file in folder.glob("*.safetensors")} == {"model.safetensors"}
        assert not (folder / "adapter_config.json").exists()


@pytest.mark.parametrize("steps", [0, 2], ids=["by TRL", "by the warm-up"])
def test_an_adapter_of_a_gguf_file_is_loaded_without_the_cache(trained, tmp_path, monkeypatch, steps):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = write_gguf(tmp_path / "m.gguf", llama({"rope_type": "default"}))
    done = train(trained, file, tmp_path / "judge", *LORA, "--learning_rate=0.01", f"--warm_start_steps={steps}")
    assert "Could not find a config file" not in done.stderr
    config = json.loads((tmp_path / "judge" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == file
    expected = probabilities(tmp_path / "judge")
    shutil.rmtree(tmp_path / "cache")
    np.testing.assert_array_equal(probabilities(tmp_path / "judge"), expected)
    second = train(trained, tmp_path / "judge", tmp_path / "second", *LORA)
    assert "Could not find a config file" not in second.stderr
    config = json.loads((tmp_path / "second" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == file


def test_adapters_learn_at_their_own_rate(trained, tmp_path):
    done = train(trained, "first", tmp_path / "second")
    assert "learning_rate: 0.0001, the default for adapters" in done.stdout


def test_a_loaded_adapter_is_trainable_and_its_base_frozen(trained):
    model, _ = load_policy(str(trained / "first"))
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trainable
    assert all("lora" in name for name in trainable)


def test_train_only_is_refused(trained, tmp_path):
    done = run(
        f"--model_name_or_path={trained / 'first'}", f"--dataset_name={trained / 'pairs.jsonl'}",
        f"--output_dir={tmp_path}", "--train_only", "norm", "--report_to=none",
    )  # fmt: skip
    assert done.returncode == 2
    assert "is an adapter" in done.stderr
