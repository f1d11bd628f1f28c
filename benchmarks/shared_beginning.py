"""Loss and gradients of a micro-batch of judge prompts that begin alike: the beginning read once or for every prompt.

    python benchmarks/shared_beginning.py
    python benchmarks/shared_beginning.py --common_tokens 0 --own_tokens 750                   # nothing to share
    python benchmarks/shared_beginning.py --shape smollm2-135m --gradient_checkpointing        # an hour on one core
    python benchmarks/shared_beginning.py --device cuda --shape qwen2.5-7b --lora_rank 16 --gradient_checkpointing

    plain     every prompt in a row of its own, read once for all its answers
    shared    what the prompts begin with is read once too (`autorater.models.shared_beginning`)
    floor     forward and backward pass over the distinct tokens alone (`harness.floor`)

Pairs in both orders: common instructions, a question, two responses in two orders. `exact` is the loss over the whole
answer grid, `sampled` a policy gradient on G given completions a prompt; generation and optimizer, which are the same
on both sides, are not included. On a CPU seconds are processor time, which other programs do not lengthen.
`peak_of_estimate` is the peak of `plain` relative to the estimate of `autorater.models.memory`; `gradient_difference`
the largest difference of a gradient, relative to the largest gradient; `exact`: it is within 1e-4 in float32, 0.1 in
bfloat16.
"""

import argparse

import torch
from harness.floor import distinct_tokens, floor_pass, utilization
from harness.gradients import GRADIENT_TOLERANCE, gradient_difference
from harness.inputs import TINY, Shape, chosen_shape, judge_tokenizer, model_parser, random_model
from harness.measure import (
    alternate,
    chosen_dtype,
    emit,
    machine,
    peak_growth,
    processed,
    ratio,
    say,
    with_free_memory,
)
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel

from autorater.models.answers import AnswerTree
from autorater.models.libraries import quiet_libraries
from autorater.models.memory import LOGIT_BYTES, MicroBatch, Setup, count_parameters, step_memory
from autorater.models.shared_beginning import share_beginnings
from autorater.models.shared_prefix import shared_prefix_logps
from autorater.training.exact_loss import ExactLoss, WeightedReward
from rewards import OPEN_TAG, brier_reward

SIDES = {"plain": False, "shared": True}


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = model_parser(__doc__, repeats=3, trains=True)
    parser.add_argument("--pairs", type=int, default=16, help="Pairs of the micro-batch, each in both orders.")
    parser.add_argument("--common_tokens", type=int, default=600, help="Tokens that all prompts begin with.")
    parser.add_argument("--own_tokens", type=int, default=150, help="Its other tokens, a fifth the question.")
    return parser.parse_args(argv)


def make_prompts(args: argparse.Namespace) -> list[list[int]]:
    """Random token ids, so that nothing else is in common; prompts 2 i and 2 i + 1 are the orders of a pair."""
    generator = torch.Generator().manual_seed(0)

    def text(n_tokens: int) -> list[int]:
        return torch.randint(10, TINY.vocab_size // 8, (n_tokens,), generator=generator).tolist()

    question = args.own_tokens // 5
    response = (args.own_tokens - question) // 2
    common, prompts = text(args.common_tokens), []
    for _ in range(args.pairs):
        q, a, b = text(question), text(response), text(args.own_tokens - question - response)
        prompts += [[*common, *q, *a, *b], [*common, *q, *b, *a]]
    return prompts


class Micro:
    """A micro-batch and a model; `loss_of` by kind of answers."""

    def __init__(self, shape: Shape, args: argparse.Namespace):
        tokenizer = judge_tokenizer()
        self.args = args
        self.model: PreTrainedModel | PeftModel = random_model(shape, tokenizer, args.device, chosen_dtype(args))
        if args.lora_rank:
            self.model = get_peft_model(self.model, LoraConfig(r=args.lora_rank, target_modules="all-linear"))
        if args.gradient_checkpointing:
            self.model.gradient_checkpointing_enable({"use_reentrant": False})
        self.model.train()
        self.prompts = make_prompts(args)
        self.ids = torch.tensor(self.prompts, device=args.device)
        self.mask = torch.ones_like(self.ids)
        self.tree = AnswerTree(tokenizer, OPEN_TAG, args.answer_step)
        self.labels = torch.tensor([0.0, 1.0] * args.pairs, device=args.device)
        size = (len(self.prompts), args.num_generations, args.completion_tokens)
        completions = torch.randint(10, TINY.vocab_size // 8, size, generator=torch.Generator().manual_seed(1))
        self.completions = completions.to(args.device)

    def suffix_tokens(self, answers: str) -> int:
        if answers == "exact":
            return len(self.tree.closed(0).tokens)
        return self.args.num_generations * self.args.completion_tokens

    def loss(self, answers: str) -> torch.Tensor:
        if answers == "exact":
            distribution = self.tree.distribution(self.model, self.ids, self.mask, closing=0)
            reward = WeightedReward([brier_reward], [1.0])
            return ExactLoss(reward, entropy_coef=0.02)(distribution, self.labels)[0]
        ones = torch.ones_like(self.completions)
        logps, entropies = shared_prefix_logps(self.model, self.ids, self.mask, self.completions, ones)
        advantages = torch.linspace(-1, 1, self.args.num_generations, device=self.ids.device)[:, None]
        return -(advantages * logps).mean() - 0.02 * entropies.mean()

    def step(self, answers: str, side: str) -> None:
        share_beginnings(self.model, SIDES[side])
        self.loss(answers).backward()


def measured_memory(side: str, answers: str, shape: Shape, args: argparse.Namespace) -> int | None:
    """Peak bytes of a step above the weights. A tiny step before it triggers lazy imports."""
    quiet_libraries()
    for size in (TINY, shape):
        batch = Micro(size, args)
        growth = peak_growth(lambda batch=batch: batch.step(answers, side), args.device)
    return growth


def estimate(batch: Micro, answers: str) -> float:
    """Peak bytes of `plain` above the weights, by `autorater.models.memory`."""
    prompts, suffix = len(batch.prompts), batch.suffix_tokens(answers)
    logit_bytes = LOGIT_BYTES if answers == "exact" else LOGIT_BYTES + 8  # entropies keep two more copies
    sizes = MicroBatch(prompts, len(batch.prompts[0]), suffix, prompts * (1 + suffix), logit_bytes)
    setup = Setup(element=batch.model.dtype.itemsize, checkpointing=batch.args.gradient_checkpointing)
    parts = step_memory(batch.model.config, *count_parameters(batch.model), sizes, setup)
    return sum(parts[name] for name in ("gradients", "activations", "logits"))


def measure(answers: str, args: argparse.Namespace) -> dict[str, object]:
    shape = chosen_shape(args)
    peak: dict[str, int | None] = dict.fromkeys(SIDES)
    if args.memory:
        for side in SIDES:
            peak[side] = with_free_memory(measured_memory, side, answers, shape, args, device=args.device)
    batch = Micro(shape, args)
    suffix = batch.suffix_tokens(answers)
    distinct, kept = distinct_tokens(batch.prompts, suffix), len(batch.prompts) * (1 + suffix)
    floor = floor_pass(batch.model, distinct, len(batch.prompts[0]), kept)

    def one(side: str) -> None:
        batch.step(answers, side)
        batch.model.zero_grad()

    sides = {side: processed(lambda side=side: one(side), args.device) for side in SIDES}
    seconds = alternate(sides | {"floor": processed(floor, args.device)}, args.repeats)
    steps = (lambda side=side: batch.step(answers, side) for side in ("shared", "plain"))
    difference, dtype = gradient_difference(batch.model, *steps), chosen_dtype(args)
    return {
        "benchmark": "shared_beginning",
        "answers": answers,
        "model": args.shape,
        "parameters": sum(p.numel() for p in batch.model.parameters()),
        **{name: getattr(args, name) for name in ("pairs", "common_tokens", "own_tokens")},
        **{name: getattr(args, name) for name in ("lora_rank", "gradient_checkpointing")},
        "suffix_tokens": suffix,
        "plain_tokens": len(batch.prompts) * (len(batch.prompts[0]) + suffix),
        "distinct_tokens": distinct,
        "repeats": args.repeats,
        **{f"{side}_seconds": seconds[side] for side in seconds},
        "ratio": ratio(seconds["plain"], seconds["shared"]),
        "of_floor": ratio(seconds["shared"], seconds["floor"]),
        "utilization": utilization(batch.model, distinct, kept, seconds["shared"]),
        "plain_peak_bytes": peak["plain"],
        "shared_peak_bytes": peak["shared"],
        "memory_ratio": ratio(peak["plain"], peak["shared"]),
        "peak_of_estimate": ratio(peak["plain"], estimate(batch, answers)),
        "gradient_difference": difference,
        "exact": difference <= GRADIENT_TOLERANCE[dtype],
        **machine(args.device, dtype),
    }


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    quiet_libraries()
    for answers in args.answers:
        say(f"{args.pairs} pairs in both orders, {args.common_tokens} common tokens, {answers} answers")
        emit(measure(answers, args))


if __name__ == "__main__":
    main()
