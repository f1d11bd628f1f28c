"""Layouts of suffixes behind a prompt: independent branches, a tree, branches with a tree behind each."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Suffixes:
    """Tokens behind a prompt and who of them sees whom. Without the batch axis they are the same for every prompt.

    Attributes:
        input_ids: Suffix tokens, shape (B, S) or (S,).
        depth: Distance behind the prompt from 0, so the position is prompt length + depth; shape (B, S) or (S,).
        visible: `visible[i, j]` says that suffix token i may attend to suffix token j, itself included. A token deeper
            than i stays hidden whatever it says. Shape (B, S, S) or (S, S), bool.
    """

    input_ids: torch.Tensor
    depth: torch.Tensor
    visible: torch.Tensor


def branch_suffixes(completion_ids: torch.Tensor, completion_mask: torch.Tensor) -> Suffixes:
    """G independent chains behind every prompt, packed to S = G · C.

    Args:
        completion_ids: Tokens of the completions, right-padded, shape (B, G, C).
        completion_mask: 1 for a token, 0 for padding, shape (B, G, C).
    """
    batch, group, length = completion_ids.shape
    device = completion_ids.device
    causal = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    same_branch = torch.block_diag(*[causal] * group).bool()  # (S, S)
    is_token = completion_mask.reshape(batch, 1, -1).bool()  # (B, 1, S)
    itself = torch.eye(group * length, dtype=torch.bool, device=device)
    return Suffixes(
        input_ids=completion_ids.reshape(batch, -1),
        depth=torch.arange(length, device=device).repeat(group),
        visible=(same_branch & is_token) | itself,
    )


def tree_suffixes(tokens: torch.Tensor, parents: torch.Tensor) -> Suffixes:
    """A tree of tokens behind the prompt, the same for every prompt: a node sees itself and its ancestors.

    Args:
        tokens: Token of every node, shape (S,).
        parents: Index of every node's parent, −1 for a child of the prompt, shape (S,); parents come first.

    Raises:
        ValueError: If a parent does not come before its child.
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


def branches_with_tree(completion_ids: torch.Tensor, completion_mask: torch.Tensor, tree: Suffixes) -> Suffixes:
    """G chains behind every prompt and the same tree behind the end of each: S = G · C chain and G · T tree tokens.

    Args:
        completion_ids, completion_mask: As in `branch_suffixes`.
        tree: As `tree_suffixes` makes it, T tokens.
    """
    batch, group, length = completion_ids.shape
    size, device = len(tree.input_ids), completion_ids.device
    chains = branch_suffixes(completion_ids, completion_mask)
    sees_chain = completion_mask.bool().repeat_interleave(size, dim=1)  # (B, G·T, C): all of its own branch
    own = torch.eye(group, dtype=torch.bool, device=device).repeat_interleave(size, dim=0)  # (G·T, G)
    sees_chain = (own[None, :, :, None] & sees_chain[:, :, None, :]).flatten(2)  # (B, G·T, G·C)
    sees_tree = torch.block_diag(*[tree.visible.to(device)] * group).bool().expand(batch, -1, -1)
    above = torch.cat([chains.visible, chains.visible.new_zeros(batch, group * length, group * size)], dim=2)
    depth = completion_mask.sum(dim=2, keepdim=True) + tree.depth.to(device)  # (B, G, T)
    return Suffixes(
        input_ids=torch.cat([chains.input_ids, tree.input_ids.to(device).repeat(batch, group)], dim=1),
        depth=torch.cat([chains.depth.expand(batch, -1), depth.flatten(1)], dim=1),
        visible=torch.cat([above, torch.cat([sees_chain, sees_tree], dim=2)], dim=1),
    )


def before_branches(group: int, length: int) -> torch.Tensor:
    """Where the token before every packed token of G chains of C stands, 0 for the prompt's last one; shape (G · C,).

    Token c of a branch is predicted behind token c − 1, the first one of every branch behind the prompt.
    """
    before = torch.arange(group * length)  # packed token s − 1 is the s-th behind the prompt's last one
    return before.masked_fill(before % length == 0, 0)
