"""A model without dropout, or without autocast, for the time of a `with` block."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within it, a model has no dropout; afterwards every module is in the mode that it had."""
    training = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in training:
            module.training = mode


@contextmanager
def without_autocast(model: nn.Module) -> Iterator[None]:
    """Within it, a model with float32 weights computes in float32."""
    # accelerate puts autocast around the forward pass, and the one without it here
    prepared = [(module, module.forward) for module in model.modules() if "_original_forward" in vars(module)]
    for module, _ in prepared:
        module.forward = module._original_forward
    try:
        with torch.autocast(next(model.parameters()).device.type, enabled=False):
            yield
    finally:
        for module, forward in prepared:
            module.forward = forward
