"""The format warm-up: mass on the grid, spread over all answers, and nothing about the labels."""

import logging
from copy import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel
from transformers import TrainingArguments
from trl import ModelConfig

from autorater.data.errors import UserError
from autorater.data.loading import write_pairs
from autorater.data.pairs import Pair
from autorater.data.population import simulate_pairs
from autorater.evaluation.judge import measure
from autorater.judges import Judge
from autorater.models.loading import load_policy
from autorater.prompts.templates import PromptFormat
from autorater.training.arguments import JudgeArguments, PolicyArguments
from autorater.training.checkpointing.record import RunRecord
from autorater.training.config import JudgeGRPOConfig
from autorater.training.format_warm_up import format_warm_up, teach_format
from autorater.training.grpo import train_on_votes
from autorater.training.options import RunOptions
from autorater.training.warm_start import warm_start_options
from tests.conftest import make_model, make_tokenizer


@pytest.fixture
def judge():
    tokenizer = make_tokenizer(chat=True)
    return Judge(make_model("llama", len(tokenizer)), tokenizer, PromptFormat("compact"), answer_step=0.1)


@pytest.fixture
def prompts(judge, simulated):
    return judge.encoder.encode(simulated.pairs[:20])


def options(folder, steps=40, rate=3e-2, **training):
    policy = PolicyArguments(warm_start_steps=steps, warm_start_learning_rate=rate)
    return policy, TrainingArguments(str(folder), seed=0, disable_tqdm=True, use_cpu=True, **training)


def test_all_answers_are_likely_after_it(judge, prompts, tmp_path):
    assert judge.judge_prompts(prompts).valid.max() < 0.01
    format_warm_up(judge, prompts[:10], *options(tmp_path))
    judgments = judge.judge_prompts(prompts[10:])
    assert judgments.valid.min() > 0.95
    assert np.abs(judgments.mean - 0.5).max() < 0.1
    assert judgments.spread.min() > 0.25, "uniform over 11 answers has 0.316"
    loaded, _ = load_policy(str(tmp_path / "warm_start"))
    ids = torch.tensor([prompts[0][0].ids])
    torch.testing.assert_close(loaded(ids).logits, judge.model(ids).logits)


def test_memory_is_saved_as_in_the_training(tmp_path):
    policy, training = options(tmp_path, optim="adafactor", gradient_checkpointing=True)
    warm = warm_start_options(policy, training, 4, 1e-3)
    assert (warm.optim, warm.gradient_checkpointing) == ("adafactor", True)


def test_labels_have_no_part_in_it(judge, simulated, tmp_path):
    states = []
    for name, labels in (("as_given", [p.label for p in simulated.pairs]), ("permuted", [0.0, 1.0] * 32)):
        pairs = [replace(pair, label=label) for pair, label in zip(simulated.pairs, labels, strict=True)]
        one = Judge(make_model("llama", len(judge.tokenizer)), judge.tokenizer, PromptFormat("compact"), 0.1)
        warmed_up(one, pairs, tmp_path / name)
        states.append(one.model.state_dict())
    for name, weight in states[0].items():
        assert torch.equal(weight, states[1][name]), name


def warmed_up(judge: Judge, pairs: list[Pair], folder) -> None:
    """The whole stage of a run, from pairs with labels."""
    folder.mkdir()
    prompts = judge.encoder.encode(pairs)
    policy, training = options(folder, steps=5)
    before = measure(pairs, judge.judge_prompts(prompts), n_bootstrap=0)
    record = RunRecord(folder, "run", {}, [])
    policy.train_only = None
    teach_format(judge, prompts, before, RunOptions(policy, training, ModelConfig()), record)
    assert record.warm_start == str(folder / "warm_start")


def test_an_adapter_learns_it(judge, prompts, tmp_path):
    judge.model.save_pretrained(tmp_path / "base")
    judge.tokenizer.save_pretrained(tmp_path / "base")
    judge.model, _ = load_policy(str(tmp_path / "base"))
    lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    mass = judge.judge_prompts(prompts[:4]).valid.mean()
    format_warm_up(judge, prompts, *options(tmp_path), lora)
    assert isinstance(judge.model, PeftModel)
    again = copy(judge)
    again.model, _ = load_policy(str(tmp_path / "base"))
    torch.manual_seed(5)  # another process has another state
    format_warm_up(again, prompts, *options(tmp_path / "again"), lora)
    files = (tmp_path / folder / "warm_start" / "adapter_model.safetensors" for folder in (".", "again"))
    assert len({file.read_bytes() for file in files}) == 1
    assert judge.judge_prompts(prompts[:4]).valid.mean() > 10 * mass, "random features cannot do more"
    continued, _ = load_policy(str(tmp_path / "warm_start"))
    assert isinstance(continued, PeftModel)
    assert any(parameter.requires_grad for parameter in continued.parameters())


def test_little_mass_is_said_and_the_option_named(judge, prompts, simulated, tmp_path, caplog):
    caplog.set_level(logging.INFO, "autorater")
    pairs = simulated.pairs[:20]
    judgments = judge.judge_prompts(prompts)
    low = measure(pairs, judgments, n_bootstrap=0)
    record = RunRecord(tmp_path, "run", {}, [])
    policy, training = options(tmp_path, steps=0)
    teach_format(judge, prompts, low, RunOptions(policy, training, ModelConfig()), record)
    assert "is on the answer grid" in caplog.records[0].message
    assert "add --warm_start_steps" in caplog.records[1].message
    assert caplog.records[1].levelname == "WARNING"
    policy, training = options(tmp_path, steps=1)
    teach_format(judge, prompts, low, RunOptions(policy, training, ModelConfig()), record)
    assert caplog.records[-1].levelname == "WARNING"
    assert "raise warm_start_steps" in caplog.records[-1].message

    caplog.clear()
    enough = measure(pairs, replace(judgments, valid=np.full_like(judgments.valid, 0.3)), n_bootstrap=0)
    policy, training = options(tmp_path, steps=9)
    before = {name: weight.clone() for name, weight in judge.model.state_dict().items()}
    teach_format(judge, prompts, enough, RunOptions(policy, training, ModelConfig()), record)
    assert "not needed" in caplog.records[1].message
    assert all(torch.equal(weight, before[name]) for name, weight in judge.model.state_dict().items())


@pytest.mark.parametrize(
    ("mode", "teacher", "message"),
    [
        ("reasoning", "opinions", "answers without reasoning"),
        ("reasoning", "probe", "answers without reasoning"),
        ("pointwise", "opinions", "a pointwise judge writes a digit"),
        ("sharded", "probe", "a model that ZeRO-3 shards"),
    ],
)
def test_a_run_is_refused_before_its_model_is_loaded(tmp_path, monkeypatch, mode, teacher, message):
    write_pairs(simulate_pairs(20, seed=0).pairs, tmp_path / "pairs.jsonl")
    data = {"dataset_name": str(tmp_path / "pairs.jsonl"), "split_by": "topic"}
    args = JudgeArguments(**data, warm_start_steps=5, warm_start_verdicts=teacher)
    chosen = {"pointwise": {"judgment": "pointwise"}, "reasoning": {"reasoning": True, "num_generations": 2}}
    options = {"use_cpu": True, "report_to": "none", "max_steps": 1, **chosen.get(mode, {})}
    training = JudgeGRPOConfig(str(tmp_path / "run"), **options)
    monkeypatch.setattr("autorater.training.warm_start.is_deepspeed_zero3_enabled", lambda: mode == "sharded")
    with pytest.raises(UserError, match=message):
        train_on_votes(args, training, ModelConfig(model_name_or_path="nothing/there"), (), "grpo")
    assert not (tmp_path / "run").exists()
