"""Parameters that are sharded over the processes of a run (ZeRO-3, FSDP), in code outside the trainer.

A forward pass gathers the parameters from all processes. So all processes must call the model equally often and at
the same time, also if one has fewer batches than another (`in_step`).
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor

T = TypeVar("T")

SHARDING_SWITCHES = ("ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_FSDP")


def is_sharded(model: nn.Module) -> bool:
    """Whether a process holds only a part of the parameters."""
    return any(hasattr(p, "ds_id") or isinstance(p, DTensor) for p in model.parameters())


def in_step(batches: Iterable[T], model: nn.Module) -> list[T]:
    """Batches for a model; if it is sharded, equally many on every process, by repeating the last one.

    All processes must call it together, each with at least one batch if the model is sharded.
    """
    batches = list(batches)
    return batches + batches[-1:] * (int(largest(len(batches), model)) - len(batches))


def largest(value: float, model: nn.Module) -> float:
    """The largest value over all processes, which call this together, if the model is sharded; else the value."""
    if not (dist.is_initialized() and is_sharded(model)):
        return value
    values = torch.tensor(value, dtype=torch.float32, device=next(model.parameters()).device)
    dist.all_reduce(values, dist.ReduceOp.MAX)
    return values.item()


@contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """Gathers all parameters of a model that DeepSpeed sharded on loading, for reading only: changes are lost.

    Before training starts, nothing else gathers them.
    """
    if not any(hasattr(p, "ds_id") for p in model.parameters()):
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(list(model.parameters())):
        yield


@contextmanager
def unsharded() -> Iterator[None]:
    """A `Trainer` constructed in this context does not shard, whatever the configuration of `accelerate launch`.

    For a model that is trained before the main one: DeepSpeed accepts one model per run.
    """
    from accelerate.state import AcceleratorState, PartialState

    switches = {name: os.environ.pop(name) for name in SHARDING_SWITCHES if name in os.environ}
    on_cpu = PartialState._shared_state.get("_cpu", False)
    try:
        yield
    finally:
        os.environ.update(switches)
        if switches:  # accelerate keeps its first configuration, which was without sharding
            AcceleratorState._reset_state(reset_partial_state=True)
            PartialState(cpu=on_cpu)
