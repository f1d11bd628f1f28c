"""Whether a faster way to process prompts gives the log-probabilities of the plain way, measured on a few of them.

Under autocast they are compared twice. In half precision the kernels are those of the training, but a logit of 32 is
rounded to a multiple of 0.25 in bfloat16, so only a large mistake shows. In float32 a small one does.
"""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from autorater.models.modes import evaluating, without_autocast
from autorater.models.sharding import largest
from autorater.models.split_attention import transformer_of

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 5e-2}
"""Mean absolute difference of log-probabilities (nats) that counts as rounding, whatever the logits."""


def difference(
    model: nn.Module, fast: Callable[[nn.Module], torch.Tensor], plain: Callable[[nn.Module], torch.Tensor]
) -> tuple[float, float]:
    """Mean absolute difference of the log-probabilities of the likeliest tokens, and what counts as rounding.

    The second is `TOLERANCE`, or half the spacing of numbers near the mean largest logit if that is more. Under
    autocast with float32 weights both are those of the worse precision.

    Args:
        model: Bare or wrapped; without dropout meanwhile. Of a sharded model the largest values of any process.
        fast, plain: Give logits of equal shape (…, V); both get the model, without a wrapper for data parallelism.
    """
    if isinstance(model, DistributedDataParallel):  # its forward pass waits for processes that need no check
        model = model.module
    found, tolerance, dtype = _difference(model, fast, plain)
    if dtype == torch.float32 or any(p.is_floating_point() and p.dtype != torch.float32 for p in model.parameters()):
        return found, tolerance
    with without_autocast(model):
        found_32, tolerance_32, _ = _difference(model, fast, plain)
    return (found_32, tolerance_32) if found <= tolerance else (found, tolerance)


@torch.no_grad()
def _difference(
    model: nn.Module, fast: Callable[[nn.Module], torch.Tensor], plain: Callable[[nn.Module], torch.Tensor]
) -> tuple[float, float, torch.dtype]:
    """`difference` in one precision, and the precision of the head."""
    dtypes: list[torch.dtype] = []  # of the head, not of the logits, which accelerate returns in float32
    head = transformer_of(model).get_output_embeddings()
    if head is None:
        raise ValueError(f"{type(model).__name__} has no output embeddings")
    hook = head.register_forward_hook(lambda _, __, output: dtypes.append(output.dtype))
    try:
        with evaluating(model):
            logits = plain(model)
            likely = logits.argmax(dim=-1, keepdim=True)
            expected, size = _logps(logits, likely), logits.gather(-1, likely).float().abs().mean()
            del logits  # of a large vocabulary and long completions there is memory for one
            found = (_logps(fast(model), likely) - expected).abs().mean()
    finally:
        hook.remove()
    found, magnitude = (largest(value.item(), model) for value in (found, size))
    rounded_to = torch.float16 if size.is_cuda and _multiplies_in_tf32() and dtypes[0] == torch.float32 else dtypes[0]
    tolerance = max(TOLERANCE[rounded_to], torch.finfo(rounded_to).eps / 2 * magnitude)
    return found, tolerance, dtypes[0]


def _logps(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    logits = logits.float()
    return logits.gather(-1, tokens) - logits.logsumexp(dim=-1, keepdim=True)


def _multiplies_in_tf32() -> bool:
    """Whether float32 products on a GPU have the digits of float16."""
    matmul = torch.backends.cuda.matmul
    return matmul.fp32_precision == "tf32" if hasattr(matmul, "fp32_precision") else matmul.allow_tf32  # torch 2.8
