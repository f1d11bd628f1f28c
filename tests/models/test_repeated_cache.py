"""Repeated caches of models with a state along the row against whole sequences by the same models."""

import copy
from contextlib import nullcontext
from datetime import timedelta

import numpy as np
import pytest
import torch
import torch.distributed as dist
from peft import LoraConfig, get_peft_model
from torch import multiprocessing
from torch.nn.parallel import DistributedDataParallel
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    FalconH1Config,
    Gemma4TextConfig,
    GraniteMoeHybridConfig,
    JambaConfig,
    Lfm2Config,
    MambaConfig,
    NemotronHConfig,
    Qwen3_5TextConfig,
)

from autorater.data.errors import UserError
from autorater.judges import Judge
from autorater.models import repeated_cache
from autorater.models.cache_copies import sizes_of
from autorater.models.checkpointed_cache import can_checkpoint_with_cache
from autorater.models.repeated_cache import Beginning
from autorater.models.shared_generation import generate_shared
from autorater.models.shared_prefix import plain_logits
from autorater.models.shares import leave_group
from autorater.models.split_attention import supports_shared_prefix
from autorater.models.token_tree import TokenTree
from autorater.prompts.templates import PromptFormat
from tests.conftest import make_tokenizer
from tests.models import test_shared_prefix
from tests.models.test_shared_prefix import VOCAB

SIZES = test_shared_prefix.SIZES | {"max_position_embeddings": 2048}
MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 4, "mamba_n_groups": 1, "mamba_chunk_size": 8}
SPECIAL = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), 0)
CONFIGS = {
    "qwen3_5": lambda: Qwen3_5TextConfig(
        **SIZES,
        **SPECIAL,
        head_dim=8,
        layer_types=["linear_attention", "full_attention"],
        linear_num_value_heads=4,
        linear_num_key_heads=2,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
    ),
    "lfm2": lambda: Lfm2Config(**SIZES, **SPECIAL, layer_types=["conv", "full_attention"]),
    "granite4": lambda: GraniteMoeHybridConfig(
        **SIZES,
        **SPECIAL,
        **MAMBA,
        layer_types=["mamba", "attention"],
        num_local_experts=0,
        shared_intermediate_size=32,
    ),
    "falcon_h1": lambda: FalconH1Config(**SIZES, **SPECIAL, **{**MAMBA, "mamba_n_heads": 4}, mamba_d_ssm=32),
    "nemotron_h": lambda: NemotronHConfig(
        **SIZES | {"num_hidden_layers": 3},
        **SPECIAL,
        layers_block_type=["mamba", "attention", "mlp"],
        mamba_num_heads=8,
        mamba_head_dim=8,
        ssm_state_size=4,
        n_groups=1,
        chunk_size=8,
        head_dim=8,
    ),
    "gemma4": lambda: Gemma4TextConfig(  # upper layers use the keys of lower ones; a window of 4
        **SIZES | {"num_hidden_layers": 4},
        **SPECIAL,
        head_dim=8,
        global_head_dim=8,
        sliding_window=4,
        layer_types=["sliding_attention", "full_attention"] * 2,
        num_kv_shared_layers=2,
        hidden_size_per_layer_input=8,
        vocab_size_per_layer_input=VOCAB,
    ),
    "bloom": lambda: BloomConfig(vocab_size=VOCAB, hidden_size=32, n_layer=2, n_head=4),
}
WITHOUT = {
    "mamba": lambda: MambaConfig(vocab_size=VOCAB, hidden_size=32, num_hidden_layers=1, state_size=4),
    "jamba": lambda: JambaConfig(  # its state is lost before several tokens
        **SIZES, **SPECIAL, attn_layer_period=2, attn_layer_offset=1, num_experts=2, mamba_d_state=4
    ),
}
TREE = TokenTree([[1, 2, 3, 9], [1, 2, 4, 9], [1, 2, 4, 5, 9], [6, 9], [1, 2, 7, 8, 9]])


def build(config, vocab: int = VOCAB):
    torch.manual_seed(0)
    config = config()
    config.vocab_size = vocab
    model = AutoModelForCausalLM.from_config(config).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    assert not supports_shared_prefix(model)[0]
    return model


@pytest.fixture(params=CONFIGS)
def model(request):
    return build(CONFIGS[request.param])


@pytest.fixture
def prompts():
    """Three prompts of 19 tokens that begin alike, without padding."""
    ids = torch.randint(1, VOCAB, (3, 19), generator=torch.Generator().manual_seed(1))
    ids[:, :6] = ids[0, :6]
    return ids, torch.ones_like(ids)


def gradients(model, logits: torch.Tensor, tree: TokenTree = TREE) -> dict[str, torch.Tensor]:
    model.zero_grad()
    log_probs = tree.log_probs(logits)
    (log_probs * torch.arange(log_probs.numel()).view_as(log_probs)).sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same_gradients(got: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    largest = max(gradient.abs().max() for gradient in expected.values())
    assert got.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(got[name] / largest, gradient / largest, rtol=0, atol=2e-5, msg=name)


def calls_of(model, monkeypatch) -> list[torch.Size]:
    """The shapes of the token ids that the model is to process from now on."""
    shapes, forward = [], model.forward

    def recorded(*args, **inputs):
        shapes.append(inputs["input_ids"].shape)
        return forward(*args, **inputs)

    monkeypatch.setattr(model, "forward", recorded)
    return shapes


@pytest.mark.parametrize("checkpointing", [False, True])
def test_logits_and_gradients_are_those_of_whole_sequences(model, prompts, checkpointing, monkeypatch):
    ids, mask = prompts
    if not model._is_stateful:
        mask[1, :5] = 0
    assert TREE.repeats_cache(model, ids[0])
    model.train()
    if checkpointing:
        model.gradient_checkpointing_enable()
    expected = TREE.plain_logits(model, ids, mask)
    of_expected = gradients(model, expected)
    shapes = calls_of(model, monkeypatch)
    plainly = type(model).__name__ == "BloomForCausalLM" and checkpointing  # its layers name their cache otherwise
    with pytest.warns(RuntimeWarning, match="cannot be checkpointed with it") if plainly else nullcontext():
        got = TREE.logits(model, ids, mask)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    assert_same_gradients(gradients(model, got), of_expected)
    leaves = len(TREE.leaf_paths)
    if plainly:
        assert shapes == [(3 * leaves, 19 + TREE.depth - 1)]
    else:
        assert shapes == [(3, 19), (3 * leaves, TREE.depth - 1)]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_ends_of_prompts_are_learned_too(model, prompts, checkpointing):
    """As of reasonings in front of exact answers; the rows are of unlike length."""
    ids, mask = prompts
    if not model._is_stateful:
        mask[1, :5] = 0
    assert TREE.repeats_cache(model, ids[0])
    model.train()
    if checkpointing and can_checkpoint_with_cache(model):
        model.gradient_checkpointing_enable()
    plain = plain_logits(model, ids[:, :-4], mask[:, :-4], ids[:, -4:], mask[:, -4:])
    expected = torch.cat([plain, TREE.plain_logits(model, ids, mask)[:, 1:]], dim=1)
    along, nodes = TREE.logits_along_and_behind(model, ids, mask, 5)
    torch.testing.assert_close(along[:, -1], nodes[:, 0])
    got = torch.cat([along, nodes[:, 1:]], dim=1)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    of_both = []
    for logits in (got, expected):
        model.zero_grad()
        (logits.log_softmax(dim=-1) * torch.linspace(-1, 1, logits.numel()).view_as(logits)).sum().backward()
        of_both.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert_same_gradients(*of_both)


def test_reading_in_parts_behind_a_common_beginning(model, prompts, monkeypatch):
    ids, mask = prompts
    with torch.no_grad():
        expected = TREE.plain_logits(model, ids, mask)
        beginning = Beginning(model, ids[0, :6].tolist())
    assert TREE.repeats_cache(model, ids[0])
    shapes = calls_of(model, monkeypatch)
    for _ in range(2):  # the beginning stays as it is
        got = TREE.read_logits(model, ids.tolist(), beginning, max_tokens=3 * 19 * 2)
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    # two nodes at a time: 1 and 6, 12, 123 and 124, 1245, 127, 1278
    assert shapes == [(3, 13), (6, 1), (3, 1), (6, 1), (3, 1), (3, 1), (3, 1)] * 2


def test_a_tree_of_one_token(model, prompts):
    ids, mask = prompts
    tree = TokenTree([[1, 2], [1, 3], [4]])
    assert tree.repeats_cache(model, ids[0])
    expected = tree.plain_logits(model, ids, mask)
    got = tree.logits(model, ids, mask)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    assert_same_gradients(gradients(model, got, tree), gradients(model, expected, tree))


def test_samples_behind_one_prefill_are_those_of_plain_generation(model, prompts):
    ids, mask = prompts
    mask[1, :5] = 0
    kwargs = {"do_sample": True, "max_new_tokens": 4, "eos_token_id": None, "pad_token_id": 0}
    with pytest.raises(UserError, match="cannot repeat its cache"):
        generate_shared(model, ids, mask, 2, **kwargs)
    assert TREE.repeats_cache(model, ids[0])
    torch.manual_seed(0)
    expected = model.generate(ids.repeat_interleave(2, 0), attention_mask=mask.repeat_interleave(2, 0), **kwargs)
    torch.manual_seed(0)
    assert torch.equal(generate_shared(model, ids, mask, 2, **kwargs), expected)


@pytest.mark.parametrize("name", WITHOUT)
def test_a_cache_that_cannot_be_repeated_is_found_once(name, prompts):
    ids, mask = prompts
    model = build(WITHOUT[name])
    with pytest.warns(RuntimeWarning, match="processes a prompt again for each of its 4 answers") as warned:
        first = TREE.read_logits(model, ids.tolist())
    torch.testing.assert_close(first, TREE.plain_logits(model, ids, mask))
    TREE.read_logits(model, ids.tolist())
    assert len(warned) == 1


def test_a_model_that_drops_its_state_is_found(prompts, monkeypatch):
    model, rows_of = build(CONFIGS["qwen3_5"]), repeated_cache.rows_of

    def forgetful(cache, rows):
        cache = rows_of(cache, rows)
        cache.layers[0].recurrent_states[0].zero_()
        return cache

    monkeypatch.setattr(repeated_cache, "rows_of", forgetful)
    with pytest.warns(RuntimeWarning, match="log-probabilities differ by"):
        assert not TREE.repeats_cache(model, prompts[0][0])


def test_missing_memory_is_no_missing_cache(prompts, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError

    model = build(CONFIGS["qwen3_5"])
    with monkeypatch.context() as patched:
        patched.setattr(repeated_cache, "rows_of", full)
        with pytest.raises(torch.OutOfMemoryError):
            TREE.repeats_cache(model, prompts[0][0])
    assert TREE.repeats_cache(model, prompts[0][0])


def test_an_adapter_learns_the_same(prompts):
    ids, mask = prompts
    base = build(CONFIGS["qwen3_5"])
    adapter = LoraConfig(r=2, target_modules=["q_proj", "in_proj_qkv"], init_lora_weights=False, task_type="CAUSAL_LM")
    model = get_peft_model(base, adapter)
    assert TREE.repeats_cache(model, ids[0])
    expected = gradients(model, TREE.plain_logits(model, ids, mask))
    assert_same_gradients(gradients(model, TREE.logits(model, ids, mask)), expected)
    assert len(expected) == 4, "two weights of every adapted projection"


def test_the_size_of_a_cache():
    model = build(CONFIGS["qwen3_5"])
    sizes = [sizes_of(Beginning(model, range(1, 1 + n)).cache) for n in (5, 10)]
    keys = 2 * 2 * 8 * 4  # keys and values of two heads of 8 in float32, one layer
    assert [grown for grown, _ in sizes] == [5 * keys, 10 * keys]
    assert [fixed for _, fixed in sizes] == [4 * (4 * 8 * 8 + (2 * 2 * 8 + 4 * 8) * 4)] * 2, (
        "states, and a window of 4"
    )


def test_the_model_is_as_before(prompts):
    """Also the forward pass that accelerate sets for mixed precision."""
    ids, mask = prompts
    model = build(CONFIGS["lfm2"]).train()
    model.gradient_checkpointing_enable()
    own = model.forward = torch.autocast("cpu", torch.bfloat16)(model.forward)
    TREE.logits(model, ids, mask)
    assert model.forward is own
    assert model.model.gradient_checkpointing
    assert all("forward" not in vars(layer) for layer in model.model.layers)
    with pytest.raises(IndexError):
        TREE.logits(model, ids + VOCAB, mask)
    assert model.forward is own


def test_a_judge_processes_the_instructions_once_and_every_prompt_once(simulated, monkeypatch):
    tokenizer = make_tokenizer()
    model = build(CONFIGS["qwen3_5"], len(tokenizer))
    judge = Judge(model, tokenizer, PromptFormat("full"), answer_step=0.1)
    pairs = simulated.pairs[:4]
    prompts = [prompt for both in judge.encoder.encode(pairs) for prompt in both]
    ids = [torch.tensor([prompt.ids]) for prompt in prompts]
    with torch.no_grad():
        plain = torch.cat([judge.tree.plain_logits(model, one, torch.ones_like(one)) for one in ids])
    expected = judge.tree.answers(plain)
    judge.probabilities(pairs[:1])  # finds that the cache can be repeated
    shapes = calls_of(model, monkeypatch)
    got = judge.probabilities(pairs)
    np.testing.assert_allclose(np.stack([got.p_ab, got.p_ba], 1).ravel(), expected.mean, atol=1e-5)
    first, rest = shapes[0], shapes[1:]
    common = first[1]
    assert first[0] == 1
    assert common > 20, "the instructions"
    processed = sum(rows * tokens for rows, tokens in rest)
    assert processed == sum(one.shape[1] - common + len(judge.tree.tokens) for one in ids)


@pytest.mark.slow
@pytest.mark.parametrize("wrapper", ["ddp", "fsdp2"])
def test_two_processes(tmp_path, wrapper):
    multiprocessing.spawn(_one_of_two, args=(str(tmp_path / "meet"), wrapper), nprocs=2)


def _one_of_two(rank: int, path: str, wrapper: str) -> None:
    from torch.distributed.fsdp import fully_shard

    patience = timedelta(seconds=900)
    dist.init_process_group("gloo", rank=rank, world_size=2, init_method=f"file://{path}", timeout=patience)
    ids = torch.randint(1, VOCAB, (4, 19), generator=torch.Generator().manual_seed(1))
    whole = build(CONFIGS["qwen3_5"])
    expected = gradients(whole, TREE.plain_logits(whole, ids, torch.ones_like(ids)))
    mine = slice(2 * rank, 2 * rank + 2)
    for checkpointing in (False, True):
        model = copy.deepcopy(whole)
        model.zero_grad()
        if wrapper == "ddp":
            wrapped = DistributedDataParallel(model)
        else:
            mesh = dist.init_device_mesh("cpu", (2,))
            for layer in model.model.layers:
                fully_shard(layer, mesh=mesh)
            wrapped = fully_shard(model, mesh=mesh)
        if checkpointing:
            model.train()
            model.gradient_checkpointing_enable()
        log_probs = TREE.log_probs(TREE.logits(wrapped, ids[mine], torch.ones_like(ids[mine])))
        weights = torch.arange(4 * log_probs.shape[1]).view(4, -1)[mine]
        (log_probs * weights).sum().backward()
        got = {name: 2 * p.grad for name, p in model.named_parameters()}  # of the mean over both processes
        if wrapper == "fsdp2":
            got = {name: gradient.full_tensor() for name, gradient in got.items()}
        assert_same_gradients(got, expected)
    leave_group()
