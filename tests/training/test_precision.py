"""Defaults of pretrained models, and bfloat16 weights that a step cannot move."""

import logging
import re
from types import SimpleNamespace

import pytest
import torch
from trl import ModelConfig

from autorater.models.devices import gpu_has_bf16
from autorater.models.loading import load_policy
from autorater.training import precision
from autorater.training.config import JudgeGRPOConfig, bf16_by_default
from autorater.training.precision import movable_share, use_pretrained_defaults, warn_of_emulation, warn_of_rounding
from tests.conftest import make_model, make_tokenizer


def config(folder, **options):
    return JudgeGRPOConfig(str(folder), use_cpu=True, report_to="none", **options)


@pytest.fixture
def model_folder(tmp_path):
    make_model("llama", 100).save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


@pytest.mark.parametrize(
    ("options", "given", "peft", "expected"),
    [
        ({}, (), True, 1e-4),
        ({}, (), False, 1e-6),
        ({"learning_rate": 1e-6}, ("learning_rate",), True, 1e-6),
        ({"learning_rate": 8e-4}, (), True, 8e-4),  # of the default config
    ],
)
def test_adapters_have_their_own_learning_rate(tmp_path, model_folder, options, given, peft, expected):
    training = config(tmp_path, **options)
    use_pretrained_defaults(training, ModelConfig(model_name_or_path=model_folder, use_peft=peft), given)
    assert training.learning_rate == expected


@pytest.mark.parametrize("native", [True, False])
def test_autocast_where_the_processor_has_bfloat16(tmp_path, model_folder, monkeypatch, native):
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: native)
    pretrained, scratch = ModelConfig(model_name_or_path=model_folder), ModelConfig()
    for model_config, given, expected in (
        (pretrained, (), native),
        (pretrained, ("bf16",), False),
        (scratch, (), False),
    ):
        training = config(tmp_path)
        use_pretrained_defaults(training, model_config, given)
        assert training.bf16 == expected
        assert training.mixed_precision == ("bf16" if expected else "no")


def test_emulated_bfloat16_is_named(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: False)
    warn_of_emulation(config(tmp_path, bf16=False))
    assert not caplog.messages
    warn_of_emulation(config(tmp_path, bf16=True, bf16_full_eval=True))
    (message,) = caplog.messages
    assert message.startswith("bf16 and bf16_full_eval: this CPU has no bfloat16 instructions")
    assert message.endswith("(--bf16 false and --bf16_full_eval false)")
    for kind, has_bf16 in (("cpu", "cpu_has_bf16"), ("cuda", "gpu_has_bf16")):
        for native in (True, False):
            caplog.clear()
            monkeypatch.setattr(precision, has_bf16, lambda native=native: native)
            on_device = SimpleNamespace(bf16=True, bf16_full_eval=False, device=torch.device(kind))
            warn_of_emulation(on_device)
            assert [f"this {'CPU' if kind == 'cpu' else 'GPU'} has no" in text for text in caplog.messages] == [
                True
            ] * (not native)


@pytest.mark.parametrize("native", [True, False])
def test_a_gpu_that_emulates_bfloat16_is_used_in_float32(monkeypatch, model_folder, native):
    """T4 and V100; torch says that they support it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or native
    )
    assert gpu_has_bf16() == native
    make_tokenizer("split").save_pretrained(model_folder)
    arguments = SimpleNamespace(use_cpu=False, bf16=None, fp16=False)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    bf16_by_default(arguments)
    assert arguments.bf16 == native
    assert load_policy(model_folder)[0].dtype == (torch.bfloat16 if native else torch.float32)


def test_movable_share_is_that_of_an_adamw_step():
    torch.manual_seed(0)
    model = torch.nn.Linear(300, 100).bfloat16()
    model.bias.requires_grad_(False)
    before = model.weight.detach().clone()
    rate = 1e-5
    share = movable_share(model, rate)
    optimizer = torch.optim.AdamW([model.weight], lr=rate, weight_decay=0)
    model.weight.grad = torch.randn_like(model.weight)
    optimizer.step()
    moved = (model.weight != before).float().mean().item()  # in one of the two directions
    assert moved <= share <= 2 * moved
    assert 0.001 < share < 0.2
    assert movable_share(model, 1.0) == 1
    assert movable_share(model.float(), 1e-6) == 1, "float32 weights move"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_that_stay_are_warned_about(tmp_path, caplog, dtype):
    model = make_model("llama", 100)
    warn_of_rounding(model, config(tmp_path))
    assert not caplog.records
    with caplog.at_level(logging.WARNING, "autorater"):
        warn_of_rounding(model.to(dtype), config(tmp_path))
    name = str(dtype).removeprefix("torch.")
    assert re.search(rf"{name} weights: a step of learning_rate 1e-06 can move \d\.", caplog.text)
    assert "--dtype float32" in caplog.text
