"""Many short suffixes behind one long prompt, at the price of about one.

A judge prompt is a thousand tokens, an answer is ten. Two callers need the model behind the same prompt many times:
the GRPO loss (G sampled completions a prompt) and the exact answer distribution (a tree of answer tokens). Here the
prompt and all its suffixes form one row `[prompt | suffix tokens]`, in which

    a prompt token attends to the prompt up to itself,
    a suffix token i attends to the prompt and to the suffix tokens `visible[i]`,
    position(i) = length of the prompt + depth(i),

so every suffix token gets exactly the state it would have at the end of its own unshared sequence, and gradients reach
the prompt through all of them. Attention is computed in two pieces, L × L and S × (L + S); the (L + S)² mask is never
built. Near work: Prefix Grouper (arXiv 2506.05433) shares a prompt among chains; here the suffixes may be a tree.

How it hangs in transformers: `enable_shared_prefix` points the model at an attention function of our own, once and for
good. Without suffixes that function *is* the one the model had. With suffixes, the mask function hands the layers a
`_SplitMask` in place of a tensor. The layout travels as a layer argument, not as global state, because gradient
checkpointing runs the layers again in the backward pass, long after the call has returned. Mask rules of the model
(causal, sliding window, chunks) are evaluated at the unshared coordinates, so a window is as long as it should be.

One-prefill generation (`generate_shared`) shares the prompt in sampling: the cache of one prefill is repeated G times.
Where nothing is learned, prompts share among themselves too: `read_suffixes` reads the beginning that a batch has in
common (the instructions) once, and the rest of every prompt with its suffixes behind the cached keys of it.

Deliberately left out: models that carry a state along the row (Mamba, linear attention, short convolutions), mixtures
of experts with a router loss, encoder-decoders, multimodal wrappers, flash and flex attention.
`supports_shared_prefix` names the reason; the plain path stays open to them. Where dropout is on, the suffixes of a
prompt share its draw on the prompt.
"""

from collections.abc import Sequence
from itertools import takewhile

import torch
from torch import nn
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from autorater.models.split_attention import LAYOUT, Layout, enable_shared_prefix, transformer_of
from autorater.models.suffixes import Suffixes, before_branches, branch_suffixes, branches_with_tree


def suffix_logits(
    model: nn.Module, prompt_ids: torch.Tensor, prompt_mask: torch.Tensor, suffixes: Suffixes, **model_kwargs
) -> torch.Tensor:
    """Next-token logits behind every prompt and behind every suffix token, in one module call.

    Args:
        model: A causal language model, bare or wrapped (PEFT, DDP, DeepSpeed); gradient checkpointing may be on.
        prompt_ids: Left-padded prompts, shape (B, L).
        prompt_mask: 1 for a token, 0 for padding, shape (B, L).
        suffixes: What comes behind them, S tokens.
        model_kwargs: Passed on to the model.

    Returns:
        Logits of shape (B, 1 + S, V): `[:, 0]` behind the prompt, `[:, 1 + s]` behind suffix token s. Gradients flow.

    Raises:
        ValueError: If `supports_shared_prefix` refuses the model.
        RuntimeError: If the model did not ask for its attention mask in the usual way, so nothing was split.
    """
    enable_shared_prefix(model)
    batch, device = len(prompt_ids), prompt_ids.device
    input_ids = suffixes.input_ids.to(device).expand(batch, -1)  # (B, S)
    depth = suffixes.depth.to(device).expand(batch, -1)  # (B, S)
    positions = prompt_positions(prompt_mask)
    suffix_positions = positions[:, -1:] + 1 + depth
    return _split_logits(
        model,
        Layout(prompt_ids.shape[1] + depth, suffixes.visible.to(device)),
        input_ids=torch.cat([prompt_ids, input_ids], dim=1),  # (B, L + S)
        # An explicit mask, or transformers takes positions that start again for packed sequences
        # and cuts the suffixes off from the prompt.
        attention_mask=torch.cat([prompt_mask, prompt_mask.new_ones(input_ids.shape)], dim=1),
        position_ids=torch.cat([positions, suffix_positions], dim=1),
        use_cache=False,  # a cache under gradient checkpointing is silently wrong
        logits_to_keep=1 + input_ids.shape[1],
        **model_kwargs,
    )


def common_beginning(sequences: Sequence[Sequence[int]]) -> list[int]:
    """The tokens that all sequences begin with."""
    return [column[0] for column in takewhile(lambda c: len(set(c)) == 1, zip(*sequences, strict=False))]


@torch.no_grad()
def read_suffixes(model: nn.Module, prompts: Sequence[Sequence[int]], suffixes: Suffixes) -> torch.Tensor:
    """`suffix_logits` for reading only: no gradients, and what all prompts begin with is read once.

    Args:
        model: As in `suffix_logits`, in eval mode.
        prompts: Token ids of B prompts.
        suffixes: What comes behind them, the same for all, S tokens.

    Returns:
        Logits of shape (B, 1 + S, V) as from `suffix_logits`.

    Raises:
        ValueError, RuntimeError: As in `suffix_logits`.
    """
    enable_shared_prefix(model)
    device, batch = next(model.parameters()).device, len(prompts)
    # Padding stands on the right of a prompt, where causal attention does not see it and needs no mask. The last token
    # of a prompt goes with its suffixes, which stand in the same columns for every prompt.
    bodies = [list(prompt[:-1]) for prompt in prompts]
    last = torch.tensor([[prompt[-1]] for prompt in prompts], device=device)
    input_ids = torch.cat([last, suffixes.input_ids.to(device).expand(batch, -1)], dim=1)  # (B, 1 + S)
    depth = pad(1 + suffixes.depth.to(device), (1, 0))
    visible = pad(pad(suffixes.visible.to(device), (0, 0, 1, 0)), (1, 0), value=True)

    common = common_beginning(bodies)
    cache = DynamicCache()  # without the config: no layer forgets what lies behind its window; the mask hides it
    if common:
        model(input_ids=torch.tensor([common], device=device), past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache.batch_repeat_interleave(batch)
    rest_ids = [torch.tensor(body[len(common) :], dtype=torch.long) for body in bodies]
    rest_ids = pad_sequence(rest_ids, batch_first=True).to(device)  # (B, R)
    lengths = torch.tensor([[len(body)] for body in bodies], device=device)
    columns = torch.arange(len(common) + rest_ids.shape[1], device=device)
    is_token = columns < lengths  # (B, C + R)
    positions = columns[len(common) :].minimum(lengths)  # of padding no further than the model can count
    return _split_logits(
        model,
        Layout(lengths + depth, visible, padded="right"),
        input_ids=torch.cat([rest_ids, input_ids], dim=1),
        attention_mask=pad(is_token, (0, input_ids.shape[1]), value=True).long(),
        position_ids=torch.cat([positions, lengths + depth], dim=1),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=input_ids.shape[1],
    )


def _split_logits(model: nn.Module, layout: "Layout", **inputs) -> torch.Tensor:
    """Calls the model with suffixes under way."""
    token = LAYOUT.set(layout)
    try:
        logits = model(**inputs).logits
    finally:
        LAYOUT.reset(token)
    if not layout.used:
        raise RuntimeError(
            f"{type(transformer_of(model)).__name__} built its attention mask without the mask interface"
        )
    return logits


def shared_prefix_logps(
    model: nn.Module,
    prompt_ids: torch.Tensor,
    prompt_mask: torch.Tensor,
    completion_ids: torch.Tensor,
    completion_mask: torch.Tensor,
    temperature: float = 1.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities of G completions behind every prompt, in one module call that reads each prompt once.

    Args:
        model: As in `suffix_logits`.
        prompt_ids, prompt_mask: Left-padded prompts, shape (B, L).
        completion_ids, completion_mask: Right-padded completions, shape (B, G, C).
        temperature: Divides the logits.

    Returns:
        Log-probability (nats) of every completion token and entropy (nats) of the distribution it was drawn from, both
        float32 of shape (B, G, C), 0 at padding. Gradients flow through both.
    """
    logits = suffix_logits(model, prompt_ids, prompt_mask, branch_suffixes(completion_ids, completion_mask))
    return _branch_logps(logits, completion_ids, completion_mask, temperature)


def shared_prefix_logps_and_tree(
    model: nn.Module,
    prompt_ids: torch.Tensor,
    prompt_mask: torch.Tensor,
    completion_ids: torch.Tensor,
    completion_mask: torch.Tensor,
    tree: Suffixes,
    temperature: float = 1.0,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """`shared_prefix_logps`, and the logits behind every completion and every node of a tree behind it, in one call.

    Args:
        tree: As `tree_suffixes` makes it, T tokens.

    Returns:
        Log-probabilities and entropies as in `shared_prefix_logps`, and logits of shape (B, G, 1 + T, V), which
        `temperature` does not touch: `[:, :, 0]` behind the completion, `[:, :, 1 + t]` behind node t.
    """
    batch, group, length = completion_ids.shape
    suffixes = branches_with_tree(completion_ids, completion_mask, tree)
    logits = suffix_logits(model, prompt_ids, prompt_mask, suffixes)
    chains = 1 + group * length
    branch = torch.arange(group, device=logits.device) * length
    ends = (branch + completion_mask.sum(dim=2)).masked_fill(completion_mask.sum(dim=2) == 0, 0)  # (B, G)
    row = torch.arange(batch, device=logits.device)[:, None]
    nodes = logits[:, chains:].unflatten(1, (group, -1))  # (B, G, T, V)
    logps, entropies = _branch_logps(logits[:, :chains], completion_ids, completion_mask, temperature)
    return logps, entropies, torch.cat([logits[row, ends][:, :, None], nodes], dim=2)


def plain_logps(
    model: nn.Module,
    prompt_ids: torch.Tensor,
    prompt_mask: torch.Tensor,
    completion_ids: torch.Tensor,
    completion_mask: torch.Tensor,
    temperature: float = 1.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same as `shared_prefix_logps` the plain way: one sequence a completion, the prompt read G times.

    Works for every causal language model whose forward takes `position_ids` and `logits_to_keep`.
    """
    batch, group, length = completion_ids.shape
    ids = completion_ids.reshape(batch * group, length)
    mask = completion_mask.reshape(batch * group, length)
    prompt_ids = prompt_ids.repeat_interleave(group, dim=0)
    prompt_mask = prompt_mask.repeat_interleave(group, dim=0)
    positions = prompt_positions(prompt_mask)
    logits = model(
        input_ids=torch.cat([prompt_ids, ids], dim=1),  # (B·G, L + C)
        attention_mask=torch.cat([prompt_mask, mask], dim=1),
        position_ids=torch.cat([positions, positions[:, -1:] + 1 + torch.arange(length, device=ids.device)], dim=1),
        use_cache=False,
        logits_to_keep=1 + length,
    ).logits  # (B·G, 1 + C, V)
    before = torch.arange(length, device=logits.device).expand(batch * group, -1)
    logps, entropies = _logps_and_entropies(logits, before, ids, temperature)
    padding = ~completion_mask.bool()
    return tuple(x.view(batch, group, length).masked_fill(padding, 0) for x in (logps, entropies))


@torch.no_grad()
def check_shared_prefix(
    model: nn.Module,
    prompt_ids: torch.Tensor,
    prompt_mask: torch.Tensor,
    completion_ids: torch.Tensor,
    completion_mask: torch.Tensor,
) -> float:
    """Mean absolute difference between the shared and the plain log-probabilities of the tokens, dropout off.

    A sound model stays below 1e-4 in float32 and 5e-2 in bfloat16, where one token may differ by more: the spacing of
    bfloat16 at 16 is 0.125.

    Args:
        model: As in `suffix_logits`.
        prompt_ids, prompt_mask: Left-padded prompts, shape (B, L).
        completion_ids, completion_mask: Right-padded completions, shape (B, G, C).
    """
    batch = (prompt_ids, prompt_mask, completion_ids, completion_mask)
    training = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        shared, _ = shared_prefix_logps(model, *batch)
        plain, _ = plain_logps(model, *batch)
    finally:
        for module, mode in training:
            module.training = mode
    return ((shared - plain).abs().sum() / completion_mask.sum().clamp(min=1)).item()


def prompt_positions(prompt_mask: torch.Tensor) -> torch.Tensor:
    """Positions of a left-padded prompt, counted from its first token, (B, L); 0 at padding."""
    return (prompt_mask.long().cumsum(dim=1) - 1).clamp(min=0)


def _branch_logps(
    logits: torch.Tensor, completion_ids: torch.Tensor, completion_mask: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities and entropies (B, G, C) of packed branches, from logits behind the prompt and every token."""
    batch, group, length = completion_ids.shape
    before = before_branches(group, length).to(logits.device).expand(batch, -1)  # (B, G·C)
    logps, entropies = _logps_and_entropies(logits, before, completion_ids.reshape(batch, -1), temperature)
    padding = ~completion_mask.bool()
    return tuple(x.view(batch, group, length).masked_fill(padding, 0) for x in (logps, entropies))


def _logps_and_entropies(
    logits: torch.Tensor, before: torch.Tensor, tokens: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Reads tokens (N, T) off logits (N, K, V), token t from row `before[:, t]`, without copying rows."""
    logits = logits.float() / temperature
    normalizer = logits.logsumexp(dim=-1)  # (N, K)
    entropy = normalizer - (logits * (logits - normalizer[..., None]).exp()).sum(dim=-1)
    row = torch.arange(len(logits), device=logits.device)[:, None]
    return logits[row, before, tokens] - normalizer.gather(1, before), entropy.gather(1, before)
