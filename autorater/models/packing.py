"""Next-token logits after many prompts, packed into few rows in which common beginnings are read once.

    row = [beginning of all prompts | tree of the rest of some prompts | their last tokens]

The prompts of the responses to one question differ only in the response and what follows it. A row holds as many as
fit; the rows are of similar length, so there is little padding. A token attends to the tokens of its own prompts only
(`autorater.models.split_attention`). The last tokens are in the last columns, where alone the language-model head is
applied. A model that cannot share prompts reads padded rows instead.
"""

from bisect import bisect_left
from collections.abc import Sequence

import torch
from torch import nn

from autorater.models.shared_prefix import prompt_positions, suffix_logits
from autorater.models.split_attention import supports_shared_prefix
from autorater.models.suffixes import Suffixes, tree_suffixes
from autorater.prompts.batching import common_beginning, pad_prompts

_ROW_TOKENS = 512  # attention to other prompts of a row is computed and masked: a sixth of the work at this length


def last_logits(model: nn.Module, prompts: Sequence[list[int]], row_tokens: int = _ROW_TOKENS) -> torch.Tensor:
    """Next-token logits at the end of N distinct prompts, in one module call, with gradients.

    Args:
        model: A causal language model, bare or wrapped.
        prompts: Token ids of the prompts, all beginning with the same token.
        row_tokens: Least size of a row after the common beginning; a row with one prompt may be longer.

    Returns:
        Logits of shape (N, V).
    """
    device = next(model.parameters()).device
    if not supports_shared_prefix(model)[0] or len(prompts) == 1:
        ids, mask = pad_prompts(prompts, 0, device)
        positions = prompt_positions(mask)
        options = {"position_ids": positions, "use_cache": False, "logits_to_keep": 1}
        return model(input_ids=ids, attention_mask=mask, **options).logits[:, -1]
    beginning = common_beginning([prompt[:-1] for prompt in prompts])
    rest = [prompt[len(beginning) :] for prompt in prompts]
    rows = _rows(rest, row_tokens)
    ids = torch.tensor([beginning] * len(rows), device=device)
    suffixes, ends = _suffixes([[rest[i] for i in row] for row in rows])
    logits = suffix_logits(model, ids, torch.ones_like(ids), suffixes, keep=ends)  # (B, G, V)
    places = {i: (b, g) for b, row in enumerate(rows) for g, i in enumerate(row)}
    b, g = torch.tensor([places[i] for i in range(len(prompts))], device=device).T
    return logits[b, g]


def _rows(sequences: Sequence[list[int]], row_tokens: int) -> list[list[int]]:
    """Indices of the sequences of every row: as few rows as their size allows, of similar size."""
    order = sorted(range(len(sequences)), key=lambda i: sequences[i])  # shared beginnings are neighbours
    new, previous = [], []
    for i in order:
        new.append(len(sequences[i]) - _shared(previous, sequences[i]))
        previous = sequences[i]
    alone = [len(sequences[i]) for i in order]

    def divide(capacity: int) -> list[list[int]]:
        rows: list[list[int]] = []
        size = 0
        for i, own, added in zip(order, alone, new, strict=True):
            if rows and size + added <= capacity:
                rows[-1].append(i)
                size += added
            else:
                rows.append([i])
                size = own
        return rows

    fewest = len(divide(row_tokens))
    return divide(1 + bisect_left(range(1, row_tokens), True, key=lambda capacity: len(divide(capacity)) <= fewest))


def _suffixes(rows: Sequence[Sequence[list[int]]]) -> tuple[Suffixes, int]:
    """The trees of B rows with their last tokens in the last G columns, and G."""
    bodies, lasts = [], []
    for sequences in rows:
        tokens, parents, path, previous, last = [], [], [], [], []
        for sequence in sequences:
            del path[_shared(previous, sequence) :]
            for token in sequence[len(path) : -1]:
                parents.append(path[-1] if path else -1)
                path.append(len(tokens))
                tokens.append(token)
            last.append((sequence[-1], path[-1] if path else -1))
            previous = sequence
        bodies.append((tokens, parents))
        lasts.append(last)
    size, ends = max(len(tokens) for tokens, _ in bodies), max(map(len, lasts))
    trees = []
    for (tokens, parents), last in zip(bodies, lasts, strict=True):
        last = last + [(0, -1)] * (ends - len(last))  # padding: tokens that no other token sees
        padding = size - len(tokens)
        ids = [*tokens, *[0] * padding, *(token for token, _ in last)]
        above = [*parents, *[-1] * padding, *(parent for _, parent in last)]
        trees.append(tree_suffixes(torch.tensor(ids), torch.tensor(above)))
    columns = ([getattr(tree, name) for tree in trees] for name in ("input_ids", "depth", "visible"))
    return Suffixes(*map(torch.stack, columns)), ends


def _shared(first: list[int], second: list[int]) -> int:
    """Length of the common beginning of two sequences, without their last tokens."""
    longest = max(min(len(first), len(second)) - 1, 0)
    return next((i for i in range(longest) if first[i] != second[i]), longest)
