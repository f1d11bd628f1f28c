"""The estimate against what autograd really keeps, and the states under ZeRO against their formula."""

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from autorater.models.answers import AnswerTree
from autorater.models.memory import MicroBatch, Setup, count_parameters, model_states, step_memory
from autorater.prompts.encoder import PromptEncoder
from autorater.prompts.templates import PromptFormat
from tests.conftest import make_tokenizer

PROMPTS, LENGTH = 4, 200


def kept_bytes(model, tree, autocast: bool) -> int:
    """Bytes that autograd keeps for the backward pass of exact answers, without the weights themselves."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    sizes, alive = {}, []

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            sizes[storage.data_ptr()] = storage.nbytes()
            alive.append(storage)  # or its address could be used again
        return tensor

    ids = torch.randint(5, 200, (PROMPTS, LENGTH))
    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        tree.distribution(model, ids, torch.ones_like(ids), closing=0)
    return sum(sizes.values())


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("key_value_heads", [4, 2])
def test_it_is_what_autograd_keeps(autocast, key_value_heads):
    tokenizer = make_tokenizer()
    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=384, num_hidden_layers=6, num_attention_heads=4,
        num_key_value_heads=key_value_heads,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config).train()
    tree = AnswerTree(tokenizer, PromptEncoder(tokenizer, PromptFormat("compact")).context, 0.1)
    nodes = len(tree.tokens) + tree.closing_tokens
    batch = MicroBatch(PROMPTS, LENGTH, nodes, PROMPTS * (1 + nodes))
    parameters, _ = count_parameters(model)
    parts = step_memory(config, parameters, parameters, batch, Setup(autocast=autocast))
    kept = kept_bytes(model, tree, autocast)
    copies = 2 * parameters if autocast else 0
    assert parts["weights"] == 4 * parameters + copies
    assert parts["activations"] + copies == pytest.approx(kept, rel=0.1)


@pytest.mark.parametrize(("stage", "bytes_each"), [(1, 2 + 4 + 12 / 8), (2, 2 + 16 / 8), (3, 18 / 8)])
def test_states_are_those_of_the_paper(stage, bytes_each):
    parts = model_states(1000, 1000, Setup(element=2, zero_stage=stage, processes=8))
    assert sum(parts.values()) == pytest.approx(1000 * bytes_each)


def test_an_adapter_has_few_states_and_checkpointing_few_activations():
    config = Qwen2Config(vocab_size=100, hidden_size=64, num_hidden_layers=8, num_attention_heads=4)
    batch = MicroBatch(2, 50, 10, 22)
    full = step_memory(config, 10_000, 10_000, batch, Setup())
    adapter = step_memory(config, 10_500, 500, batch, Setup())
    assert adapter["gradients"] + adapter["optimizer"] == 12 * 500
    assert full["gradients"] + full["optimizer"] == 12 * 10_000
    recomputed = step_memory(config, 10_000, 10_000, batch, Setup(checkpointing=True))
    assert recomputed["activations"] < 0.5 * full["activations"]
