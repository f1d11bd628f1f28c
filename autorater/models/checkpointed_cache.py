"""Gradient checkpointing of layers that fill a cache, which transformers switches off.

A checkpointed layer runs again in the backward pass and would update the cache a second time. Here every run begins
from a copy of the cache as it was before the layer.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import Cache, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from autorater.models.cache_copies import copied


def is_checkpointing(model: PreTrainedModel) -> bool:
    """Whether a call of the model now would run its layers again in the backward pass."""
    return model.training and torch.is_grad_enabled() and bool(_switched_on(model))


def can_checkpoint_with_cache(model: PreTrainedModel) -> bool:
    """Whether all layers that are checkpointed have the interface that `checkpointing_with_cache` requires."""
    forwards = [type(module).forward for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    return bool(forwards) and all(
        hasattr(forward, "__wrapped__") and "past_key_values" in inspect.signature(forward).parameters
        for forward in forwards
    )


@contextmanager
def checkpointing_with_cache(model: PreTrainedModel) -> Iterator[None]:
    """Within it, calls of a checkpointing model fill and continue caches; the backward pass may come after it."""
    switched = _switched_on(model)
    layers = [module for module in switched if isinstance(module, GradientCheckpointingLayer)]
    for module in switched:
        module.gradient_checkpointing = False
    for layer in layers:
        layer.forward = partial(_checkpointed, layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward
        for module in switched:
            module.gradient_checkpointing = True


def _switched_on(model: PreTrainedModel) -> list[nn.Module]:
    return [module for module in model.modules() if getattr(module, "gradient_checkpointing", False)]


def _checkpointed(layer: GradientCheckpointingLayer, *args, past_key_values: Cache, **kwargs):
    """The output of a layer; `past_key_values` then has what the layer has added."""
    before, after, is_first = copied(past_key_values), [], True

    def run():
        cache = copied(before)
        if is_first:
            after.append(cache)
        return type(layer).forward.__wrapped__(layer, *args, past_key_values=cache, **kwargs)

    output = checkpoint(run, use_reentrant=False)  # reentrant, gradients would not pass through the cache
    past_key_values.layers, is_first = after.pop().layers, False  # `run` is kept for the backward pass, its cache not
    return output
