"""Many prompts with suffixes in one row of input, in which common beginnings stand once.

    input = [beginning of all prompts | row 1 | … | row R],   row = [tree of the rest of some prompts | suffixes]

The prompts of one rubric begin with the same instructions, the two orders of a pair and the responses to a question
with the same question too. A token attends to the tokens of its own prompt only, and its position is that in its own
sequence (`autorater.models.split_attention`). How many prompts share a row is a trade-off: the prompts of a question
are read once in a common row, but attention between unlike prompts of a row is computed and masked.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from autorater.models.split_attention import Layout, enable_shared_prefix, split_logits, transformer_of
from autorater.models.suffixes import Suffixes
from autorater.prompts.beginnings import common_beginning, shared_length

# A layer's matrices cost about 24 h² operations per token of hidden size h, and a visible key 4 h, so that 6 h keys
# cost as much as the matrices; masked attention takes about twice as long per operation.
_KEYS_PER_HIDDEN_SIZE = 3


@dataclass(frozen=True)
class Packing:
    """N prompts as R rows of T tokens behind their common beginning of C tokens.

    Attributes:
        beginning: The C tokens of the common beginning; at most all but the last token of the shortest prompt.
        rows: The prompts of every row, as indices.
        size: Tokens of a row, T, including padding.
        cost: Of a forward pass, in tokens that attend to no other.
        plain_cost: The same with one sequence for every prompt, padded.
    """

    beginning: list[int]
    rows: list[list[int]]
    size: int
    cost: float
    plain_cost: float

    @classmethod
    def of(cls, model: nn.Module, prompts: Sequence[list[int]], n_suffix: int):
        """Packs prompts with `n_suffix` tokens after each into rows of the cheapest size.

        Args:
            model: Its hidden size decides how expensive attention is; bare or wrapped.
        """
        free_keys = _KEYS_PER_HIDDEN_SIZE * transformer_of(model).config.hidden_size

        def cost(rows: int, tokens: int, before: int = 0) -> float:
            return rows * tokens * (free_keys + before + tokens) / free_keys

        beginning = common_beginning([prompt[:-1] for prompt in prompts])
        rest = [prompt[len(beginning) :] for prompt in prompts]
        longest = max(map(len, prompts)) + n_suffix
        plain = cost(len(prompts), longest)
        each = longest - len(beginning)
        options = []
        for rows, size in (_rows(rest, n_suffix, each * 2**k) for k in range(len(prompts).bit_length())):
            total = cost(1, len(beginning)) + cost(len(rows), size, len(beginning))
            options.append(cls(beginning, rows, size, total, plain))
        return min(options, key=lambda packing: packing.cost)

    def logits(self, model: nn.Module, prompts: Sequence[list[int]], suffixes: Suffixes | None = None) -> torch.Tensor:
        """Next-token logits after the N prompts and the S tokens after each, (N, 1 + S, V), in one module call."""
        enable_shared_prefix(model)
        device = next(model.parameters()).device
        common, n_suffix = len(self.beginning), 0 if suffixes is None else suffixes.depth.shape[-1]
        ids = torch.zeros(len(self.rows), self.size, dtype=torch.long, device=device)
        depth = torch.zeros_like(ids)
        visible = torch.eye(self.size, dtype=torch.bool, device=device).repeat(len(self.rows), 1, 1)
        kept = torch.empty(len(prompts), 1 + n_suffix, dtype=torch.long, device=device)
        if suffixes is not None:
            shape = (len(prompts), n_suffix)
            suffix_ids, suffix_depth = (x.to(device).expand(shape) for x in (suffixes.input_ids, suffixes.depth))
            suffix_visible = suffixes.visible.to(device).expand(*shape, n_suffix)
        for r, row in enumerate(self.rows):
            tree = _Tree.of([prompts[i][common:] for i in row])
            n = len(tree.tokens)
            place = torch.arange(n, device=device)
            tokens, depths, below = (torch.tensor(x, device=device) for x in (tree.tokens, tree.depth, tree.below))
            ids[r, :n], depth[r, :n] = tokens, depths
            visible[r, :n, :n] = (place <= place[:, None]) & (place[:, None] < below)
            for g, (i, end) in enumerate(zip(row, tree.ends, strict=True)):
                own = slice(n + g * n_suffix, n + (g + 1) * n_suffix)
                kept[i, 0] = common + r * self.size + end
                if suffixes is not None:
                    kept[i, 1:] = common + r * self.size + torch.arange(own.start, own.stop, device=device)
                    ids[r, own], depth[r, own] = suffix_ids[i], len(prompts[i]) - common + suffix_depth[i]
                    visible[r, own, :n], visible[r, own, own] = visible[r, end, :n], suffix_visible[i]
        start = torch.arange(common, device=device)
        input_ids = torch.cat([torch.tensor(self.beginning, dtype=torch.long, device=device), ids.flatten()])[None]
        logits = split_logits(
            model,
            Layout(common + depth, visible),
            input_ids=input_ids,  # (1, C + R · T)
            attention_mask=torch.ones_like(input_ids),  # without it, restarting positions are taken for packed texts
            position_ids=torch.cat([start, common + depth.flatten()])[None],
            use_cache=False,  # a cache under gradient checkpointing is silently wrong
            logits_to_keep=kept.flatten(),
        )
        return logits[0].unflatten(0, kept.shape)


@dataclass(frozen=True)
class _Tree:
    """Sequences in sorted order as a tree, depth first.

    Attributes:
        tokens, depth: Of every node.
        below: Index after the last node below every node: the nodes that see it are those in between.
        ends: The last node of every sequence.
    """

    tokens: list[int]
    depth: list[int]
    below: list[int]
    ends: list[int]

    @classmethod
    def of(cls, sequences: Sequence[list[int]]) -> "_Tree":
        tokens, depth, below, ends = [], [], [], []
        path: list[int] = []
        previous: list[int] = []
        for sequence in [*sequences, []]:
            shared = shared_length(previous, sequence)
            for node in path[shared:]:
                below[node] = len(tokens)
            del path[shared:]
            for token in sequence[shared:]:
                path.append(len(tokens))
                depth.append(len(path) - 1)
                tokens.append(token)
                below.append(0)
            ends += path[-1:]
            previous = sequence
        return cls(tokens, depth, below, ends)


def _rows(sequences: Sequence[list[int]], n_suffix: int, row_tokens: int) -> tuple[list[list[int]], int]:
    """Indices of the sequences of every row, and its size: as few rows as their size allows, of similar size."""
    order = sorted(range(len(sequences)), key=lambda i: sequences[i])  # shared beginnings are neighbours
    alone = [len(sequences[i]) + n_suffix for i in order]
    before = [[], *(sequences[i] for i in order[:-1])]
    new = [
        size - shared_length(previous, sequences[i]) for i, size, previous in zip(order, alone, before, strict=True)
    ]

    def divide(capacity: int) -> tuple[list[list[int]], int]:
        rows: list[list[int]] = []
        sizes: list[int] = []
        for i, own, added in zip(order, alone, new, strict=True):
            if rows and sizes[-1] + added <= capacity:
                rows[-1].append(i)
                sizes[-1] += added
            else:
                rows.append([i])
                sizes.append(own)
        return rows, max(sizes)

    fewest, low = len(divide(row_tokens)[0]), 1
    while low < row_tokens:  # the smallest capacity with as many rows
        middle = (low + row_tokens) // 2
        low, row_tokens = (low, middle) if len(divide(middle)[0]) <= fewest else (middle + 1, row_tokens)
    return divide(row_tokens)
