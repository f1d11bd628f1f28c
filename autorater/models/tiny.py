"""A small Qwen2 with random weights and its tokenizer, so that a first run needs no download."""

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
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
    """A byte-level BPE tokenizer (single digits, no unknown token) trained on `texts`."""
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
    """A small Qwen2 (float32, on the CPU) with random weights and a tokenizer trained on `texts`.

    Args:
        texts: Texts of the training pairs, without those of the evaluation pairs.
        vocab_size: Maximum vocabulary size.
        hidden_size, num_layers, num_heads: Shape of the transformer; the default has about 1 M parameters.
        rope_theta: Base of the rotary positions. With few dimensions per head and hundreds of tokens a larger base is
            better: at 10,000 only the slowest third turns by less than a radian in 300 tokens.
        max_length: Maximum tokens of prompt and answer.
        seed: Seed of the weights.
    """
    tokenizer = build_tokenizer(texts, vocab_size)
    set_seed(seed)
    rope = {"rope_type": "default", "rope_theta": rope_theta}
    config = small_config(tokenizer, hidden_size, num_layers, num_heads, max_length, rope_parameters=rope)
    return Qwen2ForCausalLM(config), tokenizer


def small_config(
    tokenizer: PreTrainedTokenizerBase, hidden_size: int, num_layers: int, num_heads: int, max_length: int, **options
) -> Qwen2Config:
    """Configuration of a small Qwen2; arguments as in `build_policy`, options as in `Qwen2Config`."""
    return Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=3 * hidden_size,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        num_key_value_heads=num_heads,
        max_position_embeddings=max_length,
        initializer_range=hidden_size**-0.5 / 2,  # transformers' 0.02 is for models ten times as wide
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **options,
    )
