"""The comparison of a fast and a plain way finds mistakes, and does not take rounding for one."""

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from autorater.models.same_scores import difference
from tests.conftest import make_model

IDS = torch.tensor([[5, 6, 7, 8]])


@pytest.fixture
def prepared():
    """Makes a model as a trainer does, its forward pass under autocast."""

    AcceleratorState._reset_state(reset_partial_state=True)  # that of an earlier test
    yield Accelerator(cpu=True, mixed_precision="bf16").prepare
    AcceleratorState._reset_state(reset_partial_state=True)


def large_logits(model):
    """Adds 32 to all logits, which changes no probability, but how they are rounded."""
    model.lm_head.register_forward_hook(lambda _, __, logits: logits + 32)


@pytest.mark.parametrize("under", ["accelerate", "autocast"])
def test_under_autocast_both_precisions_are_compared(prepared, under):
    model = make_model("llama", 40)
    expected = model(IDS).logits
    model, seen = prepared(model) if under == "accelerate" else model, []
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=under == "autocast"):

        def fast(bare):
            seen.append(bare(IDS).logits)
            return seen[-1]

        assert difference(model, fast, lambda bare: bare(IDS).logits) == (0, 1e-4)
        rounded = model(IDS).logits
    assert (rounded - expected).abs().max() > 1e-4
    torch.testing.assert_close(seen, [rounded, expected])


@pytest.mark.parametrize(("wrong_call", "allowed"), [(0, 5e-2), (1, 1e-4)])
def test_a_mistake_in_one_precision_is_found(prepared, wrong_call, allowed):
    model, calls = prepared(make_model("llama", 40)), []

    def fast(bare):
        calls.append(bare(IDS).logits)
        return calls[-1] + 3.0 * (len(calls) == 1 + wrong_call) * torch.eye(40)[0]

    found, tolerance = difference(model, fast, lambda bare: bare(IDS).logits)
    assert found > tolerance == allowed


def test_other_weights_have_one_precision(prepared):
    """Without autocast the head would get states of another dtype."""
    model = make_model("llama", 40)
    model.lm_head.bfloat16()
    of_itself = (prepared(model), lambda bare: bare(IDS).logits, lambda bare: bare(IDS).logits)
    assert difference(*of_itself) == (0, 5e-2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_what_counts_as_rounding_grows_with_the_logits(dtype):
    model = make_model("llama", 40).to(dtype)
    of_itself = (model, lambda bare: bare(IDS).logits, lambda bare: bare(IDS).logits)
    assert difference(*of_itself) == (0, {torch.bfloat16: 5e-2, torch.float32: 1e-4}[dtype])
    large_logits(model)
    half_a_step = {torch.bfloat16: 32 / 256, torch.float32: 1e-4}[dtype]
    assert difference(*of_itself)[1] == pytest.approx(half_a_step, rel=0.1)


def test_a_mistake_is_found_where_autocast_would_hide_it(prepared):
    model = prepared(make_model("llama", 40))
    wrong = 0.02 * torch.eye(40)[0]  # of the logits of one token
    found, tolerance = difference(model, lambda bare: bare(IDS).logits + wrong, lambda bare: bare(IDS).logits)
    assert 5e-2 > found > tolerance
