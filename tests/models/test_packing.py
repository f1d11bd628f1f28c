"""Packed prompts give the logits and gradients of single ones, whatever they share; rows are of similar size."""

import pytest
import torch

from autorater.models.packing import _rows, last_logits
from tests.conftest import make_model

# shared beginnings at three depths, a prompt that continues another, and prompts of unlike length
PROMPTS = [
    [5, 6, 7, 8, 9, 3],
    [5, 6, 7, 8, 10, 11, 12, 3],
    [5, 6, 7, 8, 9, 13, 3],
    [5, 6, 20, 21, 3],
    [5, 6, 20, 22, 23, 24, 25, 26, 27, 28, 29, 3],
    [5, 6, 7, 8, 9, 3, 4],
]


@pytest.mark.parametrize("family", ["qwen", "llama", "gemma", "gpt2"])
@pytest.mark.parametrize("row_tokens", [4, 12, 512])
def test_logits_and_gradients_are_those_of_single_prompts(family, row_tokens):
    model = make_model(family, 40)
    weights = torch.randn(len(PROMPTS), 40, generator=torch.Generator().manual_seed(0))

    def gradients(logits):
        model.zero_grad()
        (logits * weights).sum().backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    single = torch.cat([model(torch.tensor([prompt])).logits[:, -1] for prompt in PROMPTS])
    packed = last_logits(model, PROMPTS, row_tokens)
    torch.testing.assert_close(packed, single, rtol=1e-4, atol=1e-5)
    expected = gradients(single)
    for name, gradient in gradients(packed).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-3, atol=1e-4, msg=name)


def test_one_call_reads_common_tokens_once_a_row():
    model, shapes = make_model("qwen", 40), []
    model.register_forward_pre_hook(lambda _, a, kw: shapes.append(kw["input_ids"].shape), with_kwargs=True)
    last_logits(model, PROMPTS)
    distinct = {tuple(prompt[:i]) for prompt in PROMPTS for i in range(1, len(prompt))}
    assert shapes == [(1, len(distinct) + len(PROMPTS))], "inner tokens once, and a last token for every prompt"


def test_rows_are_balanced():
    rows = _rows([[9, i, *[i] * 9] for i in range(2, 22)], 64)  # twenty prompts of 11 tokens
    assert sorted(i for row in rows for i in row) == list(range(20))
    assert {len(row) for row in rows} == {5}, "four equal rows in place of six, six, six and two"


def test_a_single_prompt():
    model = make_model("llama", 40)
    expected = model(torch.tensor(PROMPTS[:1])).logits[:, -1]
    torch.testing.assert_close(last_logits(model, PROMPTS[:1]), expected, rtol=1e-4, atol=1e-5)
