"""The policy: a causal language model with its tokenizer, loaded or built from scratch.

With a name or a path it is any causal LM that transformers can load. Without one, `build_policy` makes a small Qwen2
with random weights and a byte-level BPE tokenizer trained on the texts at hand, so that a first run needs no download
and a CPU is enough. Such a policy knows nothing: `autorater.training.warm_start` teaches it to speak.

Deliberately left out: quantization and device maps, which `model_init_kwargs` passes through to transformers.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)


def load_policy(
    name_or_path: str, *, dtype: str | None = None, **model_init_kwargs
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Any causal LM of the Hub or of a local folder, with its tokenizer padded on the left.

    Args:
        name_or_path: A Hub name or a folder written by `save_pretrained`. A LoRA folder loads its base model too.
        dtype: A torch dtype name or `auto`; by default bfloat16 where there is a GPU and float32 elsewhere.
        model_init_kwargs: Passed to `from_pretrained` (revision, attn_implementation, quantization_config, …).

    Raises:
        FileNotFoundError: If a local path is meant and there is no model in it.
    """
    check_model_path(name_or_path)
    if dtype is None:
        dtype = "bfloat16" if torch.cuda.is_available() else "float32"
    tokenizer_kwargs = {k: v for k, v in model_init_kwargs.items() if k in ("revision", "trust_remote_code")}
    tokenizer = AutoTokenizer.from_pretrained(name_or_path, padding_side="left", **tokenizer_kwargs)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(name_or_path, dtype=dtype, **model_init_kwargs)
    return model, tokenizer


def train_only(model: PreTrainedModel, names: Sequence[str]) -> None:
    """Freezes every parameter whose name holds none of `names`.

    Args:
        model: Its own parameters, not those of adapters.
        names: Parts of parameter names, such as `embed_tokens` or `layers.1.`.

    Raises:
        ValueError: If one of them is in no parameter's name.
    """
    known = [name for name, _ in model.named_parameters()]
    for part in names:
        if not any(part in name for name in known):
            raise ValueError(f"train_only: no parameter's name holds {part!r}; there are {', '.join(known)[:400]}, …")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(part in name for part in names))


def check_model_path(name_or_path: str) -> None:
    """Says early and plainly that a local model folder is not there or holds no model."""
    path = Path(name_or_path)
    if path.is_dir():
        if not any((path / f).exists() for f in ("config.json", "adapter_config.json")):
            raise FileNotFoundError(f"{path}: no config.json or adapter_config.json, so this folder holds no model")
    elif path.exists():
        raise FileNotFoundError(f"{path} is a file; a model is a folder written by save_pretrained")
    elif name_or_path.startswith((".", "/", "~")) or name_or_path.count("/") > 1:
        raise FileNotFoundError(f"{path}: no such model folder")
