"""Many prompts with the same suffixes, read at the price of their distinct tokens, without gradients.

The prompts of a judge begin alike: all with the instructions, those of one question with the question, those of one
first response with that response too. In sorted order, a prompt is read from where it leaves the one before it. These
tokens stand in one row without padding, behind the beginning of all prompts, whose keys and values are cached:

    [new tokens of prompt 1 | its suffixes | new tokens of prompt 2 | its suffixes | …]

Attention alone has a row for every prompt: from its new tokens and suffixes to its whole path, whose keys are gathered
(`autorater.models.split_attention.TreeLayout`). Related: the radix tree of SGLang (arXiv 2312.07104), which keeps the
keys and values of shared beginnings between requests.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from autorater.models.prefix_cache import PrefixCache
from autorater.models.split_attention import (
    AttentionRows,
    TreeLayout,
    enable_shared_prefix,
    split_logits,
    transformer_of,
)
from autorater.models.suffixes import Suffixes
from autorater.prompts.beginnings import common_beginning, shared_length

_LONGEST_TO_SHORTEST = 1.2  # queries of the rows that attend together, which are padded to the longest


@dataclass(frozen=True)
class _Row:
    """A prompt in attention: places of its queries among the tokens, and of its keys behind the cached ones."""

    queries: list[int]
    keys: list[int]


@torch.no_grad()
def read_suffixes(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    suffixes: Suffixes,
    prefix_cache: PrefixCache | None = None,
) -> torch.Tensor:
    """Next-token logits after B prompts, given as token ids, and after the S suffix tokens of each.

    Args:
        model: A causal language model in eval mode, bare or wrapped.
        prompts: At least one token each.
        suffixes: The same after all prompts.
        prefix_cache: What it holds of the common beginning is not read again.

    Returns:
        Logits of shape (B, 1 + S, V), as `autorater.models.shared_prefix.suffix_logits` gives them.

    Raises:
        UserError: If `supports_shared_prefix` refuses the model.
        RuntimeError: If the model built its attention mask without transformers' interface.
    """
    enable_shared_prefix(model)
    device = next(model.parameters()).device
    is_long = _beyond_short_context(model, prompts, suffixes)
    if any(is_long) and not all(is_long):
        return _by_context(model, prompts, suffixes, is_long)
    beginning = [] if any(is_long) else common_beginning([prompt[:-1] for prompt in prompts])
    cache = (prefix_cache or PrefixCache(model)).read(beginning) if beginning else DynamicCache()
    cached = len(beginning)
    ids, columns, rows, kept = _packed(prompts, suffixes, beginning)
    layout = TreeLayout(
        torch.tensor(columns, device=device),
        [_attention_rows(group, suffixes.visible, device) for group in _of_similar_size(rows)],
        cached,
    )
    input_ids = torch.tensor([ids], device=device)
    logits = split_logits(
        model,
        layout,
        input_ids=input_ids,
        # without a mask, transformers takes positions that restart for packed texts and hides the beginning
        attention_mask=torch.ones(1, cached + len(ids), dtype=torch.long, device=device),
        position_ids=layout.columns[None],
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=kept.flatten().to(device),
    )
    return logits[0].unflatten(0, kept.shape)


def _by_context(
    model: nn.Module, prompts: Sequence[Sequence[int]], suffixes: Suffixes, is_long: list[bool]
) -> torch.Tensor:
    """As `read_suffixes`, with a call for the prompts that are long by `_beyond_short_context`, and one for others."""
    rows, n_short = sorted(range(len(prompts)), key=is_long.__getitem__), is_long.count(False)
    kinds = ([prompts[i] for i in some] for some in (rows[:n_short], rows[n_short:]))
    return torch.cat([read_suffixes(model, kind, suffixes) for kind in kinds])[torch.tensor(rows).argsort()]


def _packed(
    prompts: Sequence[Sequence[int]], suffixes: Suffixes, beginning: Sequence[int]
) -> tuple[list[int], list[int], list[_Row], torch.Tensor]:
    """B prompts behind their common beginning, each with S suffix tokens, in a row of their N distinct tokens.

    Returns:
        The token ids, and the position of each in its prompt, N numbers each; the rows of attention; and of every
        prompt the places, among the N, of its last token and of its suffixes, shape (B, 1 + S).
    """
    suffix_ids, depth, cached = suffixes.input_ids.tolist(), suffixes.depth.tolist(), len(beginning)
    ids, columns, rows = [], [], []
    kept = torch.empty(len(prompts), 1 + len(depth), dtype=torch.long)
    path: list[int] = []  # places in `ids` of the tokens of a prompt behind the beginning
    previous = beginning
    for i in sorted(range(len(prompts)), key=prompts.__getitem__):
        prompt = prompts[i]
        shared, length, start = shared_length(previous, prompt), len(prompt), len(ids)
        previous = prompt
        ids += [*prompt[shared:], *suffix_ids]
        columns += [*range(shared, length), *(length + d for d in depth)]
        own = range(start + length - shared, len(ids))  # the suffixes
        path = [*path[: shared - cached], *range(start, own.start)]
        if start < len(ids):  # it is not the prompt before, without suffixes
            rows.append(_Row([*range(start, len(ids))], [*range(cached), *(cached + k for k in (*path, *own))]))
        kept[i] = torch.tensor([path[-1], *own])
    return ids, columns, rows, kept


def _beyond_short_context(model: nn.Module, prompts: Sequence[Sequence[int]], suffixes: Suffixes) -> list[bool]:
    """Whether a prompt with its suffixes is read with the long rotary embeddings of a `longrope` model.

    transformers chooses them for a whole call, by its largest position.
    """
    rope = getattr(transformer_of(model).config, "rope_parameters", None) or {}
    if rope.get("rope_type") != "longrope":
        return [False] * len(prompts)
    deepest = suffixes.depth.max().item() + 1 if len(suffixes.depth) else 0
    return [len(prompt) + deepest > rope["original_max_position_embeddings"] for prompt in prompts]


def _of_similar_size(rows: list[_Row]) -> Iterator[list[_Row]]:
    group: list[_Row] = []
    for row in sorted(rows, key=lambda row: -len(row.queries)):
        if group and len(group[0].queries) > _LONGEST_TO_SHORTEST * len(row.queries):
            yield group
            group = []
        group.append(row)
    yield group


def _attention_rows(rows: list[_Row], visible: torch.Tensor, device: torch.device) -> AttentionRows:
    """Rows padded on the left, so that the suffixes of all are in the same columns; `visible` as in `Suffixes`."""

    def padded(places: list[list[int]], value: int) -> torch.Tensor:
        tensors = [torch.tensor(row) for row in places]
        return pad_sequence(tensors, batch_first=True, padding_value=value, padding_side="left").to(device)

    queries = padded([row.queries for row in rows], -1)  # (R, T)
    keys = padded([row.keys for row in rows], -1)  # (R, K)
    seen = (keys >= 0)[:, None].repeat(1, queries.shape[1], 1)
    seen[:, queries.shape[1] - len(visible) :, keys.shape[1] - len(visible) :] &= visible.to(device)
    return AttentionRows(queries, keys.clamp(min=0), seen)
