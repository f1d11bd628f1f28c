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

import inspect
import sys
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache, GenerationConfig, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask, sdpa_mask

# attention implementation a model may come with -> the name under which it can also split
_SPLIT_NAMES = {"sdpa": "shared_prefix", "eager": "shared_prefix_eager"}
_POSITIONAL_LAYERS = {"full_attention", "sliding_attention", "chunked_attention"}


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


def supports_shared_prefix(model: nn.Module) -> tuple[bool, str]:
    """Whether the suffixes of a prompt can share one row in this model, and if not, why.

    Args:
        model: A causal language model, bare or wrapped (PEFT, DDP, DeepSpeed).

    Returns:
        (True, "") or (False, reason).
    """
    base = _transformer(model)
    config = base.config
    arguments = inspect.signature(base.forward).parameters
    layers = set(getattr(config, "layer_types", None) or []) - _POSITIONAL_LAYERS
    adapters = [a for m in model.modules() for a in (getattr(m, "peft_config", None) or {}).values()]
    reason = ""
    if config.is_encoder_decoder:
        reason = "it is an encoder-decoder"
    elif config.get_text_config() is not config:
        reason = "it is a multimodal wrapper"
    elif base._is_stateful or layers:
        reason = f"its layers carry a state along the row ({', '.join(sorted(layers)) or type(base).__name__})"
    elif getattr(config, "use_bidirectional_attention", False) or not getattr(config, "is_causal", True):
        reason = "its attention is not causal"
    elif getattr(config, "output_router_logits", False):
        reason = "its router loss would count the prompt once instead of once a completion"
    elif not base.is_backend_compatible() or not base._can_set_attn_implementation():
        reason = "its attention does not go through transformers' AttentionInterface"
    elif not {"position_ids", "logits_to_keep"} <= set(arguments):
        reason = "its forward does not take position_ids and logits_to_keep"
    elif config._attn_implementation not in {*_SPLIT_NAMES, *_SPLIT_NAMES.values()}:
        reason = f"its attention implementation is {config._attn_implementation}; load it with sdpa"
    elif config._attn_implementation == "eager" and getattr(config, "reorder_and_upcast_attn", False):
        reason = "reorder_and_upcast_attn bypasses the AttentionInterface"
    elif any(getattr(a, "is_prompt_learning", False) for a in adapters):
        reason = "its adapter puts virtual tokens in front of the prompt"
    return not reason, reason


def enable_shared_prefix(model: nn.Module) -> None:
    """Lets the model's attention split. Plain calls, training and generation included, give what they gave before.

    It is not undone after a call: a gradient-checkpointed layer runs again in the backward pass and must find the same
    attention function. The name is not saved with the config. Calling it twice does nothing.

    Args:
        model: A causal language model, bare or wrapped.

    Raises:
        ValueError: If `supports_shared_prefix` refuses the model.
    """
    base = _transformer(model)
    if base.config._attn_implementation in _SPLIT_NAMES.values():
        return
    supported, reason = supports_shared_prefix(model)
    if not supported:
        raise ValueError(f"{type(base).__name__} cannot share a prompt among suffixes: {reason}")
    base.set_attn_implementation(_SPLIT_NAMES[base.config._attn_implementation])


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
    prompt_positions = _positions(prompt_mask)
    suffix_positions = prompt_positions[:, -1:] + 1 + depth
    return _split_logits(
        model,
        _Layout(prompt_ids.shape[1] + depth, suffixes.visible.to(device)),
        input_ids=torch.cat([prompt_ids, input_ids], dim=1),  # (B, L + S)
        # An explicit mask, or transformers takes positions that start again for packed sequences
        # and cuts the suffixes off from the prompt.
        attention_mask=torch.cat([prompt_mask, prompt_mask.new_ones(input_ids.shape)], dim=1),
        position_ids=torch.cat([prompt_positions, suffix_positions], dim=1),
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
        _Layout(lengths + depth, visible, padded="right"),
        input_ids=torch.cat([rest_ids, input_ids], dim=1),
        attention_mask=pad(is_token, (0, input_ids.shape[1]), value=True).long(),
        position_ids=torch.cat([positions, lengths + depth], dim=1),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=input_ids.shape[1],
    )


def _split_logits(model: nn.Module, layout: "_Layout", **inputs) -> torch.Tensor:
    """Calls the model with suffixes under way."""
    token = _LAYOUT.set(layout)
    try:
        logits = model(**inputs).logits
    finally:
        _LAYOUT.reset(token)
    if not layout.used:
        raise RuntimeError(f"{type(_transformer(model)).__name__} built its attention mask without the mask interface")
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
    positions = _positions(prompt_mask)
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


@torch.no_grad()
def generate_shared(
    model: nn.Module,
    prompt_ids: torch.Tensor,
    prompt_mask: torch.Tensor,
    num_generations: int,
    generation_config: GenerationConfig | None = None,
    **generate_kwargs,
) -> torch.Tensor:
    """`model.generate` on every prompt repeated G times, with one prefill a prompt instead of G.

    The samples are those of `generate` on `prompt_ids.repeat_interleave(G, dim=0)` with the same seed.
    (`num_return_sequences` saves nothing: it repeats the prompt before the prefill.)

    Args:
        model: What `generate` is called on: unwrapped (see `trl.models.unwrap_model_for_generation`), PEFT is fine.
        prompt_ids: Left-padded prompts, shape (B, L).
        prompt_mask: 1 for a token, 0 for padding, shape (B, L).
        num_generations: Samples a prompt, G.
        generation_config: As for `generate`; the model's own by default.
        generate_kwargs: Passed on to `generate`.

    Returns:
        Prompts with their samples, shape (B·G, L + T), the samples of a prompt side by side.

    Raises:
        ValueError: If the model is training under gradient checkpointing, which drops the cache, or cannot repeat its
            cache, or the generation config asks for beams, several return sequences or a cache of its own.
    """
    base = _transformer(model)
    if base.training and any(getattr(m, "gradient_checkpointing", False) for m in base.modules()):
        raise ValueError("gradient checkpointing drops the cache; switch it off or the model to eval() to generate")
    configs = [generation_config, base.generation_config]  # what the first leaves open, generate takes from the second
    for name, allowed in {"num_beams": 1, "num_return_sequences": 1, "cache_implementation": None}.items():
        values = [generate_kwargs.get(name), *(getattr(config, name, None) for config in configs)]
        asked = next((value for value in values if value is not None), allowed)
        if asked != allowed:
            raise ValueError(f"one-prefill generation needs {name}={allowed}, got {asked}")
    supported, reason = supports_shared_prefix(model)
    if not supported:
        raise ValueError(f"{type(base).__name__} cannot repeat its cache: {reason}")

    ids = prompt_ids.repeat_interleave(num_generations, dim=0)  # (B·G, L)
    mask = prompt_mask.repeat_interleave(num_generations, dim=0)
    if prompt_ids.shape[1] > 1:  # generate reads the last prompt token itself
        cache = DynamicCache(config=base.config)
        model(
            input_ids=prompt_ids[:, :-1],
            attention_mask=prompt_mask[:, :-1],
            position_ids=_positions(prompt_mask)[:, :-1],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache.batch_repeat_interleave(num_generations)
        generate_kwargs |= {"past_key_values": cache, "use_cache": True}
    return model.generate(input_ids=ids, attention_mask=mask, generation_config=generation_config, **generate_kwargs)


@dataclass
class _Layout:
    """The suffixes of the call in progress, between `_split_logits` and the mask function."""

    columns: torch.Tensor  # where a suffix token stands in its own unshared sequence, padding counted, (B, S)
    visible: torch.Tensor  # (B, S, S) or (S, S)
    padded: str = "left"  # side of the prompts on which their padding is
    used: bool = False


_LAYOUT: ContextVar[_Layout | None] = ContextVar("shared_prefix_layout", default=None)


class _SplitMask(NamedTuple):
    """What the layers get in place of a mask tensor. A tuple, so that wrappers find and move the tensors in it."""

    prompt: torch.Tensor | None  # (B, 1, L, L); None for a plain causal triangle
    suffix: torch.Tensor  # (B, 1, S, L + S)


def _mask(*args, base: Callable, **kwargs) -> torch.Tensor | _SplitMask | None:
    """The model's own mask function; with suffixes under way, its rule evaluated prompt × prompt and suffix × all."""
    layout = _LAYOUT.get()
    if layout is None:
        return base(*args, **kwargs)
    if kwargs["use_vmap"]:
        raise NotImplementedError("a model with a mask rule of its own cannot share a prompt among suffixes")
    layout.used = True
    device, batch = kwargs["device"], kwargs["batch_size"]
    size = layout.columns.shape[1]
    length = kwargs["kv_length"] - size
    rule = kwargs["mask_function"]
    padding = kwargs["attention_mask"][:, :length]  # (B, L) bool

    def prompt_rule(b, h, q, k):
        return rule(b, h, q, k) & (padding[b, k] | (q == k))  # a padding row keeps itself: never all masked, never NaN

    hidden = layout.padded == "left" and not padding.all()  # a causal prompt does not see padding on its right
    prompt = base(
        **kwargs
        | {
            "q_length": length,
            "kv_length": length,
            "q_offset": 0,
            "mask_function": prompt_rule if hidden else rule,
            "attention_mask": None,
            "allow_is_causal_skip": kwargs["allow_is_causal_skip"] and not hidden,
        }
    )
    b = torch.arange(batch, device=device)[:, None, None, None]
    h = torch.zeros(1, 1, 1, 1, dtype=torch.long, device=device)
    columns = layout.columns.to(device)
    q, k_suffix = columns[:, None, :, None], columns[:, None, None, :]
    k_prompt = torch.arange(length, device=device)[None, None, None, :]
    to_prompt = (rule(b, h, q, k_prompt) & padding[b, k_prompt]).expand(batch, 1, size, length)
    to_suffix = rule(b, h, q, k_suffix) & layout.visible.to(device).expand(batch, -1, -1)[:, None]  # (B, 1, S, S)
    suffix = torch.cat([to_prompt, to_suffix], dim=-1)
    if base is eager_mask:
        dtype = kwargs["dtype"]
        suffix = torch.zeros_like(suffix, dtype=dtype).masked_fill(~suffix, torch.finfo(dtype).min)
    return _SplitMask(prompt, suffix)


def _attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | _SplitMask | None,
    *,
    base: Callable,
    **kwargs,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The model's own attention; with a split mask, in two pieces: query, key, value (B, H, L + S, D)."""
    if not isinstance(attention_mask, _SplitMask):
        return base(module, query, key, value, attention_mask, **kwargs)
    length = key.shape[2] - attention_mask.suffix.shape[2]
    cached = key.shape[2] - query.shape[2]
    if cached == length:
        return base(module, query, key, value, attention_mask.suffix, **kwargs)
    query = pad(query, (0, 0, cached, 0))  # in place of queries read before: causal without a mask, and then dropped
    prompt = (x[:, :, :length] for x in (query, key, value))
    prompt_out, _ = base(module, *prompt, attention_mask.prompt, **kwargs)  # (B, L, H, D)
    suffix_out, _ = base(module, query[:, :, length:], key, value, attention_mask.suffix, **kwargs)  # (B, S, H, D)
    return torch.cat([prompt_out[:, cached:], suffix_out], dim=1), None


def _model_eager(module: nn.Module, *args, **kwargs) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The eager attention next to the attention class, where a model keeps its own, such as soft-capping or sinks."""
    sources = (sys.modules.get(cls.__module__) for cls in type(module).__mro__)
    eager = next(m.eager_attention_forward for m in sources if hasattr(m, "eager_attention_forward"))
    return eager(module, *args, **kwargs)


AttentionInterface.register(_SPLIT_NAMES["sdpa"], partial(_attention, base=sdpa_attention_forward))
AttentionInterface.register(_SPLIT_NAMES["eager"], partial(_attention, base=_model_eager))
AttentionMaskInterface.register(_SPLIT_NAMES["sdpa"], partial(_mask, base=sdpa_mask))
AttentionMaskInterface.register(_SPLIT_NAMES["eager"], partial(_mask, base=eager_mask))


def _transformer(model: nn.Module) -> PreTrainedModel:
    """The transformers model inside PEFT, DDP, DeepSpeed, FSDP or torch.compile wrappers."""
    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            return module
    raise ValueError(f"there is no transformers model inside {type(model).__name__}")


def _positions(prompt_mask: torch.Tensor) -> torch.Tensor:
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
