"""Any causal language model that transformers can load, with its tokenizer.

Deliberately left out: quantization and device maps, which `model_init_kwargs` passes through to transformers.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from autorater.data.errors import UserError


def load_policy(
    name_or_path: str, *, dtype: str | None = None, **model_init_kwargs
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A causal language model of the Hub or of a local folder, with its tokenizer padded on the left.

    Args:
        name_or_path: A Hub name or a folder written by `save_pretrained`. A LoRA folder loads its base model too.
        dtype: A torch dtype name or `auto`; by default bfloat16 on a GPU and float32 elsewhere.
        model_init_kwargs: Passed to `from_pretrained` (revision, attn_implementation, quantization_config, …).

    Raises:
        UserError: If there is no such model, or it cannot be loaded; the message says why.
    """
    check_model_path(name_or_path)
    if dtype is None:
        dtype = "bfloat16" if torch.cuda.is_available() else "float32"
    tokenizer_kwargs = {k: v for k, v in model_init_kwargs.items() if k in ("revision", "trust_remote_code")}
    try:
        tokenizer = AutoTokenizer.from_pretrained(name_or_path, padding_side="left", **tokenizer_kwargs)
        model = AutoModelForCausalLM.from_pretrained(name_or_path, dtype=dtype, **model_init_kwargs)
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).strip().split("\n")[0][:300]
        raise UserError(f"{name_or_path} cannot be loaded as a causal language model: {reason}") from error
    if len(tokenizer) == len(tokenizer.all_special_tokens):  # transformers builds an empty one if there are no files
        raise UserError(f"{name_or_path} has no tokenizer; expected the files that its save_pretrained writes")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model, tokenizer


def check_model_path(name_or_path: str) -> None:
    """Raises UserError if a path is no model folder, or is an adapter whose local base model does not exist."""
    path = Path(name_or_path)
    adapter = path / "adapter_config.json"
    if path.is_file():
        raise UserError(f"{path} is a file; expected a model folder written by save_pretrained")
    if not path.exists():
        if _is_local(name_or_path):
            raise UserError(f"{path}: no such model folder")
    elif adapter.exists():
        try:
            base = json.loads(adapter.read_text(encoding="utf-8")).get("base_model_name_or_path") or ""
        except (ValueError, AttributeError):
            raise UserError(f"{adapter} is not a JSON object") from None
        if _is_local(base) and not Path(base).exists():
            raise UserError(
                f"{adapter} names the base model {base}, which is not there; move it back, or change "
                "base_model_name_or_path in that file to its new place"
            )
    elif not (path / "config.json").exists():
        raise UserError(f"{path}: no config.json or adapter_config.json, so this folder holds no model")


def _is_local(name_or_path: str) -> bool:
    """Whether a name cannot be a Hub name."""
    return name_or_path.startswith((".", "/", "~")) or name_or_path.count("/") > 1


def train_only(model: PreTrainedModel, names: Sequence[str]) -> None:
    """Freezes every parameter whose name contains none of `names`, such as `embed_tokens` or `layers.1.`.

    Raises:
        UserError: If one of them is in no parameter's name.
    """
    parameters = dict(model.named_parameters())
    for part in names:
        if not any(part in name for name in parameters):
            raise UserError(
                f"train_only: no parameter's name contains {part!r}; expected part of {', '.join(parameters)[:400]}, …"
            )
    for name, parameter in parameters.items():
        parameter.requires_grad_(any(part in name for part in names))
