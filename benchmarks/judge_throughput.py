"""Pairs judged in both orders a second: one forward pass a prompt against greedy generation.

    python benchmarks/judge_throughput.py
    python benchmarks/judge_throughput.py --device cuda --shape qwen2.5-7b --generate_batch_sizes 16 64 256
    python benchmarks/judge_throughput.py --model runs/grpo_simulated      # a trained judge: do they agree?

    exact      `Judge.judge_prompts`: the whole answer distribution, mean, mode and spread, with its default batches
    generate   batched greedy `model.generate` on left-padded prompts of like length, at the fastest of the batch sizes
               given; it stops at the first token of the closing tag, or after as many tokens as the longest answer

Generation gets two advantages: its batch size is tuned and that of the judge is not, and with random weights, which
never close a tag, it is stopped at the shortest length at which "0.85" can be told from "0.8".

With `--model` the prompts are held-out simulated pairs as they come (length 0 in `--prompt_tokens`), and `agreement`
is the share of prompts whose most likely answer is the one that greedy decoding writes; with random weights it is
null.
"""

import argparse
import copy

import numpy as np
import torch
from harness.inputs import (
    PROMPT_FORMAT,
    chosen_shape,
    judge_tokenizer,
    pairs_of_length,
    random_model,
    shape_arguments,
)
from harness.measure import alternate, chosen_dtype, emit, machine, machine_arguments, say, timed
from transformers import PreTrainedModel

from autorater.answers import AnswerTree
from autorater.console import quiet_libraries
from autorater.judges import Judge
from autorater.population import simulate_pairs
from autorater.prompts import EncodedPrompt, pad_prompts
from rewards import CLOSE_TAG, parse_probability

AS_THEY_COME = 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[machine_arguments(), shape_arguments()],
    )
    parser.add_argument("--repeats", type=int, default=5, help="Rounds that count, per side.")
    parser.add_argument("--model", help="Folder or Hub name of a judge, in place of random weights.")
    parser.add_argument("--prompt_tokens", type=int, nargs="+", help="A case each; default 128 512 1024.")
    parser.add_argument("--n_pairs", type=int, default=32)
    parser.add_argument("--answer_step", type=float, help="Answer grid; default 0.01, or as saved with --model.")
    parser.add_argument("--generate_batch_sizes", type=int, nargs="+", default=[8, 32, 64])
    args = parser.parse_args(argv)
    args.prompt_tokens = args.prompt_tokens or ([AS_THEY_COME] if args.model else [128, 512, 1024])
    return args


def build_judge(args: argparse.Namespace) -> Judge:
    dtype = chosen_dtype(args)
    if args.model:
        return Judge.from_pretrained(
            args.model, device=args.device, answer_step=args.answer_step, dtype=str(dtype).removeprefix("torch.")
        )
    tokenizer = judge_tokenizer()
    model = random_model(chosen_shape(args), tokenizer, args.device, dtype).eval()
    return Judge(model, tokenizer, PROMPT_FORMAT, args.answer_step or 0.01)


def terminators(tree: AnswerTree) -> list[int]:
    """The tokens that end an answer: the last one of every string of the tree."""
    n_reads = len(tree.edge_tokens)
    last = {path[path < n_reads][-1].item() for path in tree.paths}
    return sorted({tree.edge_tokens[read].item() for read in last})


class GreedyJudge:
    """What one would write without the answer tree. `model` is a copy: the judge's own attention stays out of it."""

    def __init__(self, model: PreTrainedModel, judge: Judge):
        self.model, self.tokenizer = model, judge.tokenizer
        self.ends = terminators(judge.tree)
        self.options = {
            "do_sample": False,
            "max_new_tokens": judge.tree.depth,
            "eos_token_id": [judge.tokenizer.eos_token_id, *self.ends],
            "pad_token_id": judge.tokenizer.pad_token_id,
        }

    @torch.inference_mode()
    def answers(self, prompts: list[list[int]], batch_size: int) -> list[float | None]:
        """Answers of N prompts; None where the text is none."""
        answers: list[float | None] = [None] * len(prompts)
        by_length = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
        for start in range(0, len(prompts), batch_size):
            rows = by_length[start : start + batch_size]
            ids, mask = pad_prompts([prompts[i] for i in rows], self.tokenizer.pad_token_id, self.model.device)
            written = self.model.generate(input_ids=ids, attention_mask=mask, **self.options)[:, ids.shape[1] :]
            for i, tokens in zip(rows, written.tolist(), strict=True):
                answers[i] = self._read(tokens)
        return answers

    def _read(self, tokens: list[int]) -> float | None:
        end = next((t for t, token in enumerate(tokens) if token in self.ends), None)
        return (
            None if end is None else parse_probability(self.tokenizer.decode(tokens[:end]) + CLOSE_TAG, prefilled=True)
        )


def encode(judge: Judge, prompt_tokens: int, n_pairs: int) -> list[tuple[EncodedPrompt, EncodedPrompt]]:
    if prompt_tokens == AS_THEY_COME:
        return judge.encoder.encode(simulate_pairs(n_pairs, held_out=True).pairs)
    return judge.encoder.encode(pairs_of_length(judge.encoder, prompt_tokens, n_pairs))


def measure(judge: Judge, greedy: GreedyJudge, prompt_tokens: int, args: argparse.Namespace) -> dict[str, object]:
    prompts = encode(judge, prompt_tokens, args.n_pairs)
    flat = [prompt.ids for both in prompts for prompt in both]

    def generate(batch_size: int):
        return timed(lambda: greedy.answers(flat, batch_size), args.device)

    sizes = sorted({min(size, len(flat)) for size in args.generate_batch_sizes})
    tuned = alternate({f"generate by {size}": generate(size) for size in sizes}, repeats=1)
    best = min(sizes, key=lambda size: tuned[f"generate by {size}"])
    seconds = alternate(
        {"exact": timed(lambda: judge.judge_prompts(prompts), args.device), "generate": generate(best)}, args.repeats
    )
    agreement = None
    if args.model:
        modes = judge.judge_prompts(prompts).mode.reshape(-1)
        written = greedy.answers(flat, best)
        agreement = float(np.mean([w is not None and abs(w - m) < 1e-6 for w, m in zip(written, modes, strict=True)]))
    return {
        "benchmark": "judge_throughput",
        "model": args.model or args.shape,
        "parameters": sum(p.numel() for p in judge.model.parameters()),
        "prompt_tokens": prompt_tokens or None,
        "mean_prompt_tokens": float(np.mean([len(ids) for ids in flat])),
        "n_pairs": args.n_pairs,
        "answer_step": judge.tree.step,
        "answer_tokens": judge.tree.depth,
        "repeats": args.repeats,
        "exact_pairs_per_second": args.n_pairs / seconds["exact"],
        "generate_pairs_per_second": args.n_pairs / seconds["generate"],
        "ratio": seconds["generate"] / seconds["exact"],
        "generate_batch_size": best,
        "agreement": agreement,
        **machine(args.device, chosen_dtype(args)),
    }


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    quiet_libraries()
    judge = build_judge(args)
    greedy = GreedyJudge(copy.deepcopy(judge.model), judge)
    for prompt_tokens in args.prompt_tokens:
        say(f"prompts of {prompt_tokens} tokens" if prompt_tokens else "prompts as they come")
        emit(measure(judge, greedy, prompt_tokens, args))


if __name__ == "__main__":
    main()
