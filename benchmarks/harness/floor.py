"""The floor of a measurement: the same model over as many tokens as the work has distinct ones, and nothing else.

floor         forward pass (and backward pass) over the distinct tokens in rows of a given length, causal attention
              without a mask, and the head at as many positions as the work needs
utilization   2 · parameters · tokens operations of a forward pass, 6 of both, per second, as share of the peak of
              the card (dense, of its data sheet); attention is not counted
"""

import re
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from transformers import PreTrainedModel

from autorater.prompts.beginnings import shared_length

_PEAK_FLOPS = {  # per second, bfloat16 without sparsity
    "H200": 989e12, "H100 PCIe": 756e12, "H100 NVL": 835e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12,
    "A10": 125e12, "L4": 121e12,
}  # fmt: skip


def distinct_tokens(prompts: Sequence[list[int]], suffix_tokens: int) -> int:
    """Tokens that have to be read: prompts as a tree of prefixes, and as many tokens after each."""
    ordered = sorted(prompts)
    shared = sum(shared_length(a, b) for a, b in pairwise(ordered))
    return sum(map(len, ordered)) - shared + len(ordered) * suffix_tokens


def floor_pass(
    model: PreTrainedModel,
    n_tokens: int,
    row_tokens: int,
    n_logits: int,
    batch_tokens: int | None = None,
    backward: bool = True,
) -> Callable[[], None]:
    """One pass over about `n_tokens` tokens in rows of about `row_tokens`, for `harness.measure.timed`.

    Args:
        model: A causal language model without wrappers.
        n_logits: Positions with logits, in all rows together.
        batch_tokens: Most tokens of a call; by default all are in one.
        backward: Compute gradients too.
    """
    rows = max(1, round(n_tokens / row_tokens))
    length, kept = max(1, n_tokens // rows), max(1, min(n_logits, n_tokens) // rows)
    ids = torch.ones(rows, length, dtype=torch.long, device=model.device)

    def run() -> None:
        with torch.set_grad_enabled(backward):
            for batch in ids.split(rows if batch_tokens is None else max(1, batch_tokens // length)):
                logits = model(input_ids=batch, use_cache=False, logits_to_keep=kept).logits
                if backward:
                    logits.float().logsumexp(dim=-1).mean().backward()
                    model.zero_grad()

    return run


def peak_flops(name: str) -> float | None:
    """The peak of a card by its name; None if it is not listed. An L40 is no L4, an A10G no A10."""
    return next((flops for card, flops in _PEAK_FLOPS.items() if re.search(rf"\b{card}\b", name)), None)


def utilization(
    model: PreTrainedModel, n_tokens: int, n_logits: int, seconds: float, backward: bool = True
) -> float | None:
    """Share of the card's peak in [0, 1]; None on a CPU, in float32, or on a card whose peak is not listed."""
    if model.device.type != "cuda" or model.dtype != torch.bfloat16:
        return None
    peak = peak_flops(torch.cuda.get_device_name(model.device))
    head = model.get_output_embeddings().weight.numel()
    embedding = model.get_input_embeddings().weight
    tied = embedding is model.get_output_embeddings().weight
    matrices = sum(p.numel() for p in model.parameters()) - head - (0 if tied else embedding.numel())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad) / sum(
        p.numel() for p in model.parameters()
    )
    gradients = 2 + 2 * trained  # of the inputs, and of the weights that are trained
    operations = (2 + gradients * backward) * (matrices * n_tokens + head * n_logits)
    return peak and operations / seconds / peak
