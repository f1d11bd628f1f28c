"""Copies of the cache of a model that leave the original as it is, also where a model updates its cache in place."""

import copy
from functools import partial

import torch
from transformers import Cache


def copied(cache: Cache) -> Cache:
    """A cache with the same tensors, with gradients, that can be updated by a model without changing them."""
    result = copy.copy(cache)
    result.layers = [copy.copy(layer) for layer in cache.layers]
    for layer in result.layers:
        vars(layer).update({name: dict(value) for name, value in vars(layer).items() if isinstance(value, dict)})
        if hasattr(layer, "update_recurrent_state"):  # of linear attention, state spaces and convolutions
            layer.update_conv_state = partial(_update_conv_state, layer)
            layer.update_recurrent_state = partial(_update_recurrent_state, layer)
    return result


def rows_of(cache: Cache, rows: torch.Tensor) -> Cache:
    """A copy whose row i is `rows[i]` of the cache."""
    result = copied(cache)
    result.reorder_cache(rows)
    return result


def sizes_of(cache: Cache) -> tuple[int, int]:
    """Bytes of keys and values, which grow with the tokens, and of states, which do not."""
    named = [(name, value) for layer in cache.layers for name, value in vars(layer).items()]
    values = [(name, x) for name, value in named for x in (value.values() if isinstance(value, dict) else [value])]
    sizes = [(name in ("keys", "values"), x.nbytes) for name, x in values if torch.is_tensor(x)]
    return sum(size for grows, size in sizes if grows), sum(size for grows, size in sizes if not grows)


def _update_conv_state(layer, conv_states: torch.Tensor, state_idx: int = 0, **kwargs) -> torch.Tensor:
    """The method of the layer, which writes into the tensor that is there."""
    if layer.conv_states[state_idx] is not None:
        layer.conv_states[state_idx] = layer.conv_states[state_idx].clone()
    return type(layer).update_conv_state(layer, conv_states, state_idx, **kwargs)


def _update_recurrent_state(layer, recurrent_states: torch.Tensor, state_idx: int = 0, **_) -> torch.Tensor:
    """The method of the layer by assignment: a backward pass may need the state before."""
    layer.recurrent_states[state_idx] = recurrent_states
    layer.is_recurrent_states_initialized[state_idx] = True
    return recurrent_states
