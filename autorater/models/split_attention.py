"""Attention of a prompt shared by its suffixes, registered through transformers' `AttentionInterface`."""

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

# attention implementation a model may come with -> the name under which it can also split
_SPLIT_NAMES = {"sdpa": "shared_prefix", "eager": "shared_prefix_eager"}


_POSITIONAL_LAYERS = {"full_attention", "sliding_attention", "chunked_attention"}


def supports_shared_prefix(model: nn.Module) -> tuple[bool, str]:
    """Whether the suffixes of a prompt can share one row in this model, and if not, why.

    Args:
        model: A causal language model, bare or wrapped (PEFT, DDP, DeepSpeed).

    Returns:
        (True, "") or (False, reason).
    """
    base = transformer_of(model)
    config = base.config
    arguments = inspect.signature(base.forward).parameters
    layers = set(getattr(config, "layer_types", None) or []) - _POSITIONAL_LAYERS
    adapters = [a for m in model.modules() for a in (getattr(m, "peft_config", None) or {}).values()]
    reason = ""
    if config.is_encoder_decoder:
        reason = "it is an encoder-decoder"
    elif config.get_text_config() is not config:
        reason = "it is a multimodal wrapper"
    elif base._is_stateful or layers:
        reason = f"its layers carry a state along the row ({', '.join(sorted(layers)) or type(base).__name__})"
    elif getattr(config, "use_bidirectional_attention", False) or not getattr(config, "is_causal", True):
        reason = "its attention is not causal"
    elif getattr(config, "output_router_logits", False):
        reason = "its router loss would count the prompt once instead of once a completion"
    elif not base.is_backend_compatible() or not base._can_set_attn_implementation():
        reason = "its attention does not go through transformers' AttentionInterface"
    elif not {"position_ids", "logits_to_keep"} <= set(arguments):
        reason = "its forward does not take position_ids and logits_to_keep"
    elif config._attn_implementation not in {*_SPLIT_NAMES, *_SPLIT_NAMES.values()}:
        reason = f"its attention implementation is {config._attn_implementation}; load it with sdpa"
    elif config._attn_implementation == "eager" and getattr(config, "reorder_and_upcast_attn", False):
        reason = "reorder_and_upcast_attn bypasses the AttentionInterface"
    elif any(getattr(a, "is_prompt_learning", False) for a in adapters):
        reason = "its adapter puts virtual tokens in front of the prompt"
    return not reason, reason


def enable_shared_prefix(model: nn.Module) -> None:
    """Lets the model's attention split. Plain calls, training and generation included, give what they gave before.

    It is not undone after a call: a gradient-checkpointed layer runs again in the backward pass and must find the same
    attention function. The name is not saved with the config. Calling it twice does nothing.

    Args:
        model: A causal language model, bare or wrapped.

    Raises:
        ValueError: If `supports_shared_prefix` refuses the model.
    """
    base = transformer_of(model)
    if base.config._attn_implementation in _SPLIT_NAMES.values():
        return
    supported, reason = supports_shared_prefix(model)
    if not supported:
        raise ValueError(f"{type(base).__name__} cannot share a prompt among suffixes: {reason}")
    base.set_attn_implementation(_SPLIT_NAMES[base.config._attn_implementation])


@dataclass
class Layout:
    """The suffixes of the call in progress, between `_split_logits` and the mask function."""

    columns: torch.Tensor  # where a suffix token stands in its own unshared sequence, padding counted, (B, S)
    visible: torch.Tensor  # (B, S, S) or (S, S)
    padded: str = "left"  # side of the prompts on which their padding is
    used: bool = False


LAYOUT: ContextVar[Layout | None] = ContextVar("shared_prefix_layout", default=None)


class _SplitMask(NamedTuple):
    """What the layers get in place of a mask tensor. A tuple, so that wrappers find and move the tensors in it."""

    prompt: torch.Tensor | None  # (B, 1, L, L); None for a plain causal triangle
    suffix: torch.Tensor  # (B, 1, S, L + S)


def _mask(*args, base: Callable, **kwargs) -> torch.Tensor | _SplitMask | None:
    """The model's own mask function; with suffixes under way, its rule evaluated prompt × prompt and suffix × all."""
    layout = LAYOUT.get()
    if layout is None:
        return base(*args, **kwargs)
    if kwargs["use_vmap"]:
        raise NotImplementedError("a model with a mask rule of its own cannot share a prompt among suffixes")
    layout.used = True
    device, batch = kwargs["device"], kwargs["batch_size"]
    size = layout.columns.shape[1]
    length = kwargs["kv_length"] - size
    rule = kwargs["mask_function"]
    padding = kwargs["attention_mask"][:, :length]  # (B, L) bool

    def prompt_rule(b, h, q, k):
        return rule(b, h, q, k) & (padding[b, k] | (q == k))  # a padding row keeps itself: never all masked, never NaN

    hidden = layout.padded == "left" and not padding.all()  # a causal prompt does not see padding on its right
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
    b = torch.arange(batch, device=device)[:, None, None, None]
    h = torch.zeros(1, 1, 1, 1, dtype=torch.long, device=device)
    columns = layout.columns.to(device)
    q, k_suffix = columns[:, None, :, None], columns[:, None, None, :]
    k_prompt = torch.arange(length, device=device)[None, None, None, :]
    to_prompt = (rule(b, h, q, k_prompt) & padding[b, k_prompt]).expand(batch, 1, size, length)
    to_suffix = rule(b, h, q, k_suffix) & layout.visible.to(device).expand(batch, -1, -1)[:, None]  # (B, 1, S, S)
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
    """The model's own attention; with a split mask, in two pieces: query, key, value (B, H, L + S, D)."""
    if not isinstance(attention_mask, _SplitMask):
        return base(module, query, key, value, attention_mask, **kwargs)
    length = key.shape[2] - attention_mask.suffix.shape[2]
    cached = key.shape[2] - query.shape[2]
    if cached == length:
        return base(module, query, key, value, attention_mask.suffix, **kwargs)
    query = pad(query, (0, 0, cached, 0))  # in place of queries read before: causal without a mask, and then dropped
    prompt = (x[:, :, :length] for x in (query, key, value))
    prompt_out, _ = base(module, *prompt, attention_mask.prompt, **kwargs)  # (B, L, H, D)
    suffix_out, _ = base(module, query[:, :, length:], key, value, attention_mask.suffix, **kwargs)  # (B, S, H, D)
    return torch.cat([prompt_out[:, cached:], suffix_out], dim=1), None


def _model_eager(module: nn.Module, *args, **kwargs) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The eager attention next to the attention class, where a model keeps its own, such as soft-capping or sinks."""
    sources = (sys.modules.get(cls.__module__) for cls in type(module).__mro__)
    eager = next(m.eager_attention_forward for m in sources if hasattr(m, "eager_attention_forward"))
    return eager(module, *args, **kwargs)


AttentionInterface.register(_SPLIT_NAMES["sdpa"], partial(_attention, base=sdpa_attention_forward))


AttentionInterface.register(_SPLIT_NAMES["eager"], partial(_attention, base=_model_eager))


AttentionMaskInterface.register(_SPLIT_NAMES["sdpa"], partial(_mask, base=sdpa_mask))


AttentionMaskInterface.register(_SPLIT_NAMES["eager"], partial(_mask, base=eager_mask))


def transformer_of(model: nn.Module) -> PreTrainedModel:
    """The transformers model inside PEFT, DDP, DeepSpeed, FSDP or torch.compile wrappers."""
    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            return module
    raise ValueError(f"there is no transformers model inside {type(model).__name__}")
