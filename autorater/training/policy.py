"""The policy of a run: opened from its name or folder, and again after a warm-up has saved another."""

import gc
from collections.abc import Callable, Sequence

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from autorater.data.errors import UserError
from autorater.judges import Judge
from autorater.judges.saved import log_plain_prompt, pieces_of, read_format
from autorater.models.loading import check_has_end, load_policy, train_only
from autorater.models.text_only import is_taken_out
from autorater.prompts.templates import SlotFormat
from autorater.training.checkpointing.record import RunRecord
from autorater.training.checkpointing.stages import EVALUATED
from autorater.training.config import model_init_kwargs
from autorater.training.options import RunOptions
from autorater.training.precision import warn_of_rounding


def open_policy(
    options: RunOptions,
    record: RunRecord,
    build: Callable[[], object],
    prompt_format: SlotFormat,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, Sequence[str]]:
    """The model to train, its tokenizer and its rendered prompt layout.

    Args:
        record: The run; once its first evaluation is completed, a warmed-up model is opened.
        build: Builds the policy of a run from scratch, as in `RunRecord.warm_started_policy`.
    """
    pretrained = options.pretrained
    base = pretrained or record.warm_started_policy(build)
    is_evaluated = EVALUATED in record.completed  # if its file is lost, even a warmed-up model is evaluated as it was
    model, tokenizer = open_model(options, (is_evaluated and record.warm_start) or base)
    if pretrained and not read_format(pretrained):
        log_plain_prompt(pretrained, tokenizer)
    pieces = record.prompt_pieces(prompt_format, lambda: pieces_of(base, tokenizer, prompt_format))
    return model, tokenizer, pieces


def open_model(options: RunOptions, base: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model to train, from its name or folder, and its tokenizer; an adapter is trained further."""
    args, training, model_config, _ = options
    model, tokenizer = load_policy(base, **model_init_kwargs(model_config, training.use_cpu))
    check_has_end(base, tokenizer)
    if getattr(training, "use_vllm", False) and is_taken_out(model):
        raise UserError(
            f"use_vllm: {base} reads images too, and its text model is trained, whose weights have other names than "
            "those in vLLM; save that with Judge.from_pretrained(…).model.save_pretrained and name its folder"
        )
    if args.train_only and isinstance(model, PeftModel):
        raise UserError(f"train_only: {base} is an adapter, of which all parameters are trained")
    if args.train_only:
        train_only(model, args.train_only)
    if not model_config.use_peft:  # its new weights are float32
        warn_of_rounding(model, training)
    return model.to(training.device), tokenizer


def reopen(judge: Judge, options: RunOptions, folder: str) -> None:
    """Gives a judge the model in a folder, after its own has left the memory: a trainer refers to itself."""
    judge.model = None
    gc.collect()
    torch.cuda.empty_cache()
    judge.model, _ = open_model(options, folder)
