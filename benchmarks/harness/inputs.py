"""Inputs of the benchmarks: Qwen2 models of a given shape with random weights, and judge prompts of an exact length.

Speed does not depend on the values of weights and tokens but on their numbers, so these are exact: parameters,
vocabulary, and prompt tokens.
"""

import argparse
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Qwen2Config, Qwen2ForCausalLM, set_seed

from autorater.data.pairs import Pair
from autorater.data.population import simulate_pairs
from autorater.models.tiny import build_tokenizer
from autorater.prompts.encoder import PromptEncoder
from autorater.prompts.templates import PromptFormat
from harness.measure import machine_arguments
from rewards import CLOSE_TAG, OPEN_TAG

PROMPT_FORMAT = PromptFormat("compact")
_FILLER = " so"


@dataclass(frozen=True)
class Shape:
    """Shape of a Qwen2 model."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_key_value_heads: int
    tied: bool = True


SHAPES = {
    "small": Shape(8_192, 256, 768, 8, 4, 4),  # 8.9 M parameters
    "smollm2-135m": Shape(49_152, 576, 1_536, 30, 9, 3),
    "qwen2.5-0.5b": Shape(151_936, 896, 4_864, 24, 14, 2),
    "qwen2.5-7b": Shape(152_064, 3_584, 18_944, 28, 28, 4, tied=False),
}
TINY = Shape(8_192, 32, 96, 1, 4, 4)


def model_parser(description: str, *, repeats: int | None = None, trains: bool = False) -> argparse.ArgumentParser:
    """A parser with the options of a model with random weights, of the machine, and of what is measured.

    Args:
        description: The module docstring.
        repeats: Default of `--repeats`; None for a benchmark that measures no time.
        trains: Add the options of a training step: answers, completions, adapters, memory.
    """
    parser = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[machine_arguments()],
    )
    parser.add_argument("--shape", choices=SHAPES, default="small", help="Sizes of the model, with random weights.")
    parser.add_argument("--hidden_size", type=int, help="Override of the shape; the MLP is three times as wide.")
    parser.add_argument("--num_layers", type=int, help="Override of the shape.")
    parser.add_argument("--vocab_size", type=int, help="Override of the shape.")
    if repeats is not None:
        parser.add_argument("--repeats", type=int, default=repeats, help="Rounds that count, per side.")
    if trains:
        kinds = ("exact", "sampled")
        parser.add_argument("--answers", nargs="+", choices=kinds, default=list(kinds), help="A record each.")
        parser.add_argument("--answer_step", type=float, default=0.01, help="Grid of the exact answers.")
        parser.add_argument("--num_generations", type=int, default=8, help="Completions a prompt, G.")
        parser.add_argument("--completion_tokens", type=int, default=16)
        parser.add_argument("--gradient_checkpointing", action="store_true")
        parser.add_argument("--lora_rank", type=int, default=0, help="Train adapters of this rank; 0: all weights.")
        parser.add_argument("--memory", action=argparse.BooleanOptionalAction, default=True, help="Measure memory.")
    return parser


def chosen_shape(args: argparse.Namespace) -> Shape:
    """The shape of `model_parser`."""
    changes = {name: getattr(args, name) for name in ("hidden_size", "num_layers", "vocab_size")}
    if args.hidden_size:
        changes["intermediate_size"] = 3 * args.hidden_size
    return replace(SHAPES[args.shape], **{name: size for name, size in changes.items() if size})


def random_model(
    shape: Shape,
    tokenizer: PreTrainedTokenizerBase,
    device: str,
    dtype: torch.dtype,
    seed: int = 0,
    initializer_range: float = 0.02,
) -> PreTrainedModel:
    """A model of this shape, its weights with the deviation `initializer_range`; the same seed draws the same ones."""
    if len(tokenizer) > shape.vocab_size:
        raise ValueError(f"vocab_size must be at least {len(tokenizer)} for this tokenizer, got {shape.vocab_size}")
    set_seed(seed)
    config = Qwen2Config(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_key_value_heads,
        tie_word_embeddings=shape.tied,
        initializer_range=initializer_range,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.device(device):
        return Qwen2ForCausalLM._from_config(config, dtype=dtype)


def judge_tokenizer(seed: int = 0) -> PreTrainedTokenizerBase:
    """A tokenizer trained on the words of the simulated pairs and of the answer."""
    words = f"{PROMPT_FORMAT.text} {OPEN_TAG} {CLOSE_TAG} {_FILLER}"
    texts = [text for pair in simulate_pairs(500, seed=seed).pairs for text in (pair.prompt, pair.response_a, words)]
    return build_tokenizer(texts, max(SHAPES["small"].vocab_size, 2048))


def pairs_of_length(encoder: PromptEncoder, n_tokens: int, n_pairs: int, seed: int = 0) -> list[Pair]:
    """Simulated pairs whose prompts have `n_tokens` tokens in either order.

    Responses are lengthened by other simulated responses, and the last few tokens by a filler word.

    Raises:
        ValueError: If a pair alone is longer, or the filler is not one token to this tokenizer.
    """
    more = iter(simulate_pairs(n_pairs * max(1, n_tokens // 16), seed=seed + 1).pairs)
    return [_lengthen(encoder, pair, n_tokens, more) for pair in simulate_pairs(n_pairs, seed=seed).pairs]


def _lengthen(encoder: PromptEncoder, pair: Pair, n_tokens: int, more: Iterable[Pair]) -> Pair:
    def size(candidate: Pair) -> int:
        return len(encoder.encode([candidate])[0][0].ids)

    if size(pair) > n_tokens:
        raise ValueError(f"a judge prompt needs {size(pair)} tokens, but {n_tokens} were requested")
    for other in more:
        longer = replace(
            pair,
            response_a=f"{pair.response_a} {other.response_a}",
            response_b=f"{pair.response_b} {other.response_b}",
        )
        if size(longer) > n_tokens:
            break
        pair = longer
    filled = replace(pair, response_b=pair.response_b + _FILLER * (n_tokens - size(pair)))
    if size(filled) != n_tokens:
        raise ValueError(f"{_FILLER!r} is not one token to this tokenizer")
    return filled
