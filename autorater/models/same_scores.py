"""Whether a faster way to process prompts gives the log-probabilities of the plain way, measured on a few of them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from autorater.models.sharding import is_sharded
from autorater.models.split_attention import transformer_of

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 5e-2}
"""Largest mean absolute difference of log-probabilities (nats) that counts as rounding."""


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


@torch.no_grad()
def difference(
    model: nn.Module, fast: Callable[[nn.Module], torch.Tensor], plain: Callable[[nn.Module], torch.Tensor]
) -> tuple[float, float]:
    """Mean absolute difference of the log-probabilities of the likeliest tokens, and what counts as rounding.

    Args:
        model: Bare or wrapped; without dropout meanwhile. Of a sharded model the largest difference of any process.
        fast, plain: Give logits of equal shape (…, V); both get the model, without a wrapper for data parallelism.
    """
    if isinstance(model, DistributedDataParallel):  # its forward pass waits for processes that need no check
        model = model.module
    dtypes: set[torch.dtype] = set()  # of the head, not of the logits, which accelerate returns in float32
    head = transformer_of(model).get_output_embeddings()
    hook = head.register_forward_hook(lambda _, __, output: dtypes.add(output.dtype))
    try:
        with evaluating(model):
            got, expected = fast(model), plain(model)
    finally:
        hook.remove()
    likely = expected.argmax(dim=-1, keepdim=True)
    both = (logits.float().log_softmax(dim=-1).gather(-1, likely) for logits in (got, expected))
    mean = torch.sub(*both).abs().mean()
    if dist.is_initialized() and is_sharded(model):
        dist.all_reduce(mean, dist.ReduceOp.MAX)
    return mean.item(), max(TOLERANCE[dtype] for dtype in dtypes)
