"""Whether a faster way to process prompts gives the log-probabilities of the plain way, measured on a few of them.

A model with float32 weights is compared in float32, also if it is trained under autocast: in bfloat16 a logit of 32
is rounded to a multiple of 0.25, which hides a small mistake and makes a large model look wrong.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from autorater.models.sharding import is_sharded
from autorater.models.split_attention import transformer_of

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 5e-2}
"""Mean absolute difference of log-probabilities (nats) that counts as rounding, whatever the logits."""


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within it, a model has no dropout; afterwards every module is in the mode that it had."""
    training = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in training:
            module.training = mode


@contextmanager
def in_float32(model: nn.Module) -> Iterator[None]:
    """Within it, a model whose weights are all float32 computes without autocast; of other models nothing changes."""
    weights = [weight for weight in model.parameters() if weight.is_floating_point()]
    if any(weight.dtype != torch.float32 for weight in weights):
        yield
        return
    # accelerate puts autocast around the forward pass, and the one without it here
    prepared = [(module, module.forward) for module in model.modules() if "_original_forward" in vars(module)]
    for module, _ in prepared:
        module.forward = module._original_forward
    try:
        with torch.autocast(weights[0].device.type, enabled=False):
            yield
    finally:
        for module, forward in prepared:
            module.forward = forward


@torch.no_grad()
def difference(
    model: nn.Module, fast: Callable[[nn.Module], torch.Tensor], plain: Callable[[nn.Module], torch.Tensor]
) -> tuple[float, float]:
    """Mean absolute difference of the log-probabilities of the likeliest tokens, and what counts as rounding.

    That is `TOLERANCE`, or if it is more the largest rounding error of the likeliest logits, averaged.

    Args:
        model: Bare or wrapped; meanwhile without dropout, and in float32 if its weights are. Of a sharded model the
            largest values of any process.
        fast, plain: Give logits of equal shape (…, V); both get the model, without a wrapper for data parallelism.
    """
    if isinstance(model, DistributedDataParallel):  # its forward pass waits for processes that need no check
        model = model.module
    dtypes: set[torch.dtype] = set()  # of the head, not of the logits, which accelerate returns in float32
    head = transformer_of(model).get_output_embeddings()
    hook = head.register_forward_hook(lambda _, __, output: dtypes.add(output.dtype))
    try:
        with evaluating(model), in_float32(model):
            logits = plain(model)
            likely = logits.argmax(dim=-1, keepdim=True)
            expected, size = _logps(logits, likely), logits.gather(-1, likely).float().abs().mean()
            del logits  # of a large vocabulary and long completions there is memory for one
            mean = (_logps(fast(model), likely) - expected).abs().mean()
    finally:
        hook.remove()
    if dist.is_initialized() and is_sharded(model):
        for value in (mean, size):
            dist.all_reduce(value, dist.ReduceOp.MAX)
    if size.is_cuda and _multiplies_in_tf32():
        dtypes.add(torch.float16)  # of as many digits
    return mean.item(), max(max(TOLERANCE[dtype], torch.finfo(dtype).eps / 2 * size.item()) for dtype in dtypes)


def _logps(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    logits = logits.float()
    return logits.gather(-1, tokens) - logits.logsumexp(dim=-1, keepdim=True)


def _multiplies_in_tf32() -> bool:
    matmul = torch.backends.cuda.matmul
    return matmul.fp32_precision == "tf32" if hasattr(matmul, "fp32_precision") else matmul.allow_tf32  # torch 2.8
