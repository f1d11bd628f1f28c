"""The policy: a causal language model with its tokenizer, loaded or built from scratch.

With a name or a path it is any causal LM that transformers can load. Without one, `build_policy` makes a small Qwen2
with random weights and a byte-level BPE tokenizer trained on the texts at hand, so that a first run needs no download
and a CPU is enough. Such a policy knows nothing: `autorater.training.warm_start` teaches it to speak.

Deliberately left out: quantization and device maps, which `model_init_kwargs` passes through to transformers.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    set_seed,
)

EOS_TOKEN = "<|endoftext|>"
# words with their leading space, single digits (as Qwen and Gemma split them), runs of symbols, runs of white space
_WORDS = r" ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+"


def build_tokenizer(texts: Iterable[str], vocab_size: int = 2048) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer (digits split one by one, no unknown token) trained on `texts`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[EOS_TOKEN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=EOS_TOKEN,
        pad_token=EOS_TOKEN,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def build_policy(
    texts: Iterable[str],
    *,
    vocab_size: int = 2048,
    hidden_size: int = 128,
    num_layers: int = 4,
    num_heads: int = 4,
    rope_theta: float = 10_000.0,
    max_length: int = 2048,
    seed: int = 0,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A small Qwen2 with random weights and a tokenizer trained on `texts`.

    Args:
        texts: Texts of the training pairs; nothing from the evaluation pairs belongs here.
        vocab_size: Upper bound of the vocabulary.
        hidden_size, num_layers, num_heads: Shape of the transformer; the default has about 1 M parameters.
        rope_theta: Base of the rotary positions. Few dimensions a head and prompts of hundreds of tokens need a larger
            one: of 10,000 only the slowest third turns by less than a radian in 300 tokens.
        max_length: Longest prompt plus answer, in tokens.
        seed: Draws the weights.

    Returns:
        The model (float32, on the CPU) and its tokenizer.
    """
    tokenizer = build_tokenizer(texts, vocab_size)
    set_seed(seed)
    rope = {"rope_type": "default", "rope_theta": rope_theta}
    config = small_config(tokenizer, hidden_size, num_layers, num_heads, max_length, rope_parameters=rope)
    return Qwen2ForCausalLM(config), tokenizer


def small_config(
    tokenizer: PreTrainedTokenizerBase, hidden_size: int, num_layers: int, num_heads: int, max_length: int, **options
) -> Qwen2Config:
    """Shape of a small Qwen2 for a tokenizer; arguments as in `build_policy`, options as in `Qwen2Config`."""
    return Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=3 * hidden_size,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        num_key_value_heads=num_heads,
        max_position_embeddings=max_length,
        initializer_range=hidden_size**-0.5 / 2,  # transformers' 0.02 suits models ten times as wide
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **options,
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
