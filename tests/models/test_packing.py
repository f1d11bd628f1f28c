"""Packed prompts give the logits and gradients of single ones, whatever they share; rows are of similar size."""

import copy
import warnings

import pytest
import torch
from peft import LoraConfig, get_peft_model

from autorater.models import shared_beginning
from autorater.models.packing import Packing, _rows
from autorater.models.shared_beginning import last_logits, share_beginnings, shares_beginnings
from autorater.models.shared_prefix import shared_prefix_logps, suffix_logits
from autorater.models.suffixes import tree_suffixes
from autorater.prompts.batching import pad_prompts
from autorater.prompts.beginnings import common_beginning
from tests.conftest import make_model

FAMILIES = ["qwen", "llama", "gemma", "gpt2"]
# shared beginnings at three depths, a prompt that continues another, and prompts of unlike length
PROMPTS = [
    [5, 6, 7, 8, 9, 3],
    [5, 6, 7, 8, 10, 11, 12, 3],
    [5, 6, 7, 8, 9, 13, 3],
    [5, 6, 20, 21, 3],
    [5, 6, 20, 22, 23, 24, 25, 26, 27, 28, 29, 3],
    [5, 6, 7, 8, 9, 3, 4],
]
RUBRIC = [5, 6, *range(7, 37)]
PAIRS = [[*RUBRIC, *own] for own in ([4, 7, 8, 3], [4, 7, 9, 9, 3], [6, 3], [6, 3, 8, 3], [4, 7, 8, 3])]
TREE = tree_suffixes(torch.tensor([5, 6, 7, 8, 5]), torch.tensor([-1, 0, 0, 1, -1]))


def gradients(model, logits):
    model.zero_grad()
    weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(0))
    (logits.log_softmax(dim=-1) * weights).sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same_gradients(got, expected):
    assert got.keys() == expected.keys()
    scale = max(gradient.abs().max() for gradient in expected.values())
    for name, gradient in expected.items():
        assert (got[name] - gradient).abs().max() <= 1e-5 * scale, name


def in_rows_of(row_tokens):
    """`PROMPTS` packed without regard to cost."""
    beginning = common_beginning([prompt[:-1] for prompt in PROMPTS])
    rows, size = _rows([prompt[len(beginning) :] for prompt in PROMPTS], 0, row_tokens)
    return Packing(beginning, rows, size, cost=0.0, plain_cost=0.0)


def own_rows(model, prompts=PAIRS):
    """Logits after every prompt and every node of `TREE`, one sequence at a time, with nothing but token ids."""
    paths = [[], *(TREE.input_ids[seen].tolist() for seen in TREE.visible)]
    return torch.stack(
        [torch.stack([model(torch.tensor([p + path])).logits[0, -1] for path in paths]) for p in prompts]
    )


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("row_tokens", [4, 12, 512, None])
def test_logits_and_gradients_are_those_of_single_prompts(family, row_tokens):
    model = make_model(family, 40)
    single = torch.cat([model(torch.tensor([prompt])).logits[:, -1] for prompt in PROMPTS])
    packed = in_rows_of(row_tokens).logits(model, PROMPTS)[:, 0] if row_tokens else last_logits(model, PROMPTS)
    torch.testing.assert_close(packed, single, rtol=1e-4, atol=1e-5)
    assert_same_gradients(gradients(model, packed), gradients(model, single))


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_trees_after_prompts_with_a_common_beginning(family, lora, checkpointing):
    model = make_model(family, 40)
    if lora:
        modules = ["c_attn", "c_proj"] if family == "gpt2" else ["q_proj", "v_proj", "down_proj"]
        config = LoraConfig(r=4, target_modules=modules, init_lora_weights=False, fan_in_fan_out=family == "gpt2")
        model = get_peft_model(model, config)
    for module in model.train().modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    plain = copy.deepcopy(model)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    calls = []
    model.register_forward_pre_hook(lambda _, a, kw: calls.append(kw["input_ids"].numel()), with_kwargs=True)
    logits = suffix_logits(model, *pad_prompts(PAIRS, 0), TREE)
    expected = own_rows(plain)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    assert shares_beginnings(model)
    assert calls[-1] < 100, "one call; the beginning of 32 tokens once instead of five times"
    assert_same_gradients(gradients(model, logits), gradients(plain, expected))


def test_completions_of_prompts_with_a_common_beginning():
    """Completions of unlike length, one of them empty: the same numbers with and without sharing."""
    model = make_model("gemma", 40)
    ids = torch.randint(1, 40, (len(PAIRS), 3, 4), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(4) < torch.tensor([4, 2, 0])[:, None]).long().expand_as(ids)
    results = []
    for on in (True, False):
        share_beginnings(model, on)
        logps, entropies, logits = shared_prefix_logps(model, *pad_prompts(PAIRS, 0), ids, mask, 0.7, TREE)
        parts = torch.cat([logps.flatten(), entropies.flatten(), logits.log_softmax(dim=-1).flatten()])
        model.zero_grad()
        (parts * torch.linspace(-1, 1, len(parts))).sum().backward()
        results.append((parts.detach(), {n: p.grad.clone() for n, p in model.named_parameters()}))
    (shared, got), (plain, expected) = results
    torch.testing.assert_close(shared, plain, rtol=1e-4, atol=1e-5)
    assert_same_gradients(got, expected)


def test_the_question_of_both_orders_is_read_once():
    """Where attention is cheap beside the rest, prompts of a question share a row."""
    model = make_model("qwen", 40)
    pairs = [[*RUBRIC, question, *[question] * 20, *own] for question in (4, 7) for own in ([8, 9, 3], [9, 8, 3])]
    packing = Packing.of(model, pairs, 5)
    assert sorted(map(sorted, packing.rows)) == [[0, 1], [2, 3]]
    assert packing.size == 21 + 2 * (3 + 5)


def test_prompts_without_a_common_beginning_are_not_packed():
    model, calls = make_model("llama", 40), []
    model.register_forward_pre_hook(lambda _, a, kw: calls.append(kw["input_ids"].shape), with_kwargs=True)
    suffix_logits(model, *pad_prompts([[first, *RUBRIC] for first in (1, 2, 3)], 0), TREE)
    assert calls == [(3, len(RUBRIC) + 1 + len(TREE.input_ids))]
    assert shares_beginnings(model) is None, "nothing to check yet"


def test_a_model_that_fails_the_check_reads_whole_prompts(monkeypatch):
    model = make_model("llama", 40).train()
    expected = own_rows(model)
    whole = Packing.logits
    monkeypatch.setattr(Packing, "logits", lambda *args: whole(*args) + torch.eye(40)[0])
    with pytest.warns(RuntimeWarning, match="shared beginning disabled.*tolerance 1e-04"):
        logits = suffix_logits(model, *pad_prompts(PAIRS, 0), TREE)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    assert shares_beginnings(model) is False
    assert model.training
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        suffix_logits(model, *pad_prompts(PAIRS, 0), TREE)


def test_the_check_runs_once(monkeypatch):
    model, checks = make_model("llama", 40), []
    check = shared_beginning._check
    monkeypatch.setattr(shared_beginning, "_check", lambda *args: checks.append(1) or check(*args))
    for _ in range(3):
        suffix_logits(model, *pad_prompts(PAIRS, 0), TREE)
    assert checks == [1]


def test_the_ends_of_prompts_are_checked_too(monkeypatch):
    model, checks = make_model("llama", 40).train(), []
    expected = torch.cat([model(torch.tensor([prompt])).logits[:, -1] for prompt in PROMPTS])
    check, whole = shared_beginning._check, Packing.logits
    monkeypatch.setattr(shared_beginning, "_check", lambda *args: checks.append(1) or check(*args))
    for _ in range(2):
        torch.testing.assert_close(last_logits(model, PROMPTS), expected, rtol=1e-4, atol=1e-5)
    assert (checks, shares_beginnings(model), model.training) == ([1], True, True)
    other = make_model("llama", 40)
    monkeypatch.setattr(Packing, "logits", lambda *args: whole(*args) + torch.eye(40)[0])
    with pytest.warns(RuntimeWarning, match="shared beginning disabled.*tolerance 1e-04"):
        logits = last_logits(other, PROMPTS)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)


def test_autocast_has_the_tolerance_of_bfloat16():
    model = make_model("llama", 40)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        suffix_logits(model, *pad_prompts(PAIRS, 0), TREE)
    assert shares_beginnings(model)


def test_one_call_reads_every_distinct_token_once():
    model, shapes = make_model("qwen", 40), []
    model.register_forward_pre_hook(lambda _, a, kw: shapes.append(kw["input_ids"].shape), with_kwargs=True)
    in_rows_of(512).logits(model, PROMPTS)
    distinct = {tuple(prompt[:i]) for prompt in PROMPTS for i in range(1, len(prompt) + 1)}
    assert shapes == [(1, len(distinct))]


def test_rows_are_balanced():
    rows, size = _rows([[9, i, *[i] * 9] for i in range(2, 22)], 2, 74)  # twenty prompts of 11 tokens, and 2
    assert sorted(i for row in rows for i in row) == list(range(20))
    assert {len(row) for row in rows} == {5}, "four equal rows in place of six, six, six and two"
    assert size == 1 + 5 * 12


@pytest.mark.parametrize("prompts", [PROMPTS[:1], [[1, 2], [2, 1, 2]]], ids=["one", "nothing in common"])
def test_prompts_that_share_nothing(prompts):
    model = make_model("llama", 40)
    expected = torch.cat([model(torch.tensor([prompt])).logits[:, -1] for prompt in prompts])
    torch.testing.assert_close(last_logits(model, prompts), expected, rtol=1e-4, atol=1e-5)
