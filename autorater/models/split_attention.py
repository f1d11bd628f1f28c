"""Attention for prompts that are shared by their suffixes, through transformers' `AttentionInterface`.

Attention is computed in two pieces, prompt × prompt (L × L) and suffix × all (S × (L + S)); the (L + S)² mask is never
built. One prompt can have the suffixes of several rows, `[prompt | row 1 | … | row R]`: a row sees the prompt and
itself, and is a row of the batch in the second piece only.

For reading without gradients, `TreeLayout` has tokens of many prompts in one row: each prompt is a row in attention
alone, with the keys of its path gathered.

`enable_shared_prefix` permanently sets the model's attention implementation to one that is registered here. Without
suffixes it is the original one. With suffixes, the mask function passes a named tuple to the layers in place of a
tensor. The layout is a layer argument and not global state, because gradient checkpointing runs the layers again
in the backward pass, after the call has returned. Mask rules of the model (causal, sliding window, chunks) are
evaluated at the unshared positions, so a window keeps its length. `supports_shared_prefix` lists what cannot be split.
"""

import inspect
import sys
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property, partial
from typing import NamedTuple

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask, sdpa_mask

from autorater.data.errors import UserError

# attention implementations and the names of their versions that can split
_SPLIT_NAMES = {"sdpa": "shared_prefix", "eager": "shared_prefix_eager"}
_SPLITTABLE = {*_SPLIT_NAMES, *_SPLIT_NAMES.values()}
_POSITIONAL_LAYERS = {"full_attention", "sliding_attention", "chunked_attention"}
_NO_GROUPS = nn.Module()  # in place of an attention module whose query heads are as many as its key heads


def transformer_of(model: nn.Module) -> PreTrainedModel:
    """The transformers model inside PEFT, DDP, DeepSpeed, FSDP or torch.compile wrappers."""
    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            return module
    raise UserError(f"there is no transformers model inside {type(model).__name__}")


def supports_shared_prefix(model: nn.Module) -> tuple[bool, str]:
    """(True, "") if suffixes can share a prompt in this model, bare or wrapped; else (False, reason)."""
    base = transformer_of(model)
    config, attention = base.config, base.config._attn_implementation
    arguments = inspect.signature(base.forward).parameters
    layers = set(getattr(config, "layer_types", None) or []) - _POSITIONAL_LAYERS
    state = f"its layers carry a state along the row ({', '.join(sorted(layers)) or type(base).__name__})"
    bidirectional = getattr(config, "use_bidirectional_attention", False) or not getattr(config, "is_causal", True)
    router = getattr(config, "output_router_logits", False)
    exchangeable = base.is_backend_compatible() and base._can_set_attn_implementation()
    reordered = attention == "eager" and getattr(config, "reorder_and_upcast_attn", False)
    adapters = [a for m in model.modules() for a in (getattr(m, "peft_config", None) or {}).values()]
    cross_layer = config.model_type.startswith("gemma4") and getattr(config, "num_kv_shared_layers", 0)
    prompt_learning = any(getattr(adapter, "is_prompt_learning", False) for adapter in adapters)
    obstacles = (
        (config.is_encoder_decoder, "it is an encoder-decoder"),
        (config.get_text_config() is not config, "it is a multimodal wrapper"),
        (base._is_stateful or layers, state),
        (bidirectional, "its attention is not causal"),
        (router, "its router loss would count the prompt once instead of once per completion"),
        (not exchangeable, "its attention does not use transformers' AttentionInterface"),
        (
            not {"position_ids", "logits_to_keep"} <= set(arguments),
            "its forward has no position_ids or logits_to_keep",
        ),
        (attention not in _SPLITTABLE, f"its attention implementation is {attention}; load it with sdpa"),
        (config.model_type == "doge", "its layers make a mask of their own"),
        (cross_layer, "its upper layers use keys of lower ones, with a mask of their own"),
        (reordered, "reorder_and_upcast_attn bypasses the AttentionInterface"),
        (prompt_learning, "its adapter puts virtual tokens in front of the prompt"),
    )
    reason = next((reason for applies, reason in obstacles if applies), "")
    return not reason, reason


def enable_shared_prefix(model: nn.Module) -> None:
    """Makes the attention of a model, bare or wrapped, able to split; ordinary calls return the same as before.

    It is permanent, but not saved with the config. A `UserError` if `supports_shared_prefix` refuses the model.
    """
    base = transformer_of(model)
    if base.config._attn_implementation in _SPLIT_NAMES.values():
        return
    supported, reason = supports_shared_prefix(model)
    if not supported:
        raise UserError(f"{type(base).__name__} cannot share a prompt among suffixes: {reason}")
    base.set_attn_implementation(_SPLIT_NAMES[base.config._attn_implementation])


@dataclass
class Layout:
    """The suffixes of the model call in progress, for the mask function."""

    columns: torch.Tensor  # index of a suffix token in its own unshared sequence, including padding, (B · R, S)
    visible: torch.Tensor  # (B · R, S, S) or (S, S)
    used: bool = False


class AttentionRows(NamedTuple):
    """R prompts with at most T queries and K keys each, padded on the left."""

    queries: torch.Tensor  # place among the tokens of the call, −1 for padding, (R, T)
    keys: torch.Tensor  # place among the cached tokens and those of the call, 0 for padding, (R, K)
    visible: torch.Tensor  # (R, T, K); tokens deeper than a query are hidden in any case


@dataclass
class TreeLayout:
    """The tokens of many prompts in one row, each token once, for the mask function."""

    columns: torch.Tensor  # index of a token in its own unshared sequence, (N,)
    rows: list[AttentionRows]  # every token is a query of one prompt
    cached: int  # tokens in front of all of them, in the cache
    used: bool = False

    @cached_property  # every kind of layer has a mask of its own, and all have the same places
    def places(self) -> torch.Tensor:
        """Place of every token among the queries of all rows, padding included, (N,)."""
        queries = torch.cat([rows.queries.flatten() for rows in self.rows])
        places, is_token = torch.empty_like(self.columns), queries >= 0
        places[queries[is_token]] = is_token.nonzero().flatten()
        return places


LAYOUT: ContextVar[Layout | TreeLayout | None] = ContextVar("shared_prefix_layout", default=None)


def split_logits(model: nn.Module, layout: Layout | TreeLayout, **inputs) -> torch.Tensor:
    """The logits of one call of a model whose attention can split; RuntimeError if it was not split."""
    token = LAYOUT.set(layout)
    try:
        logits = model(**inputs).logits
    finally:
        LAYOUT.reset(token)
    if not layout.used:
        name = type(transformer_of(model)).__name__
        raise RuntimeError(f"{name} built its attention mask without transformers' mask interface")
    return logits


class _SplitMask(NamedTuple):
    """What the layers get in place of a mask tensor. A tuple, so that wrappers can move its tensors to a device."""

    prompt: torch.Tensor | None  # (B, 1, L, L); None for a plain causal triangle
    suffix: torch.Tensor  # (B · R, 1, S, L + S)


class _TreeMask(NamedTuple):
    """The same for `TreeLayout`: of every group of rows the queries, the keys and the mask (R, 1, T, K)."""

    rows: tuple[tuple[torch.Tensor, torch.Tensor, torch.Tensor], ...]
    places: torch.Tensor  # of the output of every token, among those of all rows with padding, (N,)


def _mask(*args, base: Callable, **kwargs) -> torch.Tensor | _SplitMask | _TreeMask | None:
    """The model's own mask function; with a layout, its rule evaluated where attention is computed."""
    layout = LAYOUT.get()
    if layout is None:
        return base(*args, **kwargs)
    if kwargs["use_vmap"]:
        raise NotImplementedError("a model with a mask rule of its own cannot share a prompt among suffixes")
    layout.used = True
    make = _tree_mask if isinstance(layout, TreeLayout) else _split_mask
    return make(layout, base, **kwargs)


def _split_mask(layout: Layout, base: Callable, **kwargs) -> _SplitMask:
    """The rule of the model for prompt × prompt and suffix × all."""
    device, batch = kwargs["device"], kwargs["batch_size"]
    rows, size = layout.columns.shape
    length = kwargs["kv_length"] - rows // batch * size
    rule = kwargs["mask_function"]
    padding = kwargs["attention_mask"][:, :length]  # (B, L) bool

    def prompt_rule(b, h, q, k):
        return rule(b, h, q, k) & (padding[b, k] | (q == k))  # padding sees itself: a fully masked row is NaN

    hidden = not padding.all()
    prompt = base(
        **kwargs
        | {
            "q_length": length,
            "kv_length": length,
            "q_offset": 0,
            "mask_function": prompt_rule if hidden else rule,
            "attention_mask": None,
            "allow_is_causal_skip": kwargs["allow_is_causal_skip"] and not hidden,
        }
    )
    b = torch.arange(batch, device=device).repeat_interleave(rows // batch)[:, None, None, None]
    h = torch.zeros(1, 1, 1, 1, dtype=torch.long, device=device)
    columns = layout.columns.to(device)
    q, k_suffix = columns[:, None, :, None], columns[:, None, None, :]
    k_prompt = torch.arange(length, device=device)[None, None, None, :]
    to_prompt = (rule(b, h, q, k_prompt) & padding[b, k_prompt]).expand(rows, 1, size, length)
    to_suffix = rule(b, h, q, k_suffix) & layout.visible.to(device).expand(rows, -1, -1)[:, None]  # (B · R, 1, S, S)
    return _SplitMask(prompt, _as_mask(torch.cat([to_prompt, to_suffix], dim=-1), base, kwargs["dtype"]))


def _tree_mask(layout: TreeLayout, base: Callable, **kwargs) -> _TreeMask:
    """The rule of the model for the queries and keys of every prompt."""
    rule, columns = kwargs["mask_function"], layout.columns
    of_keys = torch.cat([torch.arange(layout.cached, device=columns.device), columns])
    first = torch.zeros(1, 1, 1, 1, dtype=torch.long, device=columns.device)
    rows = []
    for queries, keys, visible in layout.rows:
        allowed = rule(first, first, columns[queries][:, None, :, None], of_keys[keys][:, None, None, :])
        rows.append((queries.clamp(min=0), keys, _as_mask(allowed & visible[:, None], base, kwargs["dtype"])))
    return _TreeMask(tuple(rows), layout.places)


def _as_mask(allowed: torch.Tensor, base: Callable, dtype: torch.dtype) -> torch.Tensor:
    """What a mask function returns for a boolean mask: that, or numbers to add."""
    if base is not eager_mask:
        return allowed
    return torch.zeros_like(allowed, dtype=dtype).masked_fill(~allowed, torch.finfo(dtype).min)


def _attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | _SplitMask | _TreeMask | None,
    *,
    base: Callable,
    **kwargs,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The model's own attention; with a split mask, in two pieces: query, key, value (B, H, L + R · S, D)."""
    if isinstance(attention_mask, _TreeMask):
        return _tree_attention(module, query[0], key[0], value[0], attention_mask, base, **kwargs), None
    if not isinstance(attention_mask, _SplitMask):
        return base(module, query, key, value, attention_mask, **kwargs)
    rows = len(attention_mask.suffix) // len(key)
    length = key.shape[2] - rows * attention_mask.suffix.shape[2]
    prompt_query, query = query[:, :, :length], query[:, :, length:]
    prompt_out, _ = base(
        module, prompt_query, key[:, :, :length], value[:, :, :length], attention_mask.prompt, **kwargs
    )
    if rows > 1:
        query, own_key, own_value = (_rows(x, rows) for x in (query, key[:, :, length:], value[:, :, length:]))
        key = torch.cat([key[:, :, :length].repeat_interleave(rows, dim=0), own_key], dim=2)  # (B · R, H, L + S, D)
        value = torch.cat([value[:, :, :length].repeat_interleave(rows, dim=0), own_value], dim=2)
    suffix_out, _ = base(module, query, key, value, attention_mask.suffix, **kwargs)  # (B · R, S, H, D)
    suffix_out = suffix_out.unflatten(0, (-1, rows)).flatten(1, 2)
    return torch.cat([prompt_out, suffix_out], dim=1), None


def _tree_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: _TreeMask,
    base: Callable,
    **kwargs,
) -> torch.Tensor:
    """Attention of every prompt in a row of its own: query (H, N, D), key and value (H_kv, C + N, D).

    With `sdpa`, the G query heads of a key head are G queries in its row, so that keys and values are not repeated.
    """
    n_groups = len(query) // len(key) if base is sdpa_attention_forward else 1
    attending = _NO_GROUPS if n_groups > 1 else module
    query = query.transpose(0, 1).unflatten(1, (-1, n_groups)).transpose(1, 2).contiguous()  # (N, G, H / G, D)
    outputs = []
    for queries, keys, allowed in mask.rows:
        of_queries = query[queries].flatten(1, 2).transpose(1, 2)  # (R, H / G, T · G, D)
        of_keys, of_values = (
            states.index_select(1, keys.flatten()).unflatten(1, keys.shape).transpose(0, 1) for states in (key, value)
        )
        allowed = allowed.repeat_interleave(n_groups, dim=2)
        output, _ = base(attending, of_queries, of_keys, of_values, allowed, **kwargs)
        outputs.append(output.flatten(0, 1).unflatten(0, (-1, n_groups)))  # (R · T, G, H / G, D)
    return torch.cat(outputs).index_select(0, mask.places).transpose(1, 2).flatten(1, 2)[None]


def _rows(states: torch.Tensor, rows: int) -> torch.Tensor:
    """(B, H, R · S, D) as (B · R, H, S, D)."""
    return states.unflatten(2, (rows, -1)).transpose(1, 2).flatten(0, 1)


def _model_eager(module: nn.Module, *args, **kwargs) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The eager attention from the module of the attention class, for example with soft-capping or sinks."""
    sources = (sys.modules.get(cls.__module__) for cls in type(module).__mro__)
    eager = next(m.eager_attention_forward for m in sources if hasattr(m, "eager_attention_forward"))
    return eager(module, *args, **kwargs)


AttentionInterface.register(_SPLIT_NAMES["sdpa"], partial(_attention, base=sdpa_attention_forward))
AttentionInterface.register(_SPLIT_NAMES["eager"], partial(_attention, base=_model_eager))
AttentionMaskInterface.register(_SPLIT_NAMES["sdpa"], partial(_mask, base=sdpa_mask))
AttentionMaskInterface.register(_SPLIT_NAMES["eager"], partial(_mask, base=eager_mask))
