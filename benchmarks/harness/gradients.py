"""Gradients of a computation with sharing against those of the same without it."""

from collections.abc import Callable

import torch
from torch import nn

GRADIENT_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.1}
"""Largest difference, relative to the largest gradient, that counts as rounding: on a CPU it was at most 4e-6 in
float32 and 0.04 in bfloat16. Half of a gradient lost is 0.5."""


def gradient_difference(model: nn.Module, shared: Callable[[], object], plain: Callable[[], object]) -> float:
    """The largest difference of a gradient relative to the largest gradient; NaN if one is not finite.

    Args:
        model: The gradients are those of its parameters; afterwards it has none.
        shared, plain: A forward and backward pass each.
    """
    gradients = []
    for run in (shared, plain):
        model.zero_grad()
        run()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    model.zero_grad()
    differences = torch.stack([(a.float() - b.float()).abs().max() for a, b in zip(*gradients, strict=True)])
    return (differences.max() / torch.stack([g.abs().max() for g in gradients[1]]).max()).item()
