"""Continuations of prompts by a model that cannot hold them in one row: the cache of the prompt is repeated.

Layers that carry a state along the row (linear attention, state spaces, convolutions, as in Qwen3.5, LFM2, Granite 4,
Falcon-H1 or Nemotron-H) cannot hide one suffix from the next. But all that a continuation needs of its prompt is in
the cache: keys, values and states. So a prompt is processed once, and its K continuations as rows of their own, each
from a copy of its cache:

    [prompt] → cache → [continuation 1], …, [continuation K]

Gradients reach the prompt through the cache. Both steps are one call of the model, however it is wrapped. Whether the
cache of a model can be repeated is found on its first prompt, which is also processed without a cache
(`repeats_cache`): some models drop their state before several tokens, and some have no cache of this kind.
"""

import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.nn.functional import pad
from transformers.utils import ModelOutput

from autorater.models.cache_copies import rows_of
from autorater.models.checkpointed_cache import can_checkpoint_with_cache, checkpointing_with_cache, is_checkpointing
from autorater.models.same_scores import difference
from autorater.models.split_attention import transformer_of
from autorater.prompts.batching import prompt_positions

_LEAST_TOLERANCE = 1e-3  # float32: linear attention adds in chunks, whose limits are elsewhere in a continuation
_CHECKED = 2  # continuations of the first prompt
_NO_CACHE_OF_THIS_KIND = (AttributeError, IndexError, NotImplementedError, RuntimeError, TypeError, ValueError)
_repeats: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()  # models that were checked


class Beginning:
    """The cache after tokens that all prompts of a job begin with, in one row, without gradients.

    Args:
        model: As in `continued_logits`; its weights must not change meanwhile.
        tokens: At least one token id.
    """

    @torch.no_grad()
    def __init__(self, model: nn.Module, tokens: Sequence[int]):
        self.size = len(tokens)
        ids = torch.tensor([list(tokens)], device=next(model.parameters()).device)
        self.cache = model(input_ids=ids, use_cache=True, logits_to_keep=1).past_key_values


def continued_logits(
    model: nn.Module,
    prompt_ids: torch.Tensor,
    prompt_mask: torch.Tensor,
    continuations: torch.Tensor,
    beginning: Beginning | None = None,
    max_tokens: int = sys.maxsize,
) -> torch.Tensor:
    """Next-token logits after every prompt and after every token of its continuations, in one call, with gradients.

    Args:
        model: A causal language model, bare or wrapped, for which `repeats_cache` holds.
        prompt_ids, prompt_mask: Left-padded prompts and 1 for a token, 0 for padding, shape (B, L).
        continuations: K rows of D tokens, the same after every prompt; padded on the right with any tokens.
        beginning: What all prompts begin with; they then have no padding and at least one more token.
        max_tokens: Tokens of prompts and continuations whose caches are in memory at the same time; at least those of
            one continuation.

    Returns:
        Logits of shape (B, K, 1 + D, V): `[:, :, 0]` after the prompt, the same for all K.
    """
    known = 0 if beginning is None else beginning.size
    inputs = {
        "input_ids": prompt_ids[:, known:],
        "attention_mask": prompt_mask,
        "position_ids": prompt_positions(prompt_mask)[:, known:],
        "logits_to_keep": 1,
        "use_cache": True,
    }
    if beginning is not None:
        rows = torch.zeros(len(prompt_ids), dtype=torch.long, device=prompt_ids.device)
        inputs["past_key_values"] = rows_of(beginning.cache, rows)
    length = continuations.shape[1]
    ids = pad(continuations, (0, max(0, 2 - length)))  # for one token some models take a way without gradients
    at_once = max(1, max_tokens // (len(prompt_ids) * (prompt_ids.shape[1] + ids.shape[1])))
    with _continuing(transformer_of(model), ids.split(at_once)):
        return model(**inputs).logits[:, :, : 1 + length]


def repeats_cache(model: nn.Module, prompt: torch.Tensor, continuations: torch.Tensor, plain: Callable) -> bool:
    """Whether the cache of a model can be repeated; found once, with a warning if not.

    Args:
        model: As in `continued_logits`.
        prompt: Token ids of a prompt, shape (L,), at least two.
        continuations: As in `continued_logits`.
        plain: `plain(model, prompt_ids, prompt_mask, continuations)` gives the logits of `continued_logits`.
    """
    base, reason = transformer_of(model), ""
    if is_checkpointing(base) and not can_checkpoint_with_cache(base):
        reason = "its layers cannot be checkpointed with it"
    elif base not in _repeats:
        reason = _obstacle(model, prompt[None], continuations[:_CHECKED], plain)
        _repeats[base] = not reason
    if reason:  # Python shows the same warning once
        warnings.warn(
            f"{type(base).__name__} processes a prompt again for each of its {len(continuations)} answers: its "
            f"cache cannot be repeated, {reason}",
            RuntimeWarning,
            stacklevel=2,
        )
    return not reason and _repeats[base]


@torch.no_grad()
def _obstacle(model: nn.Module, prompt_ids: torch.Tensor, continuations: torch.Tensor, plain: Callable) -> str:
    """Why the cache of a model cannot be repeated, or nothing."""
    prompt_mask = torch.ones_like(prompt_ids)

    def in_three_parts(bare: nn.Module) -> torch.Tensor:
        half = Beginning(bare, prompt_ids[0, : prompt_ids.shape[1] // 2].tolist())
        return continued_logits(bare, prompt_ids, prompt_mask, continuations, half)

    try:
        found, tolerance = difference(
            model, in_three_parts, lambda bare: plain(bare, prompt_ids, prompt_mask, continuations)
        )
    except torch.OutOfMemoryError:
        raise
    except _NO_CACHE_OF_THIS_KIND as error:
        return f"{type(error).__name__}: {error}"
    tolerance = max(tolerance, _LEAST_TOLERANCE)
    return "" if found <= tolerance else f"log-probabilities differ by {found:.1e}, tolerance {tolerance:.0e}"


@contextmanager
def _continuing(base: nn.Module, parts: Sequence[torch.Tensor]) -> Iterator[None]:
    """Within it, a call of the model on prompts continues them too; `parts` are rows of continuations."""
    own = base.__dict__.get("forward")  # accelerate sets one, for mixed precision
    base.forward = partial(_read_and_continue, base.forward, parts)
    checkpointing = checkpointing_with_cache(base) if is_checkpointing(base) else nullcontext()
    try:
        with checkpointing:
            yield
    finally:
        if own is None:
            del base.forward
        else:
            base.forward = own


def _read_and_continue(
    forward: Callable,
    parts: Sequence[torch.Tensor],
    attention_mask: torch.Tensor,
    position_ids: torch.Tensor,
    **inputs,
) -> ModelOutput:
    """The output of `forward` on B prompts, with the logits (B, K, 1 + D, V) of `continued_logits`."""
    output = forward(attention_mask=attention_mask, position_ids=position_ids, **inputs)
    prompts, logits = torch.arange(len(attention_mask), device=attention_mask.device), []
    for ids in parts:
        rows, length = prompts.repeat_interleave(len(ids)), ids.shape[1]  # B · K
        continued = forward(
            input_ids=ids.repeat(len(prompts), 1),
            attention_mask=pad(attention_mask[rows], (0, length), value=1),
            position_ids=position_ids[rows, -1:] + 1 + torch.arange(length, device=ids.device),
            past_key_values=rows_of(output.past_key_values, rows),
            use_cache=True,
        )
        logits.append(continued.logits.unflatten(0, (len(prompts), -1)))
    continued = torch.cat(logits, dim=1)  # (B, K, D, V)
    of_prompts = output.logits[:, -1:, None].expand(-1, continued.shape[1], -1, -1)
    output.logits, output.past_key_values = torch.cat([of_prompts, continued], dim=2), None
    return output
