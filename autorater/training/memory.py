"""The memory of a training step, estimated before it is taken, and what to lower if there is not enough.

The sizes of the largest micro-batch follow from the options and the longest training prompt. On CPUs peaks were 1.0 to
1.8 times the estimate, the more the allocator keeps of freed memory (`benchmarks/memory_estimate.py --measure`), and
0.8 times in steps of teaching, whose prompts begin alike; so a run that may not fit is warned about and not stopped.
Left out: the evaluation, what vLLM takes, and beginnings that several prompts share.
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
from autorater.training.format_warm_up import BATCH_SIZE as FORMAT_BATCH_SIZE
from autorater.training.options import RunOptions
from autorater.training.warm_start import PROMPTS_A_ROW

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
    batch, setup = micro_batch(judge, _sizes(prompts), training), setup_of(judge.model, training)
    name = "batch_tokens" if is_pointwise(training) else "per_device_train_batch_size"
    _log(judge.model, "a training step", batch, setup, model_config, _half(name, training))


def log_warm_up_memory(judge: Judge, prompts: Sequence[tuple[EncodedPrompt, ...]], options: RunOptions) -> None:
    """As `log_memory`, of a step of the teaching or the format warm-up that a run of `warm_start_steps` begins with.

    It divides nothing among the processes, and has a batch of its own.
    """
    args, training, sizes = options.args, options.training, _sizes(prompts)
    name = "a step of teaching" if args.teacher else "a step of the format warm-up"
    if is_pointwise(training):
        batch, half = _of_responses(judge, sizes, training), _half("batch_tokens", training)
    else:
        rows, half = PROMPTS_A_ROW, None
        if not args.teacher:
            rows = max(1, (args.warm_start_batch_size or FORMAT_BATCH_SIZE) // training.world_size)
            half = f"warm_start_batch_size: {rows // 2 * training.world_size}" if rows > 1 else None
        batch = _of_tree(judge, rows, max(sizes), supports_shared_prefix(judge.model)[0])
    if setup_of(judge.model, training).zero_stage:
        name += ", which is not sharded"
    setup = replace(setup_of(judge.model, training, sharded=False), reference=False)
    _log(judge.model, name, batch, setup, options.model_config, half)


def _log(
    model: PreTrainedModel, name: str, batch: MicroBatch, setup: Setup, model_config: ModelConfig, half: str | None
) -> None:
    """Logs the memory of this step; warns if it does not fit. `half` is the option with half the batch, if any."""
    parts = _estimate(model, batch, setup, model_config)
    loaded, free = _loaded_and_free(model)
    names = ", ".join(f"{name} {_size(size)}" for name, size in parts.items() if size)
    text = f"memory of {name}: about {_size(sum(parts.values()))} a process ({names}); "
    text += f"free beside the loaded weights: {_size(free)}"
    if sum(parts.values()) - loaded <= free:
        logger.info(text)
    else:
        logger.warning(f"{text}: it may not fit; {_what_to_lower(model, batch, setup, model_config, half)}")


def _half(name: str, training: TrainingArguments) -> str | None:
    size = getattr(training, name)
    return f"{name}: {size // 2} with twice the gradient_accumulation_steps" if size > 1 else None


def _sizes(prompts: Sequence[tuple[EncodedPrompt, ...]]) -> list[int]:
    return [len(prompt.ids) for both in prompts for prompt in both]


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
    orders = 2 if mode == EXACT and training.orders == "coupled" else 1
    reasoned = training.max_completion_length if mode == REASONING else 0
    return _of_tree(judge, orders * training.per_device_train_batch_size, longest, shared, reasoned)


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


def _of_tree(judge: Judge, rows: int, longest: int, shared: bool, reasoned: int = 0) -> MicroBatch:
    """The tree of all answers after every prompt, or after a reasoning that has a row of its own."""
    leaves = judge.tree.leaf_paths
    if shared:
        nodes = _nodes(judge)
        return MicroBatch(rows, longest, nodes, rows * (1 + nodes))
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
    model: PreTrainedModel, batch: MicroBatch, setup: Setup, model_config: ModelConfig, half: str | None
) -> str:
    """What each option would bring, as text."""
    options = {}
    if half:
        halved = replace(batch, positions=batch.positions // 2, caches=batch.caches / 2)
        fewer = {"prompts": batch.prompts // 2} if batch.prompts > 1 else {"suffix": batch.suffix // 2}
        options[half] = (replace(halved, **fewer), setup, model_config)
    if batch.longest:  # responses of a pointwise judge are counted in `suffix`
        options["half of max_prompt_tokens"] = (replace(batch, longest=batch.longest // 2), setup, model_config)
    if not setup.checkpointing:
        options["gradient_checkpointing: true"] = (batch, replace(setup, checkpointing=True), model_config)
    if not model_config.use_peft:
        options["use_peft: true"] = (batch, setup, replace(model_config, use_peft=True))
    needed = {}
    for name, option in options.items():
        with suppress(ValueError):  # PEFT may refuse the lora_target_modules
            needed[name] = sum(_estimate(model, *option).values())
    now = sum(_estimate(model, batch, setup, model_config).values())
    return "what would lower it: " + ", ".join(f"{name} ({_size(n)})" for name, n in needed.items() if n < now)


def _size(size: float) -> str:
    return f"{size / GIB:.1f} GiB" if size >= GIB / 2 else f"{size / 2**20:.0f} MiB"
