"""Logits and log-probabilities of many short suffixes of one long prompt, in one forward pass.

A judge prompt has a thousand tokens, an answer ten. The GRPO loss needs G sampled completions of the same prompt, the
exact answer distribution a tree of answer tokens. Here the prompt and all its suffixes form one row
`[prompt | suffix tokens]`, in which

    a prompt token attends to the prompt up to itself,
    a suffix token i attends to the prompt and to the suffix tokens `visible[i]`,
    position(i) = length of the prompt + depth(i),

so every suffix token has exactly the state that it has at the end of its own unshared sequence, and gradients reach
the prompt through all of them (`autorater.models.split_attention`). Related work: Prefix Grouper (arXiv 2506.05433)
shares a prompt among chains. With dropout, the suffixes of a prompt share the dropout mask of the prompt.
"""

import sys

import torch
from torch import nn

from autorater.models.same_scores import difference
from autorater.models.shared_beginning import packed_logits
from autorater.models.split_attention import Layout, enable_shared_prefix, split_logits
from autorater.models.suffixes import Suffixes, before_branches, branch_suffixes
from autorater.prompts.batching import prompt_positions


def suffix_logits(
    model: nn.Module,
    prompt_ids: torch.Tensor,
    prompt_mask: torch.Tensor,
    suffixes: Suffixes,
) -> torch.Tensor:
    """Next-token logits after every prompt and after every suffix token, in one module call, with gradients.

    Where it saves work, what prompts have in common is processed once too (`autorater.models.shared_beginning`).

    Args:
        model: A causal language model, bare or wrapped (PEFT, DDP, DeepSpeed).
        prompt_ids, prompt_mask: Left-padded prompts and 1 for a token, 0 for padding, shape (B, L).
        suffixes: S tokens after each prompt.

    Returns:
        Logits of shape (B, 1 + S, V): `[:, 0]` after the prompt, `[:, 1 + s]` after suffix token s.

    Raises:
        UserError: If `supports_shared_prefix` refuses the model.
        RuntimeError: If the model built its attention mask without transformers' interface, so nothing was split.
    """
    enable_shared_prefix(model)
    return packed_logits(model, prompt_ids, prompt_mask, suffixes, _unpacked_logits)


def _unpacked_logits(
    model: nn.Module, prompt_ids: torch.Tensor, prompt_mask: torch.Tensor, suffixes: Suffixes
) -> torch.Tensor:
    """`suffix_logits` with one row for every prompt."""
    batch, device = len(prompt_ids), prompt_ids.device
    input_ids = suffixes.input_ids.to(device).expand(batch, -1)  # (B, S)
    depth = suffixes.depth.to(device).expand(batch, -1)  # (B, S)
    positions = prompt_positions(prompt_mask)
    suffix_positions = positions[:, -1:] + 1 + depth
    return split_logits(
        model,
        Layout(prompt_ids.shape[1] + depth, suffixes.visible.to(device)),
        input_ids=torch.cat([prompt_ids, input_ids], dim=1),  # (B, L + S)
        # without a mask, transformers takes positions that restart for packed sequences and hides the prompt
        attention_mask=torch.cat([prompt_mask, prompt_mask.new_ones(input_ids.shape)], dim=1),
        position_ids=torch.cat([positions, suffix_positions], dim=1),
        use_cache=False,  # a cache under gradient checkpointing is silently wrong
        logits_to_keep=1 + input_ids.shape[1],
    )


def shared_prefix_logps(
    model: nn.Module,
    prompt_ids: torch.Tensor,
    prompt_mask: torch.Tensor,
    completion_ids: torch.Tensor,
    completion_mask: torch.Tensor,
    temperature: float = 1.0,
    tree: Suffixes | None = None,
) -> tuple[torch.Tensor, ...]:
    """Log-probabilities of G completions of every prompt, in one module call that reads each prompt once.

    Args:
        model: As in `suffix_logits`.
        prompt_ids, prompt_mask: Left-padded prompts, shape (B, L).
        completion_ids, completion_mask: Right-padded completions, shape (B, G, C).
        temperature: Divides the logits.
        tree: T tokens, from `tree_suffixes`, to read after every completion too.

    Returns:
        Log-probability (nats) of every completion token and entropy (nats) of the distribution it was drawn from, both
        float32 of shape (B, G, C), 0 at padding, with gradients. With a tree, also logits, not divided by
        `temperature`, shape (B, G, 1 + T, V): `[:, :, 0]` after the completion, `[:, :, 1 + t]` after node t.
    """
    batch, group, length = completion_ids.shape
    logits = suffix_logits(model, prompt_ids, prompt_mask, branch_suffixes(completion_ids, completion_mask, tree))
    chains = 1 + group * length
    before = before_branches(group, length)
    scores = logps_and_entropies(logits[:, :chains], before, completion_ids, completion_mask, temperature)
    if tree is None:
        return scores
    branch = torch.arange(group, device=logits.device) * length
    ends = (branch + completion_mask.sum(dim=2)).masked_fill(completion_mask.sum(dim=2) == 0, 0)  # (B, G)
    row = torch.arange(batch, device=logits.device)[:, None]
    nodes = logits[:, chains:].unflatten(1, (group, -1))  # (B, G, T, V)
    return *scores, torch.cat([logits[row, ends][:, :, None], nodes], dim=2)


def plain_logps(
    model: nn.Module,
    prompt_ids: torch.Tensor,
    prompt_mask: torch.Tensor,
    completion_ids: torch.Tensor,
    completion_mask: torch.Tensor,
    temperature: float = 1.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`shared_prefix_logps` with one sequence per completion; requires `position_ids` and `logits_to_keep` only."""
    logits = _unshared_logits(model, prompt_ids, prompt_mask, completion_ids, completion_mask)
    before = torch.arange(completion_ids.shape[-1])
    return logps_and_entropies(logits, before, completion_ids, completion_mask, temperature)


def _unshared_logits(
    model: nn.Module,
    prompt_ids: torch.Tensor,
    prompt_mask: torch.Tensor,
    completion_ids: torch.Tensor,
    completion_mask: torch.Tensor,
) -> torch.Tensor:
    """`plain_logits` of the completions of every prompt, as in `shared_prefix_logps`; shape (B · G, 1 + C, V)."""
    prompts = (x.repeat_interleave(completion_ids.shape[1], dim=0) for x in (prompt_ids, prompt_mask))
    return plain_logits(model, *prompts, completion_ids.flatten(0, 1), completion_mask.flatten(0, 1))


def plain_logits(
    model: nn.Module, prompt_ids: torch.Tensor, prompt_mask: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """Next-token logits after left-padded prompts (N, L) and after C tokens behind each, (N, 1 + C, V); no sharing."""
    positions, length = prompt_positions(prompt_mask), ids.shape[1]
    return model(
        input_ids=torch.cat([prompt_ids, ids], dim=1),  # (N, L + C)
        attention_mask=torch.cat([prompt_mask, mask], dim=1),
        position_ids=torch.cat([positions, positions[:, -1:] + 1 + torch.arange(length, device=ids.device)], dim=1),
        use_cache=False,
        logits_to_keep=1 + length,
    ).logits


def whole_sequences(
    model: nn.Module,
    prompt_ids: torch.Tensor,
    prompt_mask: torch.Tensor,
    continuations: torch.Tensor,
    max_tokens: int = sys.maxsize,
) -> torch.Tensor:
    """Next-token logits after every prompt and every token of its continuations; no sharing.

    Args:
        model: Requires `position_ids` and `logits_to_keep` only.
        prompt_ids, prompt_mask: As in `suffix_logits`.
        continuations: K rows of D tokens, the same after every prompt; padded on the right with any tokens.
        max_tokens: Tokens of a call, at least one sequence of every prompt.

    Returns:
        Logits of shape (B, K, 1 + D, V): `[:, :, 0]` after the prompt.
    """
    at_once = max(1, max_tokens // (len(prompt_ids) * (prompt_ids.shape[1] + continuations.shape[1])))
    parts = []
    for some in continuations.split(at_once):
        prompts = (x.repeat_interleave(len(some), dim=0) for x in (prompt_ids, prompt_mask))
        paths = some.repeat(len(prompt_ids), 1)
        parts.append(plain_logits(model, *prompts, paths, torch.ones_like(paths)).unflatten(0, (-1, len(some))))
    return torch.cat(parts, dim=1)


def check_shared_prefix(
    model: nn.Module,
    prompt_ids: torch.Tensor,
    prompt_mask: torch.Tensor,
    completion_ids: torch.Tensor,
    completion_mask: torch.Tensor,
) -> tuple[float, float]:
    """How far the shared log-probabilities are from the plain ones, and what counts as rounding.

    Compared are the ends of the prompts and all tokens in front of one of a completion
    (`autorater.models.same_scores.difference`); the arguments are those of `shared_prefix_logps`.
    """
    group, length = completion_ids.shape[1:]
    real = completion_mask.bool()

    def shared(bare: nn.Module) -> torch.Tensor:
        suffixes = branch_suffixes(completion_ids, completion_mask)
        logits = suffix_logits(bare, prompt_ids, prompt_mask, suffixes)
        before = logits[:, before_branches(group, length).to(logits.device)].unflatten(1, (group, length))
        return torch.cat([logits[:, 0], before[real]])

    def plain(bare: nn.Module) -> torch.Tensor:
        logits = _unshared_logits(bare, prompt_ids, prompt_mask, completion_ids, completion_mask)
        return torch.cat([logits[::group, 0], logits[:, :-1].unflatten(0, (-1, group))[real]])

    return difference(model, shared, plain)


def logps_and_entropies(
    logits: torch.Tensor,
    before: torch.Tensor,
    completion_ids: torch.Tensor,
    completion_mask: torch.Tensor,
    temperature: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities and entropies as in `shared_prefix_logps`, from logits.

    Args:
        logits: Of N rows, with or without G completions in a row, shape (N, K, V).
        before: Index among K of the logits in front of every one of the T tokens of a row, shape (T,) or (N, T).
        completion_ids, completion_mask: As in `shared_prefix_logps`, N · T tokens.
        temperature: Divides the logits.
    """
    logits = logits.float() / temperature
    normalizer = logits.logsumexp(dim=-1)  # (N, K)
    entropy = normalizer - (logits * (logits - normalizer[..., None]).exp()).sum(dim=-1)
    row = torch.arange(len(logits), device=logits.device)[:, None]
    before = before.to(logits.device).expand(len(logits), -1)
    tokens = completion_ids.reshape(before.shape)
    logps = logits[row, before, tokens] - normalizer.gather(1, before)
    padding = ~completion_mask.bool()
    return tuple(x.view(padding.shape).masked_fill(padding, 0) for x in (logps, entropy.gather(1, before)))
