"""Batches of prompts of similar length or with the same beginning, padding, and prompts that do not fit."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from autorater.prompts.encoder import EncodedPrompt

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

T = TypeVar("T")


def longest_prompt(model: PreTrainedModel, answer_tokens: int, limit: int | None = None) -> int:
    """Longest prompt, in tokens, that leaves a model room for an answer; at most `limit`."""
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    limits = [n for n in (limit, context and context - answer_tokens) if n is not None]
    return min(limits, default=sys.maxsize)


def drop_long(
    pairs: Sequence[T], prompts: Sequence[tuple[EncodedPrompt, ...]], max_tokens: int
) -> tuple[list[T], list[tuple[EncodedPrompt, ...]], int]:
    """Drops the pairs (or items) that have a prompt of more than `max_tokens` tokens.

    Returns:
        The pairs and prompts that remain, and the number of dropped pairs.
    """
    rows = [i for i, orders in enumerate(prompts) if max(len(prompt.ids) for prompt in orders) <= max_tokens]
    return [pairs[i] for i in rows], [prompts[i] for i in rows], len(pairs) - len(rows)


def similar_lengths(sizes: Sequence[int], budget: int, *, padded: bool = True) -> Iterator[list[int]]:
    """Batches of row indices of prompts of similar size, the largest first.

    Args:
        sizes: Tokens of every prompt including its suffixes.
        budget: Maximum tokens of a batch, including padding; a single prompt may be larger.
        padded: Whether prompts of different size may be in a batch.
    """
    rows: list[int] = []
    for i in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        is_full = rows and (len(rows) + 1) * sizes[rows[0]] > budget
        if is_full or (rows and not padded and sizes[i] != sizes[rows[0]]):
            yield rows
            rows = []
        rows.append(i)
    if rows:
        yield rows


def batches_by_beginning(prompts: Sequence[Sequence[int]], suffix_tokens: int, budget: int) -> Iterator[list[int]]:
    """Batches of row indices in sorted order, in which every prompt shares as much as possible with its neighbours.

    Args:
        prompts: Token ids of N prompts.
        suffix_tokens: Tokens after every prompt.
        budget: Maximum tokens of a batch, shared ones counted for every prompt; a single prompt may be larger.
    """
    rows: list[int] = []
    tokens = 0
    for i in sorted(range(len(prompts)), key=prompts.__getitem__):
        size = len(prompts[i]) + suffix_tokens
        if rows and tokens + size > budget:
            yield rows
            rows, tokens = [], 0
        rows.append(i)
        tokens += size
    if rows:
        yield rows


def pad_prompts(
    prompts: Sequence[list[int]], pad_token_id: int, device: torch.device | str | None = None, side: str = "left"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask of B prompts, padded on the left (or the right): shape (B, L) each."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    rows = [torch.tensor(prompt, dtype=torch.long) for prompt in prompts]
    ids = pad_sequence(rows, batch_first=True, padding_value=pad_token_id, padding_side=side)
    mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True, padding_side=side)
    return ids.to(device), mask.to(device)


def prompt_positions(prompt_mask: torch.Tensor) -> torch.Tensor:
    """Positions of left-padded prompts, counted from the first token, (B, L); 0 at padding."""
    return (prompt_mask.long().cumsum(dim=1) - 1).clamp(min=0)
