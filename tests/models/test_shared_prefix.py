"""Shared prefixes against ordinary calls of the same models: one unpadded sequence at a time, no mask, no cache."""

import copy

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, PrefixTuningConfig, get_peft_model
from torch.nn import functional as F
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    DogeConfig,
    Gemma2Config,
    Gemma3TextConfig,
    Gemma4TextConfig,
    GenerationConfig,
    GPT2Config,
    GptOssConfig,
    Lfm2Config,
    Llama4TextConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
    T5Config,
    T5ForConditionalGeneration,
)
from trl.trainer.utils import add_fused_lm_head

from autorater.models.prefix_cache import PrefixCache
from autorater.models.prefix_tree import read_suffixes
from autorater.models.shared_generation import generate_shared
from autorater.models.shared_prefix import (
    check_shared_prefix,
    plain_logps,
    shared_prefix_logps,
    suffix_logits,
)
from autorater.models.split_attention import enable_shared_prefix, supports_shared_prefix
from autorater.models.suffixes import Suffixes, branch_suffixes, tree_suffixes

VOCAB = 50
# Weights this large make attention sharp, so a token seen or missed by mistake shows in the first digit.
SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
    "max_position_embeddings": 64,
}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
# window of 4 against prompts of 6 and 9 tokens
CONFIGS = {
    "qwen2": lambda: Qwen2Config(**SIZES),
    "qwen3": lambda: Qwen3Config(**SIZES, head_dim=8),
    "llama": lambda: LlamaConfig(**SIZES),
    "mistral": lambda: MistralConfig(**SIZES, sliding_window=4),
    "gemma2": lambda: Gemma2Config(**SIZES, head_dim=8, sliding_window=4, attn_logit_softcapping=2.0),
    "gemma3": lambda: Gemma3TextConfig(
        **SIZES, head_dim=8, sliding_window=4, layer_types=["sliding_attention", "full_attention"]
    ),
    "gpt2": lambda: GPT2Config(
        vocab_size=VOCAB,
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=64,
        initializer_range=0.3,
        attn_pdrop=0.0,
        embd_pdrop=0.0,
        resid_pdrop=0.0,
        scale_attn_by_inverse_layer_idx=True,
    ),
    "gpt_oss": lambda: GptOssConfig(**SIZES, **EXPERTS, head_dim=8, sliding_window=4),  # attention sinks
    "llama4": lambda: Llama4TextConfig(  # attention in chunks of 4
        **SIZES, **EXPERTS, intermediate_size_mlp=48, head_dim=8, attention_chunk_size=4, no_rope_layers=[1, 0]
    ),
}
ARCHITECTURES = list(CONFIGS)
COMMON = ["qwen2", "llama", "gemma2", "gpt2"]


def build_model(name: str, seed: int = 0):
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(CONFIGS[name]())
    for parameter_name, parameter in model.named_parameters():
        if parameter_name.endswith(("sinks", "bias")):
            torch.nn.init.normal_(parameter)
    return model


@pytest.fixture
def batch():
    """Two prompts of 9 and 6 tokens with 3 completions each, some shorter, one empty."""
    generator = torch.Generator().manual_seed(0)
    prompt_ids = torch.randint(1, VOCAB, (2, 9), generator=generator)
    prompt_mask = torch.ones_like(prompt_ids)
    prompt_mask[1, :3] = 0
    completion_ids = torch.randint(1, VOCAB, (2, 3, 4), generator=generator)
    completion_mask = torch.ones_like(completion_ids)
    completion_mask[0, 1, 2:] = 0
    completion_mask[1, 0, 1:] = 0
    completion_mask[1, 2, :] = 0
    return prompt_ids * prompt_mask, prompt_mask, completion_ids * completion_mask, completion_mask


def reference(model, batch, temperature=1.0):
    """Log-probabilities and entropies with one forward a completion, nothing but input_ids."""
    prompt_ids, prompt_mask, completion_ids, completion_mask = batch
    logps = torch.zeros(completion_ids.shape)
    entropies = torch.zeros(completion_ids.shape)
    for b in range(completion_ids.shape[0]):
        prompt = prompt_ids[b][prompt_mask[b].bool()]
        for g in range(completion_ids.shape[1]):
            completion = completion_ids[b, g][completion_mask[b, g].bool()]
            if len(completion):
                logits = model(input_ids=torch.cat([prompt, completion])[None], use_cache=False).logits[0]
                log_probs = F.log_softmax(logits[len(prompt) - 1 : -1] / temperature, dim=-1)
                logps[b, g, : len(completion)] = log_probs.gather(1, completion[:, None])[:, 0]
                entropies[b, g, : len(completion)] = -(log_probs.exp() * log_probs).sum(-1)
    return logps, entropies


def loss_of(logps, entropies):
    """Every token has a weight of its own, so that gradients cannot cancel."""
    weights = torch.linspace(-1.0, 1.3, logps.numel()).view(logps.shape)
    return (weights * logps).sum() + 0.1 * (weights * entropies).sum()


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same_gradients(got, expected, tolerance=1e-5):
    assert got.keys() == expected.keys()
    scale = max(g.abs().max() for g in expected.values())
    assert scale > 1e-2
    for name in expected:
        assert (got[name] - expected[name]).abs().max() <= tolerance * scale, name


def assert_close(got, expected, tolerance=1e-5):
    assert (got - expected).abs().max() <= tolerance * expected.abs().max()


# ---------------------------------------------------------------------------------------------------------------------
# branches: values and gradients
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("checkpointing", ["off", "non-reentrant", "reentrant"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_logps_entropies_and_gradients_equal_unshared(name, checkpointing, batch):
    model = build_model(name).train()
    plain = copy.deepcopy(model)
    if checkpointing != "off":
        model.gradient_checkpointing_enable({"use_reentrant": checkpointing == "reentrant"})
    logps, entropies = shared_prefix_logps(model, *batch, temperature=0.7)
    expected_logps, expected_entropies = reference(plain, batch, temperature=0.7)
    assert_close(logps, expected_logps)
    assert_close(entropies, expected_entropies)
    loss_of(logps, entropies).backward()
    loss_of(expected_logps, expected_entropies).backward()
    assert_same_gradients(gradients(model), gradients(plain))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_plain_logps_equal_unshared(name, batch):
    model = build_model(name)
    expected = reference(model, batch, temperature=0.7)
    for got, expected_value in zip(plain_logps(model, *batch, temperature=0.7), expected, strict=True):
        assert_close(got, expected_value)


def test_recomputation_in_backward_sees_its_own_layout(batch):
    """Checkpointed layers run again in backward, when the call is over and others have been made since."""
    model = build_model("gemma2").train()
    plain = copy.deepcopy(model)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    prompt_ids, prompt_mask, completion_ids, completion_mask = batch
    shorter = (prompt_ids[:1, 2:], prompt_mask[:1, 2:], completion_ids[:1, :2, :3], completion_mask[:1, :2, :3])
    first = loss_of(*shared_prefix_logps(model, *batch))
    second = loss_of(*shared_prefix_logps(model, *shorter))
    third = model(input_ids=prompt_ids[:1], use_cache=False).logits.square().mean()
    (first + second + third).backward()
    expected = loss_of(*reference(plain, batch)) + loss_of(*reference(plain, shorter))
    (expected + plain(input_ids=prompt_ids[:1], use_cache=False).logits.square().mean()).backward()
    assert_same_gradients(gradients(model), gradients(plain))


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("name", COMMON)
def test_lora(name, checkpointing, batch):
    modules = ["c_attn", "c_proj"] if name == "gpt2" else ["q_proj", "v_proj", "down_proj"]
    config = LoraConfig(
        r=4, target_modules=modules, init_lora_weights=False, task_type="CAUSAL_LM", fan_in_fan_out=name == "gpt2"
    )
    model = get_peft_model(build_model(name), config).train()
    plain = copy.deepcopy(model)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    loss_of(*shared_prefix_logps(model, *batch)).backward()
    loss_of(*reference(plain, batch)).backward()
    got = gradients(model)
    assert got
    assert all("lora" in key for key in got)
    assert_same_gradients(got, gradients(plain))


def test_padding_leaves_no_nan_and_no_trace(batch):
    """Rows of padding tokens alone are finite, forward and backward, and what stands at padding does not matter."""
    prompt_ids, prompt_mask, completion_ids, completion_mask = batch
    for name in COMMON:
        model = build_model(name)
        logps, entropies = shared_prefix_logps(model, *batch)
        assert (logps[completion_mask == 0] == 0).all()
        assert (entropies[completion_mask == 0] == 0).all()
        logits = suffix_logits(model, prompt_ids, prompt_mask, branch_suffixes(completion_ids, completion_mask))
        assert logits.isfinite().all()
        logits.sum().backward()
        assert all(g.isfinite().all() for g in gradients(model).values())
        other = torch.where(prompt_mask.bool(), prompt_ids, 7), torch.where(completion_mask.bool(), completion_ids, 9)
        again, _ = shared_prefix_logps(model, other[0], prompt_mask, other[1], completion_mask)
        assert torch.equal(again, logps)


def test_branch_suffixes_layout():
    """Branches see themselves; a padding column is seen by itself alone, wherever it stands."""
    ids = torch.arange(6).view(1, 2, 3)
    mask = torch.tensor([[[1, 0, 1], [1, 1, 0]]])
    suffixes = branch_suffixes(ids, mask)
    assert suffixes.input_ids.tolist() == [[0, 1, 2, 3, 4, 5]]
    assert suffixes.depth.tolist() == [0, 1, 2, 0, 1, 2]
    seen = [row.nonzero()[:, 0].tolist() for row in suffixes.visible[0]]
    assert seen == [[0], [0, 1], [0, 2], [3], [3, 4], [3, 4, 5]]


def test_more_left_padding_changes_nothing(batch):
    prompt_ids, prompt_mask, completion_ids, completion_mask = batch
    for name in COMMON:
        model = build_model(name)
        logps, _ = shared_prefix_logps(model, *batch)
        padded, _ = shared_prefix_logps(
            model, F.pad(prompt_ids, (5, 0)), F.pad(prompt_mask, (5, 0)), completion_ids, completion_mask
        )
        assert_close(padded, logps)


def test_one_prompt_without_padding(batch):
    """No padding in the prompt: attention goes without a mask there, which is another code path."""
    prompt_ids, prompt_mask, completion_ids, completion_mask = (x[:1] for x in batch)
    for name in ARCHITECTURES:
        model = build_model(name)
        expected, _ = reference(model, (prompt_ids, prompt_mask, completion_ids, completion_mask))
        got, _ = shared_prefix_logps(model, prompt_ids, prompt_mask, completion_ids, completion_mask)
        assert_close(got, expected)


@pytest.mark.parametrize("name", COMMON)
def test_bfloat16_is_close(name, batch):
    torch.manual_seed(0)
    config = CONFIGS[name]()
    config.initializer_range = 0.05
    model = AutoModelForCausalLM.from_config(config).to(torch.bfloat16)
    found, tolerance = check_shared_prefix(model, *batch)
    assert found < tolerance == 5e-2
    loss_of(*shared_prefix_logps(model, *batch)).backward()
    assert all(g.isfinite().all() for g in gradients(model).values())


# ---------------------------------------------------------------------------------------------------------------------
# trees
# ---------------------------------------------------------------------------------------------------------------------

PARENTS = torch.tensor([-1, 0, 0, 1, -1, 4, 5, 3, 6])
TOKENS = torch.tensor([5, 6, 7, 8, 5, 6, 7, 9, 9])  # the same tokens after different parents


def test_tree_suffixes_see_their_ancestors():
    suffixes = tree_suffixes(TOKENS, PARENTS)
    assert suffixes.depth.tolist() == [0, 1, 1, 2, 0, 1, 2, 3, 3]
    seen = [row.nonzero()[:, 0].tolist() for row in suffixes.visible]
    assert seen == [[0], [0, 1], [0, 2], [0, 1, 3], [4], [4, 5], [4, 5, 6], [0, 1, 3, 7], [4, 5, 6, 8]]


def test_tree_suffixes_refuse_a_parent_behind_its_child():
    with pytest.raises(ValueError, match="parent of node 1 must be -1 or a node before it, got 2"):
        tree_suffixes(torch.tensor([1, 2, 3]), torch.tensor([-1, 2, 0]))


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_tree_logits_and_gradients_equal_every_path_alone(name, checkpointing, batch):
    prompt_ids, prompt_mask, _, _ = batch
    model = build_model(name).train()
    plain = copy.deepcopy(model)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    suffixes = tree_suffixes(TOKENS, PARENTS)
    logits = suffix_logits(model, prompt_ids, prompt_mask, suffixes)
    assert logits.shape == (2, 1 + len(TOKENS), VOCAB)
    rows = []
    for b in range(2):
        prompt = prompt_ids[b][prompt_mask[b].bool()]
        rows.append(plain(input_ids=prompt[None], use_cache=False).logits[0, -1])
        for node in range(len(TOKENS)):
            path = TOKENS[suffixes.visible[node]]
            rows.append(plain(input_ids=torch.cat([prompt, path])[None], use_cache=False).logits[0, -1])
    expected = torch.stack(rows).view(logits.shape)
    assert_close(logits, expected)
    for values in (logits, expected):
        (values.log_softmax(-1) * torch.linspace(-1, 1, values.numel()).view(values.shape)).sum().backward()
    assert_same_gradients(gradients(model), gradients(plain))


BEGINNING = [7, 3, 9, 12, 5, 31]  # longer than the window of 4
PROMPTS = {
    "nothing in common": [[1, 2, 3], [4, 5, 6, 7, 8, 9], [2, 2]],
    "a beginning in common": [BEGINNING + rest for rest in ([1, 2], [8], [4, 4, 6, 1, 2], [8, 3, 3])],
    "a shorter beginning than the rest": [[7, 3, *rest] for rest in ([1, 2, 8, 4, 4, 6, 1, 2], [9, 12, 3])],
    "one is the beginning of another": [[*BEGINNING, 1], [*BEGINNING, 1, 2, 6], BEGINNING],
    "beginnings inside one another": [
        [*BEGINNING, *rest] for rest in ([4, 4, 1, 8], [4, 4, 1, 6, 2], [4, 9], [4, 4, 2, 6], [4, 4, 1, 6, 3, 3, 3, 1])
    ],
    "one prompt": [BEGINNING],
    "the same prompt twice": [BEGINNING, BEGINNING],
    "prompts of one token": [[3], [4], [3]],
}


@pytest.mark.parametrize("prompts", PROMPTS.values(), ids=PROMPTS)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_reading_equals_every_path_alone(name, prompts):
    model = build_model(name).eval()
    plain = copy.deepcopy(model)
    suffixes = tree_suffixes(TOKENS, PARENTS)
    logits = read_suffixes(model, prompts, suffixes)
    assert logits.shape == (len(prompts), 1 + len(TOKENS), VOCAB)
    assert not logits.requires_grad
    paths = [torch.tensor([], dtype=torch.long), *(TOKENS[seen] for seen in suffixes.visible)]
    for row, prompt in zip(logits, prompts, strict=True):
        for got, path in zip(row, paths, strict=True):
            assert_close(got, plain(torch.tensor([[*prompt, *path.tolist()]]), use_cache=False).logits[0, -1])


def test_long_prompts_have_the_long_embeddings_of_longrope():
    """transformers chooses them for a whole call, so short and long prompts are read in calls of their own."""
    rope = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [1.0, 2.0, 4.0, 8.0]}
    sizes = {**SIZES, "max_position_embeddings": 64, "original_max_position_embeddings": 14}
    config = Phi3Config(**sizes, pad_token_id=0, rope_parameters={**rope, "rope_theta": 1e4})
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
    prompts = [[*BEGINNING, *range(1, n)] for n in (3, 9, 5, 14, 10)]
    suffixes = tree_suffixes(TOKENS, PARENTS)
    deepest = [TOKENS[seen] for seen in suffixes.visible][-1].tolist()
    cache = PrefixCache(model)
    together = read_suffixes(model, prompts, suffixes, cache)
    for row, prompt in zip(together, prompts, strict=True):
        assert_close(row[-1], model(torch.tensor([[*prompt, *deepest]]), use_cache=False).logits[0, -1])
        assert_close(row, read_suffixes(model, [prompt], suffixes, cache)[0])


@pytest.mark.parametrize("tokens", [[], [4]], ids=["no suffix", "one suffix"])
def test_reading_short_suffixes(tokens):
    model, prompts = build_model("llama").eval(), [*PROMPTS["a beginning in common"], [*BEGINNING, 8], [*BEGINNING, 1]]
    suffixes = tree_suffixes(torch.tensor(tokens, dtype=torch.long), torch.tensor([-1] * len(tokens)))
    logits = read_suffixes(model, prompts, suffixes)
    for row, prompt in zip(logits, prompts, strict=True):
        assert_close(row, model(torch.tensor([[*prompt, *tokens]])).logits[0, len(prompt) - 1 :])


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("prompts", PROMPTS.values(), ids=PROMPTS)
def test_every_different_beginning_is_read_once(implementation, prompts):
    model = build_model("gpt2").eval()
    model.set_attn_implementation(implementation)
    read = []
    model.transformer.h[0].mlp.register_forward_hook(lambda _, args, __: read.append(args[0].shape[:2].numel()))
    read_suffixes(model, prompts, tree_suffixes(TOKENS, PARENTS))
    distinct = {tuple(prompt[: k + 1]) for prompt in prompts for k in range(len(prompt))}
    assert sum(read) == len(distinct) + len(prompts) * len(TOKENS)
    assert len(read) <= 2, "the beginning of all, then the rest"


@settings(deadline=None, max_examples=30)
@given(st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=14), min_size=1, max_size=12))
def test_reading_any_prompts(prompts):
    model = build_model("mistral").eval()  # a window of 4
    logits = read_suffixes(model, prompts, tree_suffixes(TOKENS[:1], PARENTS[:1]))
    for row, prompt in zip(logits, prompts, strict=True):
        assert_close(row, model(torch.tensor([[*prompt, TOKENS[0].item()]])).logits[0, -2:])


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_batches_share_the_beginning_that_was_read_last(name):
    """The same logits as without a cache, whether a beginning goes on, stops earlier, or has nothing in common."""
    model = build_model(name).eval()
    suffixes = tree_suffixes(TOKENS, PARENTS)
    longer = [*BEGINNING, 6, 9, 2]
    batches = [
        [[*BEGINNING, *rest] for rest in ([1, 2], [8])],
        [[*longer, *rest] for rest in ([1, 2, 2], [8])],
        [[*BEGINNING[:3], *rest] for rest in ([4, 4, 1], [1])],
        [[9, 1], [2, 2]],
        [longer],
    ]
    prefix_cache = PrefixCache(model)
    for prompts in batches:
        assert_close(read_suffixes(model, prompts, suffixes, prefix_cache), read_suffixes(model, prompts, suffixes))


def test_only_the_rest_of_a_beginning_is_read():
    model, read = build_model("gpt2").eval(), []
    prefix_cache = PrefixCache(model)
    model.register_forward_pre_hook(
        lambda _, args, inputs: read.append(inputs["input_ids"].tolist()[0]), with_kwargs=True
    )
    for beginning in (BEGINNING, [*BEGINNING, 6, 9], [*BEGINNING[:3], 9], [*BEGINNING[:2]]):
        cache = prefix_cache.read(beginning)
        assert cache.get_seq_length() == len(beginning)
        model(input_ids=torch.tensor([[8, 8]]), past_key_values=cache, use_cache=True)  # a call adds tokens
    assert read == [BEGINNING, [8, 8], [6, 9], [8, 8], [9], [8, 8], [8, 8]]


def test_reading_near_the_end_of_the_context():
    """No token asks for a position that GPT-2 does not have."""
    model = build_model("gpt2").eval()
    prompts = [[5] * 60, [6] * 3]
    suffixes = tree_suffixes(torch.tensor([1, 2, 3, 4]), torch.tensor([-1, 0, 1, 2]))
    plain = model(torch.tensor([[6, 6, 6, 1, 2, 3, 4]])).logits[0, 2:]
    assert_close(read_suffixes(model, prompts, suffixes)[1], plain)


def test_branches_are_a_tree(batch):
    prompt_ids, prompt_mask, completion_ids, completion_mask = batch
    model = build_model("mistral")
    full = torch.ones_like(completion_mask)
    packed = suffix_logits(model, prompt_ids, prompt_mask, branch_suffixes(completion_ids, full))
    parents = torch.arange(12) - 1
    parents[::4] = -1
    for b in range(2):
        tree = tree_suffixes(completion_ids[b].reshape(-1), parents)
        assert_close(suffix_logits(model, prompt_ids, prompt_mask, tree)[b], packed[b])


def test_a_deeper_token_stays_hidden():
    """Attention is causal in depth even where `visible` says otherwise."""
    model = build_model("llama")
    prompt = torch.tensor([[3, 4, 5]])
    chain = Suffixes(torch.tensor([6, 7]), torch.tensor([0, 1]), torch.ones(2, 2, dtype=torch.bool))
    logits = suffix_logits(model, prompt, torch.ones_like(prompt), chain)
    assert_close(logits[0], model(input_ids=torch.tensor([[3, 4, 5, 6, 7]])).logits[0, 2:])


# ---------------------------------------------------------------------------------------------------------------------
# the call: one forward, no large mask, wrappers
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["qwen2", "mistral", "gemma2"])
def test_one_call_scores_only_the_suffix_and_builds_no_square_mask(name, batch):
    model = build_model(name)
    enable_shared_prefix(model)
    calls, scored, masks = [], [], []

    def look_at_mask(module, args, kwargs):
        masks.extend(kwargs["attention_mask"])

    model.model.register_forward_hook(lambda *_: calls.append(1))
    model.lm_head.register_forward_hook(lambda _, inputs, __: scored.append(inputs[0].shape[1]))
    for layer in model.model.layers:
        layer.self_attn.register_forward_pre_hook(look_at_mask, with_kwargs=True)
    shared_prefix_logps(model, *batch)
    assert calls == [1]
    assert scored == [1 + 12]
    assert {tuple(mask.shape[2:]) for mask in masks} == {(9, 9), (12, 9 + 12)}


def test_distributed_data_parallel(batch, tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        model = build_model("qwen2").train()
        plain = copy.deepcopy(model)
        model.gradient_checkpointing_enable({"use_reentrant": False})
        wrapped = torch.nn.parallel.DistributedDataParallel(model)
        loss_of(*shared_prefix_logps(wrapped, *batch)).backward()
    finally:
        dist.destroy_process_group()
    loss_of(*reference(plain, batch)).backward()
    assert_same_gradients(gradients(model), gradients(plain))


def test_with_the_fused_head_of_trl(batch):
    """GRPOTrainer replaces `model.forward`; the shared path must still get logits out of it."""
    model = build_model("qwen2")
    expected, _ = reference(model, batch)
    add_fused_lm_head(model, temperature=1.0)
    got, _ = shared_prefix_logps(model, *batch)
    assert_close(got, expected)


def test_check_finds_a_wrong_layout(batch, monkeypatch):
    model = build_model("qwen2").train()
    model.lm_head.eval()
    found, tolerance = check_shared_prefix(model, *batch)
    assert found < tolerance == 1e-4
    assert model.training
    assert not model.lm_head.training  # every module is back in its own mode

    def leaky(completion_ids, completion_mask):  # branches see each other
        good = branch_suffixes(completion_ids, completion_mask)
        return Suffixes(good.input_ids, good.depth, torch.ones_like(good.visible))

    monkeypatch.setattr("autorater.models.shared_prefix.branch_suffixes", leaky)
    assert check_shared_prefix(model, *batch)[0] > 1e-2


def test_check_is_not_misled_by_dropout(batch):
    config = CONFIGS["gpt2"]()
    config.resid_pdrop = config.attn_pdrop = config.embd_pdrop = 0.3
    assert check_shared_prefix(AutoModelForCausalLM.from_config(config).train(), *batch)[0] < 1e-4


# ---------------------------------------------------------------------------------------------------------------------
# what an enabled model still is
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_plain_calls_are_unchanged_bit_for_bit(name, batch):
    prompt_ids, prompt_mask, _, _ = batch
    model = build_model(name)
    config = GenerationConfig(max_new_tokens=5, do_sample=True, pad_token_id=0, eos_token_id=None)

    def calls():
        yield model(input_ids=prompt_ids).logits
        yield model(input_ids=prompt_ids, attention_mask=prompt_mask).logits
        packed = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 0, 1]])  # a packed row still is one
        yield model(input_ids=prompt_ids[:1], position_ids=packed, use_cache=False).logits
        torch.manual_seed(3)
        yield model.generate(input_ids=prompt_ids, attention_mask=prompt_mask, generation_config=config)

    before = list(calls())
    enable_shared_prefix(model)
    enable_shared_prefix(model)
    assert model.config._attn_implementation.startswith("shared_prefix")
    for old, new in zip(before, calls(), strict=True):
        assert torch.equal(old, new)


def test_an_enabled_model_saves_and_loads_as_any_other(batch, tmp_path):
    model = build_model("qwen2")
    enable_shared_prefix(model)
    model.save_pretrained(tmp_path)
    assert "shared_prefix" not in (tmp_path / "config.json").read_text()
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert loaded.config._attn_implementation == "sdpa"
    assert torch.equal(plain_logps(loaded, *batch)[0], plain_logps(model, *batch)[0])


def test_a_failed_call_removes_its_layout(batch):
    prompt_ids, prompt_mask, completion_ids, completion_mask = batch
    model = build_model("qwen2")
    before = model(input_ids=prompt_ids).logits
    with pytest.raises(IndexError):
        shared_prefix_logps(model, prompt_ids, prompt_mask, completion_ids + VOCAB, completion_mask)
    assert torch.equal(model(input_ids=prompt_ids).logits, before)


# ---------------------------------------------------------------------------------------------------------------------
# models that cannot share
# ---------------------------------------------------------------------------------------------------------------------


def refused_models():
    moe = Qwen3MoeConfig(
        **SIZES, head_dim=8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16, output_router_logits=True
    )
    flex = AutoModelForCausalLM.from_config(CONFIGS["qwen2"](), attn_implementation="flex_attention")
    bidirectional = CONFIGS["gemma3"]()
    bidirectional.use_bidirectional_attention = True
    prefix_tuning = PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    upcast = GPT2Config(
        vocab_size=VOCAB, n_embd=32, n_layer=1, n_head=4, reorder_and_upcast_attn=True, attn_implementation="eager"
    )
    t5 = T5Config(vocab_size=VOCAB, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    return {
        "state along the row": AutoModelForCausalLM.from_config(
            MambaConfig(vocab_size=VOCAB, hidden_size=16, num_hidden_layers=1)
        ),
        "conv": AutoModelForCausalLM.from_config(Lfm2Config(**SIZES, layer_types=["conv", "full_attention"])),
        "router loss": AutoModelForCausalLM.from_config(moe),
        "flex_attention": flex,
        "keys of lower ones": AutoModelForCausalLM.from_config(
            Gemma4TextConfig(
                **SIZES,
                head_dim=8,
                num_kv_shared_layers=1,
                vocab_size_per_layer_input=VOCAB,
                layer_types=["full_attention"] * 2,
            )
        ),
        "a mask of their own": AutoModelForCausalLM.from_config(DogeConfig(**SIZES)),
        "not causal": AutoModelForCausalLM.from_config(bidirectional),
        "AttentionInterface": AutoModelForCausalLM.from_config(
            BloomConfig(vocab_size=VOCAB, hidden_size=16, n_layer=1, n_head=2)
        ),
        "reorder_and_upcast_attn": AutoModelForCausalLM.from_config(upcast),
        "virtual tokens": get_peft_model(build_model("qwen2"), prefix_tuning),
        "encoder-decoder": T5ForConditionalGeneration(t5),
    }


def test_models_that_cannot_share_are_refused_with_the_reason(batch):
    prompt_ids, prompt_mask, completion_ids, completion_mask = batch
    for reason, model in refused_models().items():
        supported, got = supports_shared_prefix(model)
        assert not supported
        assert reason in got
        with pytest.raises(ValueError, match=reason):
            shared_prefix_logps(model, prompt_ids, prompt_mask, completion_ids, completion_mask)
        with pytest.raises(ValueError, match=reason):
            generate_shared(model, prompt_ids, prompt_mask, 2, GenerationConfig(max_new_tokens=1))


def test_models_that_can_share():
    for name in ARCHITECTURES:
        model = build_model(name)
        assert supports_shared_prefix(model) == (True, "")
        enable_shared_prefix(model)
        assert supports_shared_prefix(model) == (True, "")


def test_a_wrapper_without_a_transformer_is_an_error():
    with pytest.raises(ValueError, match="no transformers model inside Linear"):
        supports_shared_prefix(torch.nn.Linear(1, 1))


# ---------------------------------------------------------------------------------------------------------------------
# generation
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("enabled", [False, True])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_generation_draws_the_same_samples(name, enabled, batch):
    prompt_ids, prompt_mask, _, _ = batch
    model = build_model(name).train()
    if enabled:
        enable_shared_prefix(model)
    config = GenerationConfig(
        max_new_tokens=8, do_sample=True, temperature=1.0, top_k=0, pad_token_id=0, eos_token_id=11
    )
    model.generation_config.cache_implementation = "hybrid"  # as in Gemma 2 and 3; transformers ignores it
    torch.manual_seed(5)
    shared = generate_shared(model, prompt_ids, prompt_mask, 4, config)
    torch.manual_seed(5)
    plain = model.generate(
        input_ids=prompt_ids.repeat_interleave(4, dim=0),
        attention_mask=prompt_mask.repeat_interleave(4, dim=0),
        generation_config=config,
    )
    assert torch.equal(shared, plain)
    assert len(shared.unique(dim=0)) > 4


def test_generation_prefills_once_a_prompt(batch):
    prompt_ids, prompt_mask, _, _ = batch
    model = build_model("qwen2")
    model.generation_config.use_cache = False  # as trainers leave it
    shapes = []
    model.model.embed_tokens.register_forward_hook(lambda _, inputs, __: shapes.append(tuple(inputs[0].shape)))
    generate_shared(model, prompt_ids, prompt_mask, 4, GenerationConfig(max_new_tokens=3, do_sample=True))
    assert shapes == [(2, 8), (8, 1), (8, 1), (8, 1)]


def test_generation_of_a_lora_model_and_of_one_token_prompts():
    config = LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    model = get_peft_model(build_model("llama"), config)
    greedy = GenerationConfig(max_new_tokens=4, do_sample=False)
    for length in (1, 5):
        ids = torch.arange(1, 1 + 2 * length).view(2, length)
        plain = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=greedy)
        shared = generate_shared(model, ids, torch.ones_like(ids), 3, greedy)
        assert torch.equal(shared, plain.repeat_interleave(3, dim=0))


def test_generation_refuses_what_would_go_wrong_in_silence(batch):
    prompt_ids, prompt_mask, _, _ = batch
    model = build_model("qwen2").train()
    for key, value in {"num_beams": 2, "num_return_sequences": 2, "cache_implementation": "static"}.items():
        with pytest.raises(ValueError, match=f"{key}=.*, got {value}"):
            generate_shared(model, prompt_ids, prompt_mask, 2, GenerationConfig(do_sample=True, **{key: value}))
        with pytest.raises(ValueError, match=f"{key}=.*, got {value}"):
            generate_shared(model, prompt_ids, prompt_mask, 2, max_new_tokens=2, **{key: value})
    model.gradient_checkpointing_enable()
    with pytest.raises(ValueError, match="gradient checkpointing drops the cache"):
        generate_shared(model, prompt_ids, prompt_mask, 2, GenerationConfig(max_new_tokens=2))
    generate_shared(model.eval(), prompt_ids, prompt_mask, 2, GenerationConfig(max_new_tokens=2))
