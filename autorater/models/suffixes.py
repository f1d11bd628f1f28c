"""Layouts of the suffixes of a prompt: independent branches, a tree, or branches with a tree after each."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Suffixes:
    """Tokens after a prompt and the attention among them. Without the batch axis they are the same for every prompt.

    Attributes:
        input_ids: Suffix tokens, shape (B, S) or (S,).
        depth: Distance from the end of the prompt, from 0; shape (B, S) or (S,).
        visible: `visible[i, j]` is whether suffix token i attends to suffix token j (also for j = i), bool, shape
            (B, S, S) or (S, S). Tokens deeper than i are always hidden.
    """

    input_ids: torch.Tensor
    depth: torch.Tensor
    visible: torch.Tensor

    def of_first(self, n: int) -> "Suffixes":
        """The suffixes of the first n prompts."""
        dims = {"input_ids": 2, "depth": 2, "visible": 3}
        tensors = {name: getattr(self, name) for name in dims}
        return Suffixes(**{name: x[:n] if x.dim() == dims[name] else x for name, x in tensors.items()})


def branch_suffixes(
    completion_ids: torch.Tensor, completion_mask: torch.Tensor, tree: Suffixes | None = None
) -> Suffixes:
    """G independent completions of every prompt, packed to S = G · C; ids and mask right-padded, shape (B, G, C).

    With a tree of T tokens, from `tree_suffixes`, the same tree follows every completion: S = G · C + G · T.
    """
    batch, group, length = completion_ids.shape
    device = completion_ids.device
    causal = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    same_branch = torch.block_diag(*[causal] * group).bool()  # (G·C, G·C)
    is_token = completion_mask.reshape(batch, 1, -1).bool()  # (B, 1, G·C)
    itself = torch.eye(group * length, dtype=torch.bool, device=device)
    ids, depth = completion_ids.reshape(batch, -1), torch.arange(length, device=device).repeat(group)
    visible = (same_branch & is_token) | itself
    if tree is None:
        return Suffixes(ids, depth, visible)
    size = len(tree.input_ids)
    sees_chain = completion_mask.bool().repeat_interleave(size, dim=1)  # (B, G·T, C): all of its own branch
    own = torch.eye(group, dtype=torch.bool, device=device).repeat_interleave(size, dim=0)  # (G·T, G)
    sees_chain = (own[None, :, :, None] & sees_chain[:, :, None, :]).flatten(2)  # (B, G·T, G·C)
    sees_tree = torch.block_diag(*[tree.visible.to(device)] * group).bool().expand(batch, -1, -1)
    above = torch.cat([visible, visible.new_zeros(batch, group * length, group * size)], dim=2)
    node_depth = completion_mask.sum(dim=2, keepdim=True) + tree.depth.to(device)  # (B, G, T)
    return Suffixes(
        input_ids=torch.cat([ids, tree.input_ids.to(device).repeat(batch, group)], dim=1),
        depth=torch.cat([depth.expand(batch, -1), node_depth.flatten(1)], dim=1),
        visible=torch.cat([above, torch.cat([sees_chain, sees_tree], dim=2)], dim=1),
    )


def tree_suffixes(tokens: torch.Tensor, parents: torch.Tensor) -> Suffixes:
    """A tree of tokens, the same after every prompt: a node attends to itself and to its ancestors.

    Args:
        tokens: Token of every node, shape (S,).
        parents: Index of every node's parent, −1 for the prompt, shape (S,); parents come first, else a `ValueError`.
    """
    size = len(tokens)
    depth = torch.zeros(size, dtype=torch.long)
    visible = torch.eye(size, dtype=torch.bool)
    for node, parent in enumerate(parents.tolist()):
        if not -1 <= parent < node:
            raise ValueError(f"parent of node {node} must be -1 or a node before it, got {parent}")
        if parent >= 0:
            depth[node] = depth[parent] + 1
            visible[node] |= visible[parent]
    return Suffixes(tokens, depth.to(tokens.device), visible.to(tokens.device))


def before_branches(group: int, length: int) -> torch.Tensor:
    """Index in (1 + G · C) logits of the one that predicts each packed token, 0 for first tokens; shape (G · C,)."""
    before = torch.arange(group * length)
    return before.masked_fill(before % length == 0, 0)
