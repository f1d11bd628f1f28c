"""Estimate of the memory of a training step, from the sizes of a model and of its largest micro-batch.

    states        weights, gradients, Adam's two moments; with mixed precision also bfloat16 copies of the weights.
                  Divided over the processes by ZeRO as in Rajbhandari et al. 2020 (arXiv 1910.02054), figure 1, with
                  gradients in float32, as DeepSpeed steps them
    activations   what a layer keeps of every token for the backward pass, for all layers; with gradient checkpointing
                  the input of every layer, and the inside of one with its gradients; with eager attention its scores
    caches        of a model that repeats the cache of a prompt: a copy for every answer
    logits        bytes per scored position and vocabulary entry: bfloat16 (2), float32 (4), their gradients (4 + 2)

Layers are counted as those of Llama, Qwen and Gemma: norms in float32, a gated MLP, keys and values repeated for every
head. Deliberately left out: experts, the buffers of communication, fragmentation.
"""

from dataclasses import dataclass

import psutil
import torch
from torch import nn
from transformers import PreTrainedConfig

GIB = 2**30
LOGIT_BYTES = 12


@dataclass(frozen=True)
class MicroBatch:
    """Sizes of one forward and backward pass.

    Attributes:
        prompts, longest: Prompts that are read, and tokens of the longest.
        suffix: Tokens read after every prompt: of its answers, or of a tree of answers.
        positions: Positions whose logits are kept.
        logit_bytes: Bytes per position and vocabulary entry.
        caches: Bytes of copies of the prompts' caches, of a model that repeats them.
    """

    prompts: int
    longest: int
    suffix: int
    positions: int
    logit_bytes: int = LOGIT_BYTES
    caches: float = 0

    @property
    def tokens(self) -> int:
        """All tokens, with padding."""
        return self.prompts * (self.longest + self.suffix)


@dataclass(frozen=True)
class Setup:
    """How a model is trained.

    Attributes:
        element: Bytes of a weight.
        autocast: Whether products are computed in bfloat16 from float32 weights.
        checkpointing: Whether activations are recomputed.
        eager: Whether attention is eager.
        zero_stage: 0 for plain data parallelism.
        processes: Processes that divide the states, or hold copies.
        moments: Numbers per trained weight that the optimizer keeps.
        reference: Whether there is a reference model.
    """

    element: int = 4
    autocast: bool = False
    checkpointing: bool = False
    eager: bool = False
    zero_stage: int = 0
    processes: int = 1
    moments: int = 2
    reference: bool = False


def step_memory(
    config: PreTrainedConfig, parameters: int, trained: int, batch: MicroBatch, setup: Setup
) -> dict[str, float]:
    """Bytes that a process holds at the peak of a step, by part.

    Args:
        config: That of the model.
        parameters, trained: Numbers of all weights and of those that are trained.
        batch: The largest micro-batch.
        setup: Precision and sharding.
    """
    config = config.get_text_config()
    width = 2 if setup.autocast or setup.element == 2 else 4
    parts = model_states(parameters, trained, setup)
    parts["activations"] = activations(config, batch, width, setup)
    parts["logits"] = batch.logit_bytes * batch.positions * config.vocab_size
    parts["caches"] = batch.caches
    return parts


def model_states(parameters: int, trained: int, setup: Setup) -> dict[str, float]:
    """Bytes of weights, gradients, optimizer and reference model of a process."""
    sharded = setup.processes if setup.zero_stage == 3 else 1
    weights = setup.element * parameters / sharded
    if setup.zero_stage:  # gradients and a copy of the weights in float32
        gradients = 4 * trained / (setup.processes if setup.zero_stage > 1 else 1)
        optimizer = 4 * (1 + setup.moments) * trained / setup.processes
    else:  # data parallelism sends gradients in buckets, which are another copy
        gradients = setup.element * trained * (2 if setup.processes > 1 else 1)
        optimizer = setup.element * setup.moments * trained
    return {
        "weights": weights + (2 * parameters if setup.autocast else 0),
        "gradients": gradients,
        "optimizer": optimizer,
        "reference": weights if setup.reference else 0.0,
    }


def activations(config: PreTrainedConfig, batch: MicroBatch, width: int, setup: Setup) -> float:
    """Bytes that are kept for the backward pass; `width` is the bytes of a product."""
    heads, hidden, layers = config.num_attention_heads, config.hidden_size, config.num_hidden_layers
    head_dim = getattr(config, "head_dim", None) or hidden // heads
    mlp = getattr(config, "intermediate_size", None) or 4 * hidden
    # two inputs, normalized in float32, and what the products read: autocast rounds it for each of five
    norms = 4 * 4 * hidden + width * (5 if setup.autocast else 2) * hidden
    # queries, keys and values of every head, the output twice; keys and values once more behind a shared prompt
    attention = width * (5 + 2 * bool(batch.suffix)) * heads * head_dim
    inside = norms + attention + width * 4 * mlp
    scores = 0
    if setup.eager:
        scores = batch.prompts * heads * (batch.longest**2 + batch.suffix * (batch.longest + batch.suffix)) * 8
    if setup.checkpointing:
        return batch.tokens * (layers * hidden * (4 if setup.autocast else width) + 2 * inside) + scores
    return layers * (batch.tokens * inside + scores)


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """All parameters and those that are trained, also of a model that ZeRO-3 has sharded."""
    sizes = [(getattr(p, "ds_numel", p.numel()), p.requires_grad) for p in model.parameters()]
    return sum(size for size, _ in sizes), sum(size for size, trained in sizes if trained)


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a GPU, or on this machine."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available
