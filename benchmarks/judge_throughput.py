"""Judged pairs per second, both orders: one forward pass per prompt against greedy generation.

    python benchmarks/judge_throughput.py
    python benchmarks/judge_throughput.py --device cuda --shape qwen2.5-7b --generate_batch_sizes 16 64 256
    python benchmarks/judge_throughput.py --model runs/grpo_simulated      # a trained judge: do the answers agree?
    VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --served-model-name judge --port 8000        # in another shell
    python benchmarks/judge_throughput.py --model MODEL --dataset_name votes.jsonl --vllm_url http://localhost:8000

    exact      `Judge.judge_prompts`: the whole answer distribution, mean, mode, spread and greedy answer, with its
               default batches
    generate   batched greedy `model.generate` on left-padded prompts of similar length, at the fastest of the given
               batch sizes; it stops at the first token of the closing tag, or after the tokens of the longest answer
    to_end     the usual way: until the closing tag is complete and the text has ended
    floor      forward pass over the distinct tokens alone (`harness.floor`): of the beginnings of the prompts each
               different one once (instructions, question, first response), and the answer tree of every prompt
    vllm       a vLLM server reads the same prompts, all in one request, and writes one token each: the least that
               reads a verdict. Its prefix cache is emptied before every round
    one_token  what vllm does, in this library: the prompts without an answer tree, and the likeliest next token

`ratio` is relative to `generate`; `ratio_to_end` is reported too, and of vllm `ratio_to_vllm` and, for the same work,
`ratio_to_vllm_of_one_token`. Generation has two advantages: its batch size is tuned and that of the judge is not, and
with random weights, which never close a tag, it is stopped at the shortest length at which "0.85" differs from "0.8"
(`to_end`: at the length of "0.85", closing tag and end).

The number of tokens limits the ratio where arithmetic is the bottleneck: `exact_tokens` and `generate_tokens` per
prompt, the former distinct ones as in the floor. `common_tokens` are the same for all prompts (the instructions).

With `--model` the prompts have their natural length (0 in `--prompt_tokens`): held-out simulated pairs, or pairs of
`--dataset_name`, the first `--n_pairs` of the file. `agreement` is the share of prompts for which the exact method
reports the answer that greedy decoding generates, a number or none; `mode_is_greedy` is the share whose mode is that
number. With random weights both are null.
"""

import argparse
import copy
import json
import urllib.request

import numpy as np
import torch
from harness.floor import distinct_tokens, floor_pass, utilization
from harness.inputs import chosen_shape, judge_tokenizer, model_parser, pairs_of_length, random_model
from harness.measure import alternate, chosen_dtype, emit, machine, ratio, say, timed
from transformers import PreTrainedModel

from autorater.data.loading import load_pairs
from autorater.data.population import simulate_pairs
from autorater.judges import Judge
from autorater.models.answers import AnswerTree
from autorater.models.libraries import quiet_libraries
from autorater.models.token_tree import TokenTree
from autorater.prompts.batching import pad_prompts
from autorater.prompts.beginnings import common_beginning
from autorater.prompts.encoder import EncodedPrompt
from autorater.prompts.templates import PromptFormat
from rewards import CLOSE_TAG, parse_probability

AS_THEY_COME = 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = model_parser(__doc__, repeats=5)
    parser.add_argument("--model", help="Folder or Hub name of a judge, in place of random weights.")
    parser.add_argument("--prompt_tokens", type=int, nargs="+", help="A case each; default 512 1024.")
    parser.add_argument("--layout", choices=("full", "compact"), default="full", help="Of prompts to random weights.")
    parser.add_argument("--dataset_name", help="With --model: pairs to judge, in place of simulated ones.")
    parser.add_argument("--vllm_url", help="A vLLM server of the same model (VLLM_SERVER_DEV_MODE=1), named judge.")
    parser.add_argument("--n_pairs", type=int, default=32)
    parser.add_argument("--answer_step", type=float, help="Answer grid; default 0.01, or as saved with --model.")
    parser.add_argument("--generate_batch_sizes", type=int, nargs="+", default=[8, 32, 64])
    args = parser.parse_args(argv)
    if args.dataset_name and (not args.model or args.prompt_tokens):
        parser.error("--dataset_name requires --model, and has no --prompt_tokens")
    args.prompt_tokens = args.prompt_tokens or ([AS_THEY_COME] if args.model else [512, 1024])
    return args


def build_judge(args: argparse.Namespace) -> Judge:
    dtype = chosen_dtype(args)
    if args.model:
        return Judge.from_pretrained(
            args.model, device=args.device, answer_step=args.answer_step, dtype=str(dtype).removeprefix("torch.")
        )
    tokenizer = judge_tokenizer()
    model = random_model(chosen_shape(args), tokenizer, args.device, dtype).eval()
    return Judge(model, tokenizer, PromptFormat(args.layout), args.answer_step or 0.01)


def terminators(tree: AnswerTree) -> list[int]:
    """The tokens that end an answer: the last token of every string of the tree."""
    n_reads = len(tree.edge_tokens)
    last = {path[path < n_reads][-1].item() for path in tree.paths}
    return sorted({tree.edge_tokens[read].item() for read in last})


class GreedyJudge:
    """The implementation without an answer tree. `model` is a copy, with standard attention.

    Args:
        to_end: Write on until the text ends, not only until the answer does.
    """

    def __init__(self, model: PreTrainedModel, judge: Judge, to_end: bool = False):
        self.model, self.tokenizer = model, judge.tokenizer
        self.ends = terminators(judge.tree)
        eos = judge.tokenizer.eos_token_id
        whole = judge.tokenizer("0.85" + CLOSE_TAG, add_special_tokens=False)["input_ids"]
        self.longest = len(whole) + 1 if to_end else judge.tree.depth
        self.options = {
            "do_sample": False,
            "max_new_tokens": self.longest,
            "eos_token_id": eos if to_end else [eos, *self.ends],
            "pad_token_id": judge.tokenizer.pad_token_id,
        }

    @torch.inference_mode()
    def answers(self, prompts: list[list[int]], batch_size: int) -> list[float | None]:
        """Answers of N prompts; None where the text does not parse."""
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


def on_grid(answers: list[float | None], tree: AnswerTree) -> np.ndarray:
    """Answers as numbers, NaN if unparsed or off the grid."""
    written = np.array([np.nan if answer is None else answer for answer in answers])
    known = np.isclose(written[:, None], tree.values).any(axis=1)
    return np.where(known, written, np.nan)


def encode(judge: Judge, prompt_tokens: int, args: argparse.Namespace) -> list[tuple[EncodedPrompt, EncodedPrompt]]:
    if prompt_tokens != AS_THEY_COME:
        pairs = pairs_of_length(judge.encoder, prompt_tokens, args.n_pairs)
    elif args.dataset_name:
        every = load_pairs(args.dataset_name, labelled=False)
        pairs = every[: args.n_pairs]
    else:
        pairs = simulate_pairs(args.n_pairs, held_out=True).pairs
    return judge.encoder.encode(pairs)


def vllm_seconds(url: str, prompts: list[list[int]], device: str) -> float:
    """Seconds in which a vLLM server with an empty prefix cache reads N prompts and writes a token after each."""

    def post(path: str, body: dict[str, object]) -> None:
        request = urllib.request.Request(url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
        urllib.request.urlopen(request).read()

    post("/reset_prefix_cache", {})
    body = {"model": "judge", "prompt": prompts, "max_tokens": 1, "temperature": 0}
    return timed(lambda: post("/v1/completions", body), device)()


def one_token(judge: Judge, prompts: list[tuple[EncodedPrompt, EncodedPrompt]]) -> list[torch.Tensor]:
    """The likeliest token after every prompt, in batches; a tree of one string of one token has no nodes."""
    flat = [prompt for both in prompts for prompt in both]
    return [logits.argmax(dim=-1) for _, logits in judge.logits_after(flat, TokenTree([[0]]))]


def measure(judge: Judge, model: PreTrainedModel, prompt_tokens: int, args: argparse.Namespace) -> dict[str, object]:
    greedy, to_end = GreedyJudge(model, judge), GreedyJudge(model, judge, to_end=True)
    prompts = encode(judge, prompt_tokens, args)
    flat = [prompt.ids for both in prompts for prompt in both]

    def generate(batch_size: int, writer: GreedyJudge = greedy):
        return timed(lambda: writer.answers(flat, batch_size), args.device)

    sizes = sorted({min(size, len(flat)) for size in args.generate_batch_sizes})
    tuned = alternate({f"generate by {size}": generate(size) for size in sizes}, repeats=1)
    best = min(sizes, key=lambda size: tuned[f"generate by {size}"])
    mean_tokens, tree_tokens = float(np.mean(list(map(len, flat)))), len(judge.tree.tokens)
    common = len(common_beginning(flat))
    distinct = distinct_tokens(flat, tree_tokens)
    kept = len(flat) * (1 + tree_tokens)
    sides = {
        "exact": timed(lambda: judge.judge_prompts(prompts), args.device),
        "generate": generate(best),
        "to_end": generate(best, to_end),
        "floor": timed(
            floor_pass(model, distinct, round(mean_tokens), kept, judge.max_batch_tokens, backward=False),
            args.device,
        ),
    }
    if args.vllm_url:
        sides["vllm"] = lambda: vllm_seconds(args.vllm_url, flat, args.device)
        sides["one_token"] = timed(lambda: one_token(judge, prompts), args.device)
    seconds = alternate(sides, args.repeats)
    agreement = mode_is_greedy = None
    if args.model:
        judgments = judge.judge_prompts(prompts)
        written = on_grid(greedy.answers(flat, best), judge.tree)
        agreement = float(np.isclose(judgments.greedy.reshape(-1), written, equal_nan=True).mean())
        mode_is_greedy = float(np.isclose(judgments.mode.reshape(-1), written).mean())
    return {
        "benchmark": "judge_throughput",
        "model": args.model or args.shape,
        "dataset": args.dataset_name,
        "parameters": sum(p.numel() for p in judge.model.parameters()),
        "prompt_tokens": prompt_tokens or None,
        "layout": judge.encoder.format.template,
        "mean_prompt_tokens": mean_tokens,
        "common_tokens": common,
        "tree_tokens": tree_tokens,
        "exact_tokens": distinct / len(flat),
        "generate_tokens": mean_tokens + greedy.longest - 1,
        "to_end_tokens": mean_tokens + to_end.longest - 1,
        "n_pairs": len(prompts),
        "answer_step": judge.tree.step,
        "answer_tokens": judge.tree.depth,
        "repeats": args.repeats,
        "exact_pairs_per_second": len(prompts) / seconds["exact"],
        "generate_pairs_per_second": len(prompts) / seconds["generate"],
        "to_end_pairs_per_second": len(prompts) / seconds["to_end"],
        "ratio": seconds["generate"] / seconds["exact"],
        "ratio_to_end": seconds["to_end"] / seconds["exact"],
        "ratio_to_vllm": ratio(seconds.get("vllm"), seconds["exact"]),
        "ratio_to_vllm_of_one_token": ratio(seconds.get("vllm"), seconds.get("one_token")),
        "distinct_tokens": distinct,
        "floor_seconds": seconds["floor"],
        "of_floor": seconds["exact"] / seconds["floor"],
        "utilization": utilization(judge.model, distinct, kept, seconds["exact"], backward=False),
        "generate_batch_size": best,
        "agreement": agreement,
        "mode_is_greedy": mode_is_greedy,
        **machine(args.device, chosen_dtype(args)),
    }


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    quiet_libraries()
    judge = build_judge(args)
    model = copy.deepcopy(judge.model)
    for prompt_tokens in args.prompt_tokens:
        say(f"prompts of {prompt_tokens} tokens" if prompt_tokens else "prompts as they come")
        emit(measure(judge, model, prompt_tokens, args))


if __name__ == "__main__":
    main()
