"""Attention for prompts that are shared by their suffixes, through transformers' `AttentionInterface`.

Attention is computed in two pieces, prompt × prompt (L × L) and suffix × all (S × (L + S)); the (L + S)² mask is never
built. One prompt can have the suffixes of several rows, `[prompt | row 1 | … | row R]`: a row sees the prompt and
itself, and is a row of the batch in the second piece only.

`enable_shared_prefix` permanently sets the model's attention implementation to one that is registered here. Without
suffixes it is the original one. With suffixes, the mask function passes a `_SplitMask` to the layers in place of a
tensor. The layout is a layer argument and not global state, because gradient checkpointing runs the layers again
in the backward pass, after the call has returned. Mask rules of the model (causal, sliding window, chunks) are
evaluated at the unshared positions, so a window keeps its length. `supports_shared_prefix` lists what cannot be split.
"""

import inspect
import sys
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.functional import pad
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask, sdpa_mask

from autorater.data.errors import UserError

# attention implementations and the names of their versions that can split
_SPLIT_NAMES = {"sdpa": "shared_prefix", "eager": "shared_prefix_eager"}
_SPLITTABLE = {*_SPLIT_NAMES, *_SPLIT_NAMES.values()}
_POSITIONAL_LAYERS = {"full_attention", "sliding_attention", "chunked_attention"}


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
    padded: str = "left"  # side of the padding in the prompts
    used: bool = False


LAYOUT: ContextVar[Layout | None] = ContextVar("shared_prefix_layout", default=None)


def split_logits(model: nn.Module, layout: Layout, **inputs) -> torch.Tensor:
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

    prompt: torch.Tensor | None  # (B, 1, L, L), or of its last rows, not cached; None for a plain causal triangle
    suffix: torch.Tensor  # (B · R, 1, S, L + S)


def _mask(*args, base: Callable, **kwargs) -> torch.Tensor | _SplitMask | None:
    """The model's own mask function; with a layout, its rule evaluated for prompt × prompt and suffix × all."""
    layout = LAYOUT.get()
    if layout is None:
        return base(*args, **kwargs)
    if kwargs["use_vmap"]:
        raise NotImplementedError("a model with a mask rule of its own cannot share a prompt among suffixes")
    layout.used = True
    device, batch = kwargs["device"], kwargs["batch_size"]
    rows, size = layout.columns.shape
    length = kwargs["kv_length"] - rows // batch * size
    rule = kwargs["mask_function"]
    padding = kwargs["attention_mask"][:, :length]  # (B, L) bool

    def prompt_rule(b, h, q, k):
        return rule(b, h, q, k) & (padding[b, k] | (q == k))  # padding sees itself: a fully masked row is NaN

    hidden = layout.padded == "left" and not padding.all()  # a causal prompt does not see padding on its right
    cached = kwargs["kv_length"] - kwargs["q_length"]
    # Kernels without a mask take queries and keys of one length. Where most of the prompt is cached, dummy queries in
    # place of the cached ones would cost more than a mask.
    rest_alone = 0 < cached < length and (length <= 2 * cached or base is eager_mask)
    prompt = base(
        **kwargs
        | {
            "q_length": length - cached if rest_alone else length,
            "kv_length": length,
            "q_offset": cached if rest_alone else 0,
            "mask_function": prompt_rule if hidden else rule,
            "attention_mask": None,
            "allow_is_causal_skip": kwargs["allow_is_causal_skip"] and not hidden and not rest_alone,
        }
    )
    b = torch.arange(batch, device=device).repeat_interleave(rows // batch)[:, None, None, None]
    h = torch.zeros(1, 1, 1, 1, dtype=torch.long, device=device)
    columns = layout.columns.to(device)
    q, k_suffix = columns[:, None, :, None], columns[:, None, None, :]
    k_prompt = torch.arange(length, device=device)[None, None, None, :]
    to_prompt = (rule(b, h, q, k_prompt) & padding[b, k_prompt]).expand(rows, 1, size, length)
    to_suffix = rule(b, h, q, k_suffix) & layout.visible.to(device).expand(rows, -1, -1)[:, None]  # (B · R, 1, S, S)
    suffix = torch.cat([to_prompt, to_suffix], dim=-1)
    if base is eager_mask:
        dtype = kwargs["dtype"]
        suffix = torch.zeros_like(suffix, dtype=dtype).masked_fill(~suffix, torch.finfo(dtype).min)
    return _SplitMask(prompt, suffix)


def _attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | _SplitMask | None,
    *,
    base: Callable,
    **kwargs,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The model's own attention; with a split mask, in two pieces: query, key, value (B, H, L + R · S, D)."""
    if not isinstance(attention_mask, _SplitMask):
        return base(module, query, key, value, attention_mask, **kwargs)
    rows = len(attention_mask.suffix) // len(key)
    length = key.shape[2] - rows * attention_mask.suffix.shape[2]
    cached = key.shape[2] - query.shape[2]
    if cached == length:
        return base(module, query, key, value, attention_mask.suffix, **kwargs)
    rest, mask = length - cached, attention_mask.prompt
    prompt_query, query = query[:, :, :rest], query[:, :, rest:]
    if mask is None or mask.shape[-2] > rest:
        prompt_query = pad(
            prompt_query, (0, 0, cached, 0)
        )  # in place of the cached queries; their outputs are dropped
    prompt_out, _ = base(module, prompt_query, key[:, :, :length], value[:, :, :length], mask, **kwargs)
    if rows > 1:
        query, own_key, own_value = (_rows(x, rows) for x in (query, key[:, :, length:], value[:, :, length:]))
        key = torch.cat([key[:, :, :length].repeat_interleave(rows, dim=0), own_key], dim=2)  # (B · R, H, L + S, D)
        value = torch.cat([value[:, :, :length].repeat_interleave(rows, dim=0), own_value], dim=2)
    suffix_out, _ = base(module, query, key, value, attention_mask.suffix, **kwargs)  # (B · R, S, H, D)
    suffix_out = suffix_out.unflatten(0, (-1, rows)).flatten(1, 2)
    return torch.cat([prompt_out[:, -rest:], suffix_out], dim=1), None


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
