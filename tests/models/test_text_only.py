"""A model that reads images too, as a judge: its text model, with the same logits, trained, saved and adapted."""

from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, Gemma3Config, Gemma3ForCausalLM
from trl import ModelConfig

from autorater.data.errors import UserError
from autorater.models.loading import load_policy
from autorater.models.split_attention import supports_shared_prefix
from autorater.models.text_only import is_taken_out
from autorater.training.arguments import JudgeArguments
from autorater.training.options import RunOptions
from autorater.training.policy import open_model
from tests.conftest import make_model, make_tokenizer

IDS = torch.arange(5, 25)[None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    tokenizer, folder = make_tokenizer(), str(tmp_path_factory.mktemp("gemma3"))
    text = {
        "vocab_size": len(tokenizer), "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "sliding_window": 8, "pad_token_id": 0,
    }  # fmt: skip
    vision = {
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "image_size": 28, "patch_size": 14,
    }  # fmt: skip
    config = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4, image_token_index=3)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def logits(folder):
    with torch.no_grad():
        return AutoModelForCausalLM.from_pretrained(folder)(IDS).logits


def test_the_text_model_is_loaded(folder, logits, tmp_path):
    model, tokenizer = load_policy(folder)
    assert isinstance(model, Gemma3ForCausalLM)
    assert model.name_or_path == folder
    assert is_taken_out(model)
    assert supports_shared_prefix(model) == (True, "")
    with torch.no_grad():
        assert torch.equal(model(IDS).logits, logits)
    model.train()(IDS, labels=IDS).loss.backward()
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert model.lm_head.weight.grad is not None
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(AutoModelForCausalLM.from_pretrained(tmp_path)(IDS).logits, logits)
    assert not is_taken_out(load_policy(str(tmp_path))[0])
    training = SimpleNamespace(use_vllm=True, use_cpu=True)
    with pytest.raises(UserError, match=r"use_vllm: .* reads images too"):
        open_model(RunOptions(JudgeArguments(), training, ModelConfig(folder)), folder)


@pytest.mark.parametrize("of_wrapper", [False, True])
def test_an_adapter_gets_the_model_that_it_was_made_for(folder, logits, tmp_path, of_wrapper):
    base = AutoModelForCausalLM.from_pretrained(folder) if of_wrapper else load_policy(folder)[0]
    target = r".*language_model.*q_proj" if of_wrapper else ["q_proj"]
    adapted = get_peft_model(base, LoraConfig(target_modules=target, init_lora_weights=False))
    with torch.no_grad():
        expected = adapted(IDS).logits
    assert not torch.allclose(expected, logits)
    adapted.save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    loaded, _ = load_policy(str(tmp_path))
    assert isinstance(loaded, PeftModel)
    assert isinstance(loaded.get_base_model(), Gemma3ForCausalLM) != of_wrapper
    with torch.no_grad():
        torch.testing.assert_close(loaded(IDS).logits, expected)


def test_a_model_of_text_stays_as_it_is(tmp_path):
    tokenizer = make_tokenizer()
    make_model("gemma", len(tokenizer)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model, _ = load_policy(str(tmp_path))
    assert type(model) is type(make_model("gemma", len(tokenizer)))
