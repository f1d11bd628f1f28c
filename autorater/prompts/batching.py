"""Batches of prompts of similar length, padding, and prompts that do not fit."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from autorater.prompts.encoder import EncodedPrompt

if TYPE_CHECKING:  # the words of a prompt are also sent to servers, which needs no torch
    import torch
    from transformers import PreTrainedModel

T = TypeVar("T")


def longest_prompt(model: PreTrainedModel, answer_tokens: int, limit: int | None = None) -> int:
    """Longest prompt, in tokens, that leaves a model room for an answer; at most `limit`."""
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    limits = [n for n in (limit, context and context - answer_tokens) if n is not None]
    return min(limits, default=sys.maxsize)


def drop_long(
    pairs: Sequence[T], prompts: Sequence[tuple[EncodedPrompt, EncodedPrompt]], max_tokens: int
) -> tuple[list[T], list[tuple[EncodedPrompt, EncodedPrompt]], int]:
    """Drops the pairs (or items) whose prompt is too long in either order.

    Returns:
        The pairs and prompts that remain, and the number of dropped pairs.
    """
    kept = [
        (pair, both) for pair, both in zip(pairs, prompts, strict=True) if max(len(p.ids) for p in both) <= max_tokens
    ]
    return [pair for pair, _ in kept], [both for _, both in kept], len(pairs) - len(kept)


def similar_lengths(sizes: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Batches of row indices of prompts of similar size, the largest first.

    Args:
        sizes: Tokens of every prompt including its suffixes.
        budget: Maximum tokens of a batch, including padding; a single prompt may be larger.
    """
    rows: list[int] = []
    for i in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        if rows and (len(rows) + 1) * sizes[rows[0]] > budget:
            yield rows
            rows = []
        rows.append(i)
    if rows:
        yield rows


def pad_prompts(
    prompts: Sequence[list[int]], pad_token_id: int, device: torch.device | str | None = None, side: str = "left"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask of B prompts, padded on the left (or the right): shape (B, L) each."""
    import torch

    longest = max(map(len, prompts))

    def filled(row: list[int], filler: int) -> list[int]:
        blank = [filler] * (longest - len(row))
        return blank + row if side == "left" else row + blank

    ids = [filled(prompt, pad_token_id) for prompt in prompts]
    mask = [filled([1] * len(prompt), 0) for prompt in prompts]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)
