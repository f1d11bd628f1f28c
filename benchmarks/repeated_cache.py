"""Models whose layers carry a state along the row: the prompt processed once, or again for every answer.

    python benchmarks/repeated_cache.py
    python benchmarks/repeated_cache.py --answer_step 0.01 --repeats 1      # 102 answers for every prompt
    python benchmarks/repeated_cache.py --device cuda --hidden_size 2560 --num_layers 32 --vocab_size 248320

    plain      every leaf of the answer tree ends a sequence of its own, with the whole prompt
    repeated   the prompt is processed once, its cache repeated for every leaf (`autorater.models.repeated_cache`)
    floor      forward (and backward) pass over the prompts alone, without answers

Random weights in the layouts of Qwen3.5 (three layers of linear attention, then one of attention) and LFM2 (three of
convolutions, then one of attention). `read` is what a judge does, without gradients; `step` a loss of all answers,
forward and backward. On a CPU seconds are processor time; without their kernels, linear attention and convolutions
run in plain PyTorch.
"""

import argparse
from collections.abc import Callable

import torch
from harness.inputs import Shape, chosen_shape, judge_tokenizer, model_parser
from harness.measure import alternate, chosen_dtype, emit, machine, processed, ratio, say
from transformers import AutoModelForCausalLM, Lfm2Config, PreTrainedModel, Qwen3_5TextConfig, set_seed

from autorater.models.answers import AnswerTree
from autorater.models.libraries import quiet_libraries
from autorater.models.same_scores import TOLERANCE
from rewards import OPEN_TAG

_HEAD = 64


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = model_parser(__doc__, repeats=3)
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--prompt_tokens", type=int, default=350)
    parser.add_argument("--answer_step", type=float, default=0.1, help="Grid of the answers.")
    return parser.parse_args(argv)


def hybrid_model(family: str, shape: Shape, args: argparse.Namespace) -> PreTrainedModel:
    """A model of this width and depth."""
    stateful = {"qwen3_5": "linear_attention", "lfm2": "conv"}[family]
    heads = max(1, shape.hidden_size // _HEAD)
    sizes = {
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "layer_types": ["full_attention" if i % 4 == 3 else stateful for i in range(shape.num_layers)],
        "tie_word_embeddings": True,
        **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), 0),
    }
    if family == "qwen3_5":
        linear = {"linear_num_value_heads": heads, "linear_num_key_heads": heads}
        linear |= {"linear_key_head_dim": _HEAD, "linear_value_head_dim": _HEAD}
        config = Qwen3_5TextConfig(**sizes, **linear, head_dim=_HEAD)
    else:
        config = Lfm2Config(**sizes)
    set_seed(0)
    with torch.device(args.device):
        return AutoModelForCausalLM.from_config(config, dtype=chosen_dtype(args))


def measure(family: str, work: str, args: argparse.Namespace) -> dict[str, object]:
    model = hybrid_model(family, chosen_shape(args), args)
    tree = AnswerTree(judge_tokenizer(), OPEN_TAG, args.answer_step)
    size = (args.prompts, args.prompt_tokens)
    ids = torch.randint(10, 1000, size, generator=torch.Generator().manual_seed(0)).to(args.device)
    mask = torch.ones_like(ids)
    if not tree.repeats_cache(model, ids[0]):
        raise RuntimeError(f"{family}: the cache cannot be repeated")
    model.train(work == "step")

    def prompts_alone() -> torch.Tensor:
        return model(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=1).logits

    def repeated(*inputs) -> torch.Tensor:
        return tree.logits(*inputs) if work == "step" else tree.read_logits(model, ids.tolist())

    ways = {"plain": tree.plain_logits, "repeated": repeated}
    of_way = {name: lambda way=way: way(model, ids, mask) for name, way in ways.items()} | {"floor": prompts_alone}

    def run(logits: Callable[[], torch.Tensor]) -> None:
        with torch.set_grad_enabled(work == "step"):
            scores = logits().float().log_softmax(dim=-1)[..., 0]
            if work == "step":
                scores.mean().backward()
                model.zero_grad()

    sides = {name: processed(lambda way=way: run(way), args.device) for name, way in of_way.items()}
    seconds = alternate(sides, args.repeats)
    with torch.no_grad():
        both = [tree.log_probs(way(model, ids, mask)) for way in ways.values()]
    difference, dtype = (both[0] - both[1]).abs().mean().item(), chosen_dtype(args)
    return {
        "benchmark": "repeated_cache",
        "family": family,
        "work": work,
        "parameters": sum(p.numel() for p in model.parameters()),
        **{name: getattr(args, name) for name in ("prompts", "prompt_tokens", "answer_step", "repeats")},
        "leaves": len(tree.leaf_paths),
        **{f"{side}_seconds": seconds[side] for side in seconds},
        "ratio": ratio(seconds["plain"], seconds["repeated"]),
        "of_floor": ratio(seconds["repeated"], seconds["floor"]),
        "logps_difference": difference,
        "exact": difference <= TOLERANCE[dtype],
        **machine(args.device, dtype),
    }


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    quiet_libraries()
    for family in ("qwen3_5", "lfm2"):
        for work in ("read", "step"):
            say(f"{family}, {work}: {args.prompts} prompts of {args.prompt_tokens} tokens")
            emit(measure(family, work, args))


if __name__ == "__main__":
    main()
