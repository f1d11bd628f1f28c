"""Continuations of prompts by a model that cannot hold them in one row: the cache of the prompt is repeated.

Layers that carry a state along the row (linear attention, state spaces, convolutions, as in Qwen3.5, LFM2, Granite 4,
Falcon-H1 or Nemotron-H) cannot hide one suffix from the next. But all that a continuation needs of its prompt is in
the cache: keys, values and states. So a prompt is processed once, and what follows it in rows of their own, each from
a copy of its cache:

    [prompt] → cache → [continuation 1], …, [continuation K]          with gradients, which reach the prompt
    [prompt] → cache → [nodes of depth 0] → caches → [of depth 1] → …      a tree, without gradients

All steps are one call of the model, however it is wrapped. With gradients several tokens are read at a time, because
single ones, as in generation, can go through kernels without a backward pass. Whether the cache of a model can be
repeated is found on its first prompt, which is also processed without a cache (`repeats_cache`): some models drop
their state before several tokens, let padding into it, or have no cache of this kind.
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
from transformers import Cache
from transformers.utils import ModelOutput

from autorater.models.cache_copies import rows_of
from autorater.models.checkpointed_cache import can_checkpoint_with_cache, checkpointing_with_cache, is_checkpointing
from autorater.models.same_scores import difference
from autorater.models.shared_prefix import logps_and_entropies, whole_sequences
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
    model: nn.Module, prompt_ids: torch.Tensor, prompt_mask: torch.Tensor, continuations: torch.Tensor
) -> torch.Tensor:
    """Next-token logits after every prompt and after every token of its continuations, in one call, with gradients.

    Args:
        model: A causal language model, bare or wrapped, for which `repeats_cache` holds.
        prompt_ids, prompt_mask: Left-padded prompts and 1 for a token, 0 for padding, shape (B, L).
        continuations: K rows of D tokens, padded on the right with any tokens, shape (B, K, D), or (K, D) if they are
            the same after every prompt.

    Returns:
        Logits of shape (B, K, 1 + D, V): `[:, :, 0]` after the prompt, the same for all K.
    """
    return logits_along_and_behind(model, prompt_ids, prompt_mask, 1, continuations)[1]


def logits_along_and_behind(
    model: nn.Module, prompt_ids: torch.Tensor, prompt_mask: torch.Tensor, last: int, continuations: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Next-token logits after each of the last tokens of every prompt, shape (B, `last`, V), and `continued_logits`.

    In one call, with gradients: for prompts that end with something to learn, such as a reasoning.
    """
    n_rows, length = continuations.shape[-2:]
    ids = pad(continuations, (0, max(0, 2 - length)))  # for one token some models take a way without gradients
    logits = _call(model, prompt_ids, prompt_mask, partial(_read_rows, ids, last), last=last)
    along, behind = logits[:, :last], logits[:, last:].unflatten(1, (n_rows, -1))[:, :, :length]
    of_prompts = along[:, -1:, None].expand(-1, n_rows, -1, -1)
    return along, torch.cat([of_prompts, behind], dim=2)


def repeated_prompt_logps(
    model: nn.Module,
    prompt_ids: torch.Tensor,
    prompt_mask: torch.Tensor,
    completion_ids: torch.Tensor,
    completion_mask: torch.Tensor,
    temperature: float = 1.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`autorater.models.shared_prefix.shared_prefix_logps`, the cache of every prompt repeated for its completions."""
    logits = continued_logits(model, prompt_ids, prompt_mask, completion_ids).flatten(0, 1)  # (B · G, 1 + C, V)
    before = torch.arange(completion_ids.shape[-1])
    return logps_and_entropies(logits, before, completion_ids, completion_mask, temperature)


@torch.no_grad()
def read_nodes(
    model: nn.Module,
    prompt_ids: torch.Tensor,
    prompt_mask: torch.Tensor,
    tokens: Sequence[int],
    parents: Sequence[int],
    beginning: Beginning | None = None,
    max_tokens: int = sys.maxsize,
) -> torch.Tensor:
    """Next-token logits after every prompt and after every node of a tree of S tokens behind it, without gradients.

    The tree is read from level to level, every node once.

    Args:
        model, prompt_ids, prompt_mask: As in `continued_logits`.
        tokens, parents: Token of every node and its parent, −1 for the prompt; parents come first.
        beginning: What all prompts begin with; they then have no padding and at least one more token.
        max_tokens: Tokens of the prompts whose caches are copied at the same time, at least one of each prompt.

    Returns:
        Logits of shape (B, 1 + S, V).
    """
    at_once = max(1, max_tokens // prompt_ids.numel())
    return _call(model, prompt_ids, prompt_mask, partial(_read_levels, tokens, parents, at_once), beginning)


def repeats_cache(model: nn.Module, prompt: torch.Tensor | Sequence[int], continuations: torch.Tensor) -> bool:
    """Whether the cache of a model can be repeated; found once, with a warning if not.

    Args:
        model: As in `continued_logits`.
        prompt: L token ids of a prompt. One of a single token has no beginning, and nothing is found on it.
        continuations: As in `continued_logits`, shape (K, D).
    """
    if len(prompt) < 2:
        return False
    base, reason = transformer_of(model), ""
    if is_checkpointing(base) and not can_checkpoint_with_cache(base):
        reason = "its layers cannot be checkpointed with it"
    elif base not in _repeats:
        device = next(model.parameters()).device
        reason = _obstacle(model, torch.as_tensor(prompt, device=device)[None], continuations[:_CHECKED].to(device))
        _repeats[base] = not reason
    if reason:  # Python shows the same warning once
        warnings.warn(
            f"{type(base).__name__} processes a prompt again for each of its {len(continuations)} answers: its "
            f"cache cannot be repeated, {reason}",
            RuntimeWarning,
            stacklevel=2,
        )
    return not reason and _repeats[base]


def is_known_to_repeat(model: nn.Module) -> bool:
    """Whether `repeats_cache` has found that the cache of a model can be repeated."""
    return _repeats.get(transformer_of(model), False)


@torch.no_grad()
def _obstacle(model: nn.Module, prompt_ids: torch.Tensor, continuations: torch.Tensor) -> str:
    """Why the cache of a model cannot be repeated, or nothing."""
    prompt_mask = torch.ones_like(prompt_ids)
    padded = pad(prompt_ids, (1, 0)), pad(prompt_mask, (1, 0))

    def repeated(bare: nn.Module) -> torch.Tensor:
        chain = continuations[0].tolist()
        half = Beginning(bare, prompt_ids[0, : prompt_ids.shape[1] // 2].tolist())
        read = read_nodes(bare, prompt_ids, prompt_mask, chain, range(-1, len(chain) - 1), half)
        return torch.cat([continued_logits(bare, *padded, continuations), read[:, None]], dim=1)

    def whole(bare: nn.Module) -> torch.Tensor:
        logits = whole_sequences(bare, prompt_ids, prompt_mask, continuations)
        return torch.cat([logits, logits[:, :1]], dim=1)

    try:
        found, tolerance = difference(model, repeated, whole)
    except torch.OutOfMemoryError:
        raise
    except _NO_CACHE_OF_THIS_KIND as error:
        return f"{type(error).__name__}: {error}"
    tolerance = max(tolerance, _LEAST_TOLERANCE)
    return "" if found <= tolerance else f"log-probabilities differ by {found:.1e}, tolerance {tolerance:.0e}"


def _call(
    model: nn.Module,
    prompt_ids: torch.Tensor,
    prompt_mask: torch.Tensor,
    read_on: Callable[..., torch.Tensor],
    beginning: Beginning | None = None,
    last: int = 1,
) -> torch.Tensor:
    """What `read_on(forward, output, attention_mask, position_ids)` returns, in one call of the model on prompts.

    The output has the logits of the last tokens of the prompts, so many as `last`.
    """
    known = 0 if beginning is None else beginning.size
    inputs = {
        "input_ids": prompt_ids[:, known:],
        "attention_mask": prompt_mask,
        "position_ids": prompt_positions(prompt_mask)[:, known:],
        "logits_to_keep": last,
        "use_cache": True,
    }
    if beginning is not None:
        rows = torch.zeros(len(prompt_ids), dtype=torch.long, device=prompt_ids.device)
        inputs["past_key_values"] = rows_of(beginning.cache, rows)
    with _reading_on(transformer_of(model), read_on):
        return model(**inputs).logits


@contextmanager
def _reading_on(base: nn.Module, read_on: Callable[..., torch.Tensor]) -> Iterator[None]:
    """Within it, the logits of a call are those of `read_on`."""
    own = base.__dict__.get("forward")  # accelerate sets one, for mixed precision
    base.forward = partial(_forward, base.forward, read_on)
    checkpointing = checkpointing_with_cache(base) if is_checkpointing(base) else nullcontext()
    try:
        with checkpointing:
            yield
    finally:
        if own is None:
            del base.forward
        else:
            base.forward = own


def _forward(
    forward: Callable,
    read_on: Callable[..., torch.Tensor],
    attention_mask: torch.Tensor,
    position_ids: torch.Tensor,
    **inputs,
) -> ModelOutput:
    output = forward(attention_mask=attention_mask, position_ids=position_ids, **inputs)
    output.logits = read_on(forward, output, attention_mask, position_ids)
    output.past_key_values = None
    return output


def _read_rows(
    continuations: torch.Tensor,
    last: int,
    forward: Callable,
    output: ModelOutput,
    attention_mask: torch.Tensor,
    position_ids: torch.Tensor,
) -> torch.Tensor:
    """The last logits of the output, and those of continuations (B, K, D) or (K, D): (B, last + K · D, V)."""
    batch, (n_rows, length) = len(attention_mask), continuations.shape[-2:]
    rows = torch.arange(batch, device=continuations.device).repeat_interleave(n_rows)
    read = forward(
        input_ids=continuations.expand(batch, -1, -1).flatten(0, 1),
        attention_mask=pad(attention_mask[rows], (0, length), value=1),
        position_ids=position_ids[rows, -1:] + 1 + torch.arange(length, device=rows.device),
        past_key_values=rows_of(output.past_key_values, rows),
        use_cache=True,
    )
    return torch.cat([output.logits[:, -last:], read.logits.unflatten(0, (batch, n_rows)).flatten(1, 2)], dim=1)


def _read_levels(
    tokens: Sequence[int],
    parents: Sequence[int],
    at_once: int,
    forward: Callable,
    output: ModelOutput,
    attention_mask: torch.Tensor,
    position_ids: torch.Tensor,
) -> torch.Tensor:
    """The logits of `read_nodes`."""
    batch, device = len(attention_mask), attention_mask.device
    logits = {-1: output.logits[:, -1]}
    children: dict[int, list[int]] = {}
    for node, parent in enumerate(parents):
        children.setdefault(parent, []).append(node)

    def descend(cache: Cache, above: Sequence[int], depth: int) -> None:
        """Reads what is below nodes; row i · B + b of their cache is node `above[i]` after prompt b."""
        below = [(i, node) for i, parent in enumerate(above) for node in children.get(parent, ())]
        for start in range(0, len(below), at_once):
            places, nodes = zip(*below[start : start + at_once], strict=True)
            rows = torch.tensor(places, device=device)[:, None] * batch + torch.arange(batch, device=device)
            ids = torch.tensor([tokens[node] for node in nodes], device=device).repeat_interleave(batch)
            read = forward(
                input_ids=ids[:, None],
                attention_mask=pad(attention_mask.repeat(len(nodes), 1), (0, depth + 1), value=1),
                position_ids=position_ids[:, -1:].repeat(len(nodes), 1) + 1 + depth,
                past_key_values=rows_of(cache, rows.flatten()),
                use_cache=True,
            )
            logits.update(zip(nodes, read.logits[:, -1].unflatten(0, (-1, batch)), strict=True))
            descend(read.past_key_values, nodes, depth + 1)

    descend(output.past_key_values, [-1], 0)
    return torch.stack([logits[node] for node in range(-1, len(tokens))], dim=1)
