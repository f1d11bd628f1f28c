"""Precision and step size of a pretrained model: float32 weights, bfloat16 autocast.

A bfloat16 weight has 8 significant bits, and an AdamW step is about as long as the learning rate. With a rate of 1e-6
nearly every weight is rounded back to where it was; only DeepSpeed keeps float32 copies. So weights are float32 unless
`dtype` says otherwise, and the products are computed in bfloat16 where the hardware has it.
"""

import logging
import os
from collections.abc import Collection

import torch
from transformers import PreTrainedModel, TrainingArguments
from trl import ModelConfig

from autorater.models.devices import gpu_has_bf16
from autorater.models.loading import is_adapter
from autorater.models.sharding import SHARDING_SWITCHES

ADAPTER_LEARNING_RATE = 1e-4
_MOVABLE = 0.5  # share of the weights that a step must be able to move
logger = logging.getLogger(__name__)


def use_pretrained_defaults(training: TrainingArguments, config: ModelConfig, given: Collection[str]) -> None:
    """Sets the options that the user did not set and whose defaults do not suit a pretrained model or an adapter.

    An adapter has the learning rate `ADAPTER_LEARNING_RATE`. On a CPU with bfloat16 instructions autocast
    is on, except under DeepSpeed and FSDP, whose config says so.
    """
    base = config.model_name_or_path
    adapter = config.use_peft or (base is not None and is_adapter(base, config.model_revision))
    default = type(training).__dataclass_fields__["learning_rate"].default
    if adapter and "learning_rate" not in given and training.learning_rate == default:
        training.learning_rate = ADAPTER_LEARNING_RATE
        logger.info(f"learning_rate: {ADAPTER_LEARNING_RATE:g}, the default for adapters")
    chosen = training.fp16 or {"bf16", "fp16"} & {*given} or any(map(os.environ.get, SHARDING_SWITCHES))
    if base and training.use_cpu and not chosen and cpu_has_bf16():
        training.bf16, training.mixed_precision = True, "bf16"
        logger.info("bf16: autocast, because this CPU has bfloat16 instructions (--bf16 false for float32)")


def cpu_has_bf16() -> bool:
    """Whether products of bfloat16 matrices are faster than float32: 1.6 times with AVX512-BF16, more with AMX."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def warn_of_emulation(training: TrainingArguments) -> None:
    """Warns if bfloat16 is asked for where it is computed by conversions: 8 times as long on an AMD Zen 3."""
    asked = [name for name in ("bf16", "bf16_full_eval") if getattr(training, name)]
    device = training.device.type
    if asked and not {"cpu": cpu_has_bf16, "cuda": gpu_has_bf16}.get(device, lambda: True)():
        options = " and ".join(f"--{name} false" for name in asked)
        logger.warning(
            f"{' and '.join(asked)}: this {'CPU' if device == 'cpu' else 'GPU'} has no bfloat16 instructions, so that "
            f"products take several times as long as in float32 ({options})"
        )


def evaluation_precision(training: TrainingArguments) -> torch.autocast:
    """The precision in which a run judges its held-out and recalibration pairs, as a context.

    It is that in which `Judge.from_pretrained` loads a judge: bfloat16 on a GPU (here autocast, if `bf16` is on),
    float32 on a CPU; with `bf16_full_eval` autocast there too.
    """
    device = training.device.type
    on_gpu = training.bf16 and device != "cpu"
    return torch.autocast(device, torch.bfloat16, enabled=bool(on_gpu or training.bf16_full_eval))


def warn_of_rounding(model: PreTrainedModel, training: TrainingArguments) -> None:
    """Warns if most of the weights to train have half precision, which is too coarse for the learning rate."""
    if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
        return
    share = movable_share(model, training.learning_rate)
    if share < _MOVABLE:
        names = {str(weight.dtype).removeprefix("torch.") for weight in model.parameters() if _is_half(weight)}
        logger.warning(
            f"{' and '.join(sorted(names))} weights: a step of learning_rate {training.learning_rate:g} can move "
            f"{share:.1%} of them, the others are rounded back; use --dtype float32 with --bf16, or a larger "
            "learning_rate"
        )


@torch.no_grad()
def movable_share(model: PreTrainedModel, learning_rate: float) -> float:
    """The share of the trainable weights that a step of one learning rate up or down changes, in [0, 1]."""
    moved = total = 0
    for weight in (weight for weight in model.parameters() if weight.requires_grad):
        total += weight.numel()
        if _is_half(weight):
            moved += int(((weight + learning_rate != weight) | (weight - learning_rate != weight)).sum())
        else:
            moved += weight.numel()
    return moved / total if total else 1.0


def _is_half(weight: torch.Tensor) -> bool:
    return weight.dtype in (torch.bfloat16, torch.float16)
