"""Rows that share a prompt: grouped, processed with one copy of the prompt, generated with one prefill.

TRL shuffles rows before it splits them into micro-batches, so groups are found by comparing prompts, not by position.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby

import torch
from torch.nn.functional import pad

from autorater.models.repeated_cache import repeated_prompt_logps, repeats_cache
from autorater.models.sharding import in_step
from autorater.models.shared_generation import generate_shared
from autorater.models.shared_prefix import logps_and_entropies, shared_prefix_logps
from autorater.models.split_attention import supports_shared_prefix
from autorater.models.suffixes import before_branches
from autorater.models.token_tree import TokenTree


@contextmanager
def one_prefill(model, repeats: int) -> Iterator[None]:
    """Within it, `model.generate` uses one prefill for rows that repeat a prompt `repeats` times."""

    def generate(input_ids, attention_mask, **kwargs):
        del model.generate  # generate_shared calls the method of the class
        return generate_shared(model, input_ids[::repeats], attention_mask[::repeats], repeats, **kwargs)

    model.generate = generate
    try:
        yield
    finally:
        model.__dict__.pop("generate", None)


@dataclass(frozen=True)
class PromptGroups:
    """Rows `[prompt | completion]` regrouped by equal prompts.

    Attributes:
        prompt_ids, prompt_mask: The U distinct prompts, shape (U, L).
        completion_ids, completion_mask: Their completions, padded with empty ones, shape (U, G, C).
        prompt_of, place: Index of every row's prompt, and its index among that prompt's completions, shape (N,) each.
    """

    prompt_ids: torch.Tensor
    prompt_mask: torch.Tensor
    completion_ids: torch.Tensor
    completion_mask: torch.Tensor
    prompt_of: torch.Tensor
    place: torch.Tensor

    @classmethod
    def of(cls, input_ids: torch.Tensor, attention_mask: torch.Tensor, completion_length: int) -> "PromptGroups":
        """Groups N rows of L + C tokens in any order."""
        split = input_ids.shape[1] - completion_length
        prompts = torch.cat([input_ids[:, :split], attention_mask[:, :split]], dim=1)
        distinct, prompt_of = torch.unique(prompts, dim=0, return_inverse=True)
        same = prompt_of[:, None] == prompt_of[None, :]
        place = same.tril(-1).sum(dim=1)  # rows before this one with the same prompt
        shape = (len(distinct), int(place.max()) + 1, completion_length)
        ids, mask = input_ids.new_zeros(shape), attention_mask.new_zeros(shape)
        ids[prompt_of, place] = input_ids[:, split:]
        mask[prompt_of, place] = attention_mask[:, split:]
        longest = int(distinct[:, split:].sum(dim=1).max())  # left padding common to all prompts is removed
        return cls(
            distinct[:, split - longest : split], distinct[:, 2 * split - longest :], ids, mask, prompt_of, place
        )

    @property
    def size(self) -> int:
        """Completions per prompt, G."""
        return self.completion_ids.shape[1]

    def repeats_cache(self, model) -> bool:
        """Whether a model that cannot share a prompt repeats its cache; found on the first prompt."""
        return repeats_cache(model, self.prompt_ids[0][self.prompt_mask[0].bool()], self.completion_ids[0])

    def first(self) -> tuple[torch.Tensor, ...]:
        return self.prompt_ids[:1], self.prompt_mask[:1], self.completion_ids[:1], self.completion_mask[:1]

    def logps(
        self, model, temperature: float, rows_at_once: int | None, tree: TokenTree | None = None
    ) -> tuple[torch.Tensor, ...]:
        """`shared_prefix_logps` of the rows in their order, shape (N, …) each.

        A model that cannot share a prompt so repeats its cache.
        """
        shares = supports_shared_prefix(model)[0]
        if tree and not shares:
            return self._logps_and_trees(model, temperature, rows_at_once, tree)
        chunks = self._chunks(model, rows_at_once)
        if shares:
            suffixes = tree and tree.suffixes
            parts = (shared_prefix_logps(model, *chunk, temperature, suffixes) for chunk in chunks)
        else:
            parts = (repeated_prompt_logps(model, *chunk, temperature) for chunk in chunks)
        return tuple(torch.cat(part)[self.prompt_of, self.place] for part in zip(*parts, strict=True))

    def _logps_and_trees(
        self, model, temperature: float, rows_at_once: int | None, tree: TokenTree
    ) -> tuple[torch.Tensor, ...]:
        """`logps` of a model that repeats its cache: of whole rows, since completions differ in length.

        The prompt is processed again for each of its completions: padding between a completion and the tree would
        change the state of the model.
        """
        length = int(self.completion_mask.sum(dim=-1).max())  # TRL pads to the longest of several micro-batches
        completion_ids = self.completion_ids[self.prompt_of, self.place, :length]
        completion_mask = self.completion_mask[self.prompt_of, self.place, :length]
        before = (length - completion_mask.sum(dim=1))[:, None] + torch.arange(length, device=completion_ids.device)
        ids = torch.cat([self.prompt_ids[self.prompt_of], completion_ids], dim=1)
        mask = torch.cat([self.prompt_mask[self.prompt_of], completion_mask], dim=1)
        tensors = (*_left_padded(ids, mask), completion_ids, completion_mask, before.clamp(max=length))
        parts = []
        for ids, mask, own_ids, own_mask, own in zip(*(t.split(rows_at_once or len(t)) for t in tensors), strict=True):
            along, nodes = tree.logits_along_and_behind(model, ids, mask, 1 + length)
            parts.append((*logps_and_entropies(along, own, own_ids, own_mask, temperature), nodes))
        *scores, nodes = map(torch.cat, zip(*parts, strict=True))
        return *(pad(x, (0, self.completion_ids.shape[-1] - length)) for x in scores), nodes

    def before_tokens(self, packed: torch.Tensor) -> torch.Tensor:
        """Numbers at the positions before every row's tokens, (N, C), from those of packed rows, (U, L + G · C)."""
        _, group, length = self.completion_ids.shape
        before = self.prompt_ids.shape[1] - 1 + before_branches(group, length)
        return packed[:, before].unflatten(1, (group, length))[self.prompt_of, self.place]

    def _chunks(self, model, rows_at_once: int | None) -> list[tuple[torch.Tensor, ...]]:
        tensors = (self.prompt_ids, self.prompt_mask, self.completion_ids, self.completion_mask)
        if rows_at_once is None:
            return [tensors]
        at_once = max(1, rows_at_once // self.size)
        # chunks repeated to match other processes come after the last prompt and are not indexed
        return in_step(zip(*(tensor.split(at_once) for tensor in tensors), strict=True), model)


def _left_padded(ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows with all padding on the left, and no more of it than the longest row requires."""
    order = mask.argsort(dim=1, stable=True)[:, int((mask == 0).sum(dim=1).min()) :]
    return ids.gather(1, order), mask.gather(1, order)


def repeats_of(prompts: list[list[int]]) -> int:
    """How often every prompt is repeated in succession, if equally often; else 1."""
    runs = {len(list(run)) for _, run in groupby(prompts)}
    return runs.pop() if len(runs) == 1 else 1


def by_group(batch: dict, size: int) -> dict:
    """(N, …) tensors as (N / size, size, …), so that TRL's shuffle along the first dimension moves whole groups."""
    return {k: v.unflatten(0, (-1, size)) if torch.is_tensor(v) and v.ndim else v for k, v in batch.items()}


def by_row(batch: dict) -> dict:
    """The inverse of `by_group`."""
    return {k: v.flatten(0, 1) if torch.is_tensor(v) and v.ndim else v for k, v in batch.items()}
