"""The layers that an adapter is on without `lora_target_modules`, in models for which PEFT has no default."""

import pytest
import torch
from peft import PeftModel, get_peft_model
from trl import ModelConfig

from autorater.data.errors import UserError
from autorater.training.adapters import adapter_config
from tests.conftest import make_model
from tests.models.test_repeated_cache import CONFIGS, VOCAB, build

IDS = torch.arange(1, 20)[None]


def adapted(model, **options) -> set[str]:
    """The layers with an adapter, after a check that all of them learn."""
    config = adapter_config(model, ModelConfig(use_peft=True, lora_r=2, **options))
    with_adapter = get_peft_model(model, config).train()
    with_adapter(input_ids=IDS, labels=IDS).loss.backward()
    learned = {name for name, parameter in with_adapter.named_parameters() if parameter.grad is not None}
    assert learned == {name for name, parameter in with_adapter.named_parameters() if parameter.requires_grad}
    return {name.split(".lora_A")[0].split(".")[-1] for name in learned if "lora_A" in name}


@pytest.mark.parametrize("name", ["qwen3_5", "lfm2", "gemma4", "granite4", "falcon_h1"])
def test_all_linear_layers_learn(name):
    model = build(CONFIGS[name])
    layers = adapted(model)
    assert {"q_proj", "v_proj"} < layers
    assert {"qwen3_5": "in_proj_qkv", "lfm2": "out_proj", "gemma4": "down_proj"}.get(name, "in_proj") in layers
    assert "lm_head" not in layers
    if name in ("granite4", "falcon_h1"):
        assert "out_proj" not in layers, "a Mamba kernel would use its weight alone"


def test_an_adapter_of_all_layers_is_loaded_again(tmp_path):
    model = build(CONFIGS["falcon_h1"])
    config = adapter_config(model, ModelConfig(use_peft=True, lora_r=2))
    config.init_lora_weights = False
    with_adapter = get_peft_model(model, config).eval()
    with_adapter.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(build(CONFIGS["falcon_h1"]), tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(loaded(IDS).logits, with_adapter(IDS).logits)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["q_proj", "k_prj"],
            r"no layer of this model \(qwen2\) is called k_prj; did you mean k_proj\?; its linear layers",
        ),
        ("model.layers.9.*", r"is called model\.layers\.9\.\*; its linear layers are down_proj, gate_proj, k_proj"),
        (["q_proj", "lm_head"], "an adapter of it would not be trained"),
    ],
)
def test_layers_that_no_adapter_can_be_on(names, message):
    with pytest.raises(UserError, match=message):
        adapter_config(make_model("qwen", VOCAB), ModelConfig(use_peft=True, lora_target_modules=names))


def test_named_layers_and_the_defaults_of_peft_stay():
    assert adapted(make_model("qwen", VOCAB)) == {"q_proj", "v_proj"}
    assert adapted(build(CONFIGS["qwen3_5"]), lora_target_modules=["k_proj"]) == {"k_proj"}
    assert adapter_config(build(CONFIGS["qwen3_5"]), ModelConfig()) is None
