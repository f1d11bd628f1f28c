"""The memory of a training step, estimated before it is taken, and what to lower if there is not enough.

The sizes of the largest micro-batch follow from the options and the longest training prompt. It is a lower bound: on
CPUs peaks were 1.0 to 1.8 times the estimate, the more the allocator keeps of freed memory
(`benchmarks/memory_estimate.py --measure`), so a run that may not fit is warned about and not stopped. Left
out: the evaluation, what vLLM takes, and beginnings that several prompts share.
"""

import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import torch
from peft import PeftModel, get_peft_model
from transformers import PreTrainedModel, TrainingArguments
from trl import ModelConfig

from autorater.judges import Judge
from autorater.models.cache_copies import sizes_of
from autorater.models.memory import GIB, LOGIT_BYTES, MicroBatch, Setup, count_parameters, free_memory, step_memory
from autorater.models.repeated_cache import Beginning
from autorater.models.sharding import gathered
from autorater.models.split_attention import supports_shared_prefix
from autorater.prompts.encoder import EncodedPrompt
from autorater.training.adapters import adapter_config
from autorater.training.compatibility import EXACT, PPO, REASONING, RLOO, SAMPLED, is_pointwise

_SAMPLED_LOGIT_BYTES = 20  # entropies keep two more copies in float32
_STATES_PER_PARAMETER = {"adafactor": 0, "sgd": 0}  # others: Adam's two moments
logger = logging.getLogger(__name__)


def log_memory(
    judge: Judge,
    prompts: Sequence[tuple[EncodedPrompt, ...]],
    training: TrainingArguments,
    model_config: ModelConfig,
) -> None:
    """Logs the estimated peak of a training step beside the free memory; warns if it does not fit.

    Args:
        judge: The judge of the loaded model, before an adapter is added.
        prompts: Training prompts: both orders of a pair, or the one of an item.
    """
    sizes = [len(prompt.ids) for both in prompts for prompt in both]
    batch, setup = micro_batch(judge, sizes, training), setup_of(judge.model, training)
    parts = _estimate(judge.model, batch, setup, model_config)
    loaded, free = _loaded_and_free(judge.model)
    names = ", ".join(f"{name} {_size(size)}" for name, size in parts.items() if size)
    text = f"memory of a training step: about {_size(sum(parts.values()))} a process ({names}); "
    text += f"free beside the loaded weights: {_size(free)}"
    if sum(parts.values()) - loaded <= free:
        logger.info(text)
        return
    lower = _what_to_lower(judge, batch, setup, training, model_config)
    logger.warning(f"{text}: it may not fit; {lower}")


def warn_of_warm_up(judge: Judge, training: TrainingArguments, model_config: ModelConfig) -> None:
    """Warns if a warm-up or teaching may not fit where the training does: it divides nothing among the processes."""
    if not setup_of(judge.model, training).zero_stage:
        return
    setup = setup_of(judge.model, training, sharded=False)
    parts = _estimate(judge.model, MicroBatch(1, 1, 0, 1), setup, model_config)
    needed, (loaded, free) = sum(parts.values()), _loaded_and_free(judge.model)
    if needed - loaded > free:
        logger.warning(
            f"memory of warm_start_steps: every process holds all gradients and optimizer states, about "
            f"{_size(needed)} without activations; free beside the loaded weights: {_size(free)}. It may not fit; "
            "use_peft: true or train_only would lower it, or leave warm_start_steps out"
        )


def _loaded_and_free(model: PreTrainedModel) -> tuple[float, float]:
    """Bytes of the loaded weights, and free bytes for a process beside them."""
    device = next(model.parameters()).device
    local = int(os.environ.get("LOCAL_WORLD_SIZE") or 1) if device.type == "cpu" else 1
    return sum(p.numel() * p.element_size() for p in model.parameters()), free_memory(device) / local


def micro_batch(judge: Judge, sizes: Sequence[int], training: TrainingArguments) -> MicroBatch:
    """The largest micro-batch of a run whose training prompts have these numbers of tokens."""
    mode, longest, shared = getattr(training, "mode", ""), max(sizes), supports_shared_prefix(judge.model)[0]
    if is_pointwise(training):
        return _of_responses(judge, sizes, training)
    if getattr(training, "objective", "") == "text":
        return _of_text(judge, longest, training, shared)
    if mode in (SAMPLED, PPO, RLOO) or (mode == REASONING and shared):
        return _of_sampled(judge, longest, training, shared)
    return _of_tree(judge, longest, training, shared)


def _of_responses(judge: Judge, sizes: Sequence[int], training: TrainingArguments) -> MicroBatch:
    """As many responses as fit into `batch_tokens`, each with the tree of its scores."""
    tokens = max(training.batch_tokens, *sizes)
    scored = -(-tokens * len(sizes) // sum(sizes)) * (1 + len(judge.tree.tokens))
    return MicroBatch(1, 0, tokens, scored)


def _of_text(judge: Judge, longest: int, training: TrainingArguments, shared: bool) -> MicroBatch:
    """One answer after every prompt."""
    rows, answer = training.per_device_train_batch_size, judge.tree.longest
    if shared:
        return MicroBatch(rows, longest, answer, rows * (1 + answer))
    length = longest + answer  # `SFTTrainer` computes the logits of all positions
    return MicroBatch(rows, length, 0, rows * length, LOGIT_BYTES + 4)


def _of_sampled(judge: Judge, longest: int, training: TrainingArguments, shared: bool) -> MicroBatch:
    """Sampled answers, or reasonings with the tree of the answers; a prompt is read once for all of its own."""
    rows, completion = training.per_device_train_batch_size, training.max_completion_length
    copied = None if shared else _bytes_of_copies(judge, longest)
    once = training.shared_prefix and (shared or copied is not None)
    if training.mode == SAMPLED and not once:
        length = longest + completion  # off a GPU, TRL computes the logits of the prompt too
        scored = 1 + completion if torch.cuda.is_available() else length
        return MicroBatch(rows, length, 0, rows * scored, _SAMPLED_LOGIT_BYTES)
    both_orders = training.mode not in (PPO, RLOO) and training.orders == "coupled"
    answers = training.num_generations // 2 if both_orders else training.num_generations
    prompts = max(1, rows // max(1, answers))
    group = -(-rows // prompts)
    suffix = group * (completion + (_nodes(judge) if training.mode == REASONING else 0))
    caches = prompts * group * (copied or 0)
    return MicroBatch(prompts, longest, suffix, prompts * (1 + suffix), _SAMPLED_LOGIT_BYTES, caches)


def _of_tree(judge: Judge, longest: int, training: TrainingArguments, shared: bool) -> MicroBatch:
    """The tree of all answers after every prompt, or after a reasoning that has a row of its own."""
    mode, rows, leaves = getattr(training, "mode", ""), training.per_device_train_batch_size, judge.tree.leaf_paths
    if mode == EXACT and training.orders == "coupled":
        rows *= 2
    if shared:
        nodes = _nodes(judge)
        return MicroBatch(rows, longest, nodes, rows * (1 + nodes))
    reasoned = training.max_completion_length if mode == REASONING else 0
    copied = _bytes_of_copies(judge, longest + reasoned)
    if copied is None:
        answers, length = rows * len(leaves), judge.tree.depth
        return MicroBatch(answers, longest + length, 0, answers * (1 + length))
    suffix, logit_bytes = len(leaves) * (judge.tree.depth - 1), _SAMPLED_LOGIT_BYTES if reasoned else LOGIT_BYTES
    positions = rows * (1 + reasoned + suffix)
    return MicroBatch(rows, longest + reasoned, suffix, positions, logit_bytes, caches=rows * len(leaves) * copied)


def _nodes(judge: Judge) -> int:
    return len(judge.tree.tokens) + getattr(judge.tree, "closing_tokens", 0)  # labels have none


def _bytes_of_copies(judge: Judge, longest: int) -> float | None:
    """Bytes of the cache of a prompt, which a model copies for every answer; None if it does not."""
    ids = judge.tokenizer(judge.encoder.context)["input_ids"]
    with gathered(judge.model):
        if not judge.tree.repeats_cache(judge.model, ids):
            return None
        grown, fixed = sizes_of(Beginning(judge.model, ids).cache)
    return grown * longest / len(ids) + fixed


def setup_of(model: PreTrainedModel, training: TrainingArguments, *, sharded: bool = True) -> Setup:
    """Precision, sharding and optimizer of a run, or of its stages that are `unsharded`."""
    stage, deepspeed = 0, sharded and os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true"
    if deepspeed:
        stage = int(os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", 2))
    elif sharded and os.environ.get("ACCELERATE_USE_FSDP") == "true":
        reshards = os.environ.get("FSDP_RESHARD_AFTER_FORWARD", "true").lower() in ("true", "full_shard", "1")
        stage = 3 if reshards else 2
    mixed = training.mixed_precision != "no"
    element = 2 if deepspeed and mixed else next(model.parameters()).element_size()
    optimizer = str(getattr(training.optim, "value", training.optim))
    return Setup(
        element=element,
        autocast=mixed and element == 4,
        checkpointing=training.gradient_checkpointing,
        eager=model.config.get_text_config()._attn_implementation == "eager",
        zero_stage=stage,
        processes=training.world_size,
        moments=next((n for name, n in _STATES_PER_PARAMETER.items() if optimizer.startswith(name)), 2),
        reference=bool(getattr(training, "beta", 0)) and not isinstance(model, PeftModel),
    )


def _estimate(model: PreTrainedModel, batch: MicroBatch, setup: Setup, model_config: ModelConfig) -> dict[str, float]:
    parameters, trained = count_parameters(model)
    if model_config.use_peft and not isinstance(model, PeftModel):
        setup = replace(setup, reference=False)
        with torch.device("meta"):
            adapter = get_peft_model(type(model)(model.config), adapter_config(model, model_config))
        parameters, trained = count_parameters(adapter)
    return step_memory(model.config, parameters, trained, batch, setup)


def _what_to_lower(
    judge: Judge, batch: MicroBatch, setup: Setup, training: TrainingArguments, model_config: ModelConfig
) -> str:
    """What each option would bring, as text."""
    half_positions = batch.positions // 2
    if is_pointwise(training):
        smaller = f"batch_tokens: {training.batch_tokens // 2}"
        halved = replace(batch, suffix=batch.suffix // 2, positions=half_positions)
    else:
        smaller = f"per_device_train_batch_size: {max(1, training.per_device_train_batch_size // 2)}"
        halved = replace(batch, prompts=max(1, batch.prompts // 2), positions=half_positions, caches=batch.caches / 2)
    options = {f"{smaller} with twice the gradient_accumulation_steps": (halved, setup, model_config)}
    if not is_pointwise(training):
        options["half of max_prompt_tokens"] = (replace(batch, longest=batch.longest // 2), setup, model_config)
    if not setup.checkpointing:
        options["gradient_checkpointing: true"] = (batch, replace(setup, checkpointing=True), model_config)
    if not model_config.use_peft:
        options["use_peft: true"] = (batch, setup, replace(model_config, use_peft=True))
    needed = {}
    for name, option in options.items():
        with suppress(ValueError):  # PEFT may refuse the lora_target_modules
            needed[name] = sum(_estimate(judge.model, *option).values())
    now = sum(_estimate(judge.model, batch, setup, model_config).values())
    return "what would lower it: " + ", ".join(f"{name} ({_size(n)})" for name, n in needed.items() if n < now)


def _size(size: float) -> str:
    return f"{size / GIB:.1f} GiB" if size >= GIB / 2 else f"{size / 2**20:.0f} MiB"
