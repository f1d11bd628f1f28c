"""Parameters that are spread over the processes of a run (ZeRO-3, FSDP), and what they ask of code beside the trainer.

Every process holds a part of every parameter, and a forward pass collects the rest from the others. So all processes
must call the model equally often, each time together, also where one has less to read than another (`in_step`).

Deliberately left out: the sharding itself, which DeepSpeed and FSDP do when training starts.
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

_SHARDING_SWITCHES = ("ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_FSDP")


def is_sharded(model: nn.Module) -> bool:
    """Whether a process holds only a part of the parameters."""
    return any(hasattr(p, "ds_id") or isinstance(p, DTensor) for p in model.parameters())


def in_step(turns: Iterable[T], model: nn.Module) -> list[T]:
    """Turns at a model; where it is sharded, as many on every process: the last turn is taken again by those with few.

    All processes must call it together. Whoever takes the turns must not mind a turn that is taken twice.

    Args:
        turns: What this process has to do; at least one turn where the model is sharded.
        model: What is called once, or equally often, a turn.
    """
    turns = list(turns)
    if not (dist.is_initialized() and is_sharded(model)):
        return turns
    longest = torch.tensor(len(turns), device=next(model.parameters()).device)
    dist.all_reduce(longest, dist.ReduceOp.MAX)
    return turns + turns[-1:] * (int(longest) - len(turns))


@contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """While it is open, every process holds all parameters of a model that DeepSpeed has sharded on loading.

    Until training starts nothing else collects them. They are there to be read: changes are lost.
    """
    if not any(hasattr(p, "ds_id") for p in model.parameters()):
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(list(model.parameters())):
        yield


@contextmanager
def unsharded() -> Iterator[None]:
    """While it is open, a `Trainer` that is made does not shard, whatever `accelerate launch` was told.

    For a small model that is trained on the way to another one: DeepSpeed takes one model a run.
    """
    from accelerate.state import AcceleratorState, PartialState

    told = {name: os.environ.pop(name) for name in _SHARDING_SWITCHES if name in os.environ}
    on_cpu = PartialState._shared_state.get("_cpu", False)
    try:
        yield
    finally:
        os.environ.update(told)
        if told:  # accelerate keeps what it was told first, and it was told not to shard
            AcceleratorState._reset_state(reset_partial_state=True)
            PartialState(cpu=on_cpu)
