"""Prompts of a batch whose common beginning is processed once, where that saves work and was found exact.

The first batch of a model that would share is compared with the same prompts in rows of their own: four of them,
without gradients and dropout. Where log-probabilities differ by more than rounding, sharing is switched off for the
model, with a warning that says so.
"""

import warnings
from collections.abc import Callable, Sequence
from weakref import WeakKeyDictionary

import torch
from torch import nn

from autorater.models.packing import Packing
from autorater.models.same_scores import difference
from autorater.models.sharding import largest
from autorater.models.split_attention import supports_shared_prefix, transformer_of
from autorater.models.suffixes import Suffixes
from autorater.prompts.batching import pad_prompts, prompt_positions

_LEAST_GAIN = 0.1  # fraction of the work that sharing must save
_CHECKED_PROMPTS = 4
_shares: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()  # models that were checked, or switched


def share_beginnings(model: nn.Module, on: bool) -> None:
    """Switches the sharing of common beginnings for a model, bare or wrapped, without a check."""
    _shares[transformer_of(model)] = on


def shares_beginnings(model: nn.Module) -> bool | None:
    """Whether a model shares common beginnings; None before the first batch that would."""
    return _shares.get(transformer_of(model))


def packed_logits(
    model: nn.Module,
    prompt_ids: torch.Tensor,
    prompt_mask: torch.Tensor,
    suffixes: Suffixes,
    plain: Callable[[nn.Module, torch.Tensor, torch.Tensor, Suffixes], torch.Tensor],
) -> torch.Tensor:
    """The logits of `plain(model, prompt_ids, prompt_mask, suffixes)`, the common beginning processed once if it pays.

    Args:
        model: As in `autorater.models.shared_prefix.suffix_logits`, which is also the shape of the result.
        plain: Processes every prompt in a row of its own.
    """
    known = shares_beginnings(model)
    packing = None
    if known is not False and len(prompt_ids) > 1:
        prompts = _unpadded(prompt_ids, prompt_mask)
        packing = Packing.of(model, prompts, suffixes.depth.shape[-1])
        if not packing.beginning or packing.cost > (1 - _LEAST_GAIN) * packing.plain_cost:
            packing = None
    if known is None and _any_process(packing is not None, model):
        ids, mask = prompt_ids[:_CHECKED_PROMPTS], prompt_mask[:_CHECKED_PROMPTS]
        few, nodes, of_few = _unpadded(ids, mask), suffixes.depth.shape[-1], suffixes.of_first(len(ids))
        _check(
            model,
            lambda bare: Packing.of(bare, few, nodes).logits(bare, few, of_few),
            # at the ends of the prompts by the model as it is, without our attention
            lambda bare: torch.cat([_at_end(bare, few), plain(bare, ids, mask, of_few)[:, 1:]], dim=1),
        )
    if packing is None or not shares_beginnings(model):
        return plain(model, prompt_ids, prompt_mask, suffixes)
    return packing.logits(model, prompts, suffixes)


def last_logits(model: nn.Module, prompts: Sequence[list[int]]) -> torch.Tensor:
    """Next-token logits at the end of N prompts, in one module call, with gradients.

    Args:
        model: A causal language model, bare or wrapped; one that cannot share reads padded rows.
        prompts: Token ids of the prompts.

    Returns:
        Logits of shape (N, V).
    """
    if supports_shared_prefix(model)[0] and len(prompts) > 1:
        packing = Packing.of(model, prompts, 0)
        if shares_beginnings(model) is None and _any_process(bool(packing.beginning), model):
            few = prompts[:_CHECKED_PROMPTS]
            _check(model, lambda bare: Packing.of(bare, few, 0).logits(bare, few), lambda bare: _at_end(bare, few))
        if packing.beginning and shares_beginnings(model):
            return packing.logits(model, prompts)[:, 0]
    return _at_end(model, prompts)[:, 0]


def _at_end(model: nn.Module, prompts: Sequence[list[int]]) -> torch.Tensor:
    """Next-token logits of padded rows, shape (N, 1, V), by the model as it is."""
    ids, mask = pad_prompts(prompts, 0, next(model.parameters()).device)
    options = {"position_ids": prompt_positions(mask), "use_cache": False, "logits_to_keep": 1}
    return model(input_ids=ids, attention_mask=mask, **options).logits


def _check(
    model: nn.Module, packed: Callable[[nn.Module], torch.Tensor], plain: Callable[[nn.Module], torch.Tensor]
) -> None:
    """Compares the logits of two ways to process a few prompts, of equal shape; both get the bare model."""
    found, tolerance = difference(model, packed, plain)
    exact = found <= tolerance
    share_beginnings(model, exact)
    if not exact:
        warnings.warn(
            f"shared beginning disabled, every prompt is processed as a whole: log-probabilities differ by "
            f"{found:.1e}, tolerance {tolerance:.0e}",
            RuntimeWarning,
            stacklevel=2,
        )


def _unpadded(prompt_ids: torch.Tensor, prompt_mask: torch.Tensor) -> list[list[int]]:
    return [ids[mask].tolist() for ids, mask in zip(prompt_ids, prompt_mask.bool(), strict=True)]


def _any_process(here: bool, model: nn.Module) -> bool:
    """Whether it holds on any process, if all of them must call the model equally often; else if it holds here."""
    return bool(largest(here, model))
