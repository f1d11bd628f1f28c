"""One whole GRPO step: ours against `trl.GRPOTrainer`.

    python benchmarks/grpo_step.py
    python benchmarks/grpo_step.py --device cuda --shape qwen2.5-0.5b --prompt_tokens 512 1024 2048
    python benchmarks/grpo_step.py --device cuda --shape qwen2.5-7b --prompts 2 --lora_rank 16

A step includes generation, rewards, loss, backward pass, gradient clipping and optimizer, as in `trainer.train()`.
Both sides train models of the same shape on the same prompt ids with the same loss settings.

    trl       `trl.GRPOTrainer`; on a CPU also `sliced`, whose head skips prompt positions
    sampled   `SampledGRPOTrainer`: the same G completions per prompt, the prompt processed once
    exact     `ExactGRPOTrainer`: no completions, the whole answer grid of the same prompts
    floor     forward and backward pass over the distinct tokens of ours alone (`harness.floor`), without generation

Completions have exactly `--completion_tokens` tokens on either side. The first step is excluded; there ours also
compares the shared with the plain path. Peak memory is measured in the first step of a new trainer, on a CPU in a
separate process; `peak_of_estimate` is that of ours relative to the estimate of `autorater.training.memory`.
"""

import argparse
import tempfile

import torch
from datasets import Dataset
from harness.floor import floor_pass, utilization
from harness.inputs import (
    PROMPT_FORMAT,
    TINY,
    Shape,
    chosen_shape,
    judge_tokenizer,
    model_parser,
    pairs_of_length,
    random_model,
)
from harness.measure import (
    alternate,
    chosen_dtype,
    emit,
    machine,
    peak_growth,
    ratio,
    say,
    timed,
    with_free_memory,
)
from harness.trainers import STOCK, add_clock
from peft import LoraConfig
from trl import GRPOConfig, GRPOTrainer

from autorater.judges import Judge
from autorater.models.answers import AnswerTree
from autorater.models.libraries import quiet_libraries
from autorater.models.memory import count_parameters
from autorater.models.memory import step_memory as parts_of_step
from autorater.prompts.encoder import PromptEncoder
from autorater.training.config import JudgeGRPOConfig
from autorater.training.data import training_rows
from autorater.training.grpo import grpo_trainer
from autorater.training.memory import micro_batch, setup_of
from rewards import brier_reward


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = model_parser(__doc__, repeats=5, trains=True)
    parser.add_argument("--prompt_tokens", type=int, nargs="+", default=[512, 1024], help="A case each.")
    parser.add_argument("--prompts", type=int, default=2, help="Prompts a step.")
    args = parser.parse_args(argv)
    if "exact" in args.answers and args.prompts < 2:
        parser.error("--prompts must be at least 2 where answers are exact (GRPOConfig's check of the batch size)")
    return args


def build_trainer(side: str, shape: Shape, prompt_tokens: int, args: argparse.Namespace, folder: str) -> GRPOTrainer:
    """A trainer whose `train()` is one step; optimizer and weights persist between calls."""
    tokenizer = judge_tokenizer()
    encoder = PromptEncoder(tokenizer, PROMPT_FORMAT)
    pairs = pairs_of_length(encoder, prompt_tokens, args.prompts)
    rows = training_rows(pairs, encoder.encode(pairs), orders="separate")
    dtype = chosen_dtype(args)
    generation = {
        "num_generations": args.num_generations,
        "max_completion_length": args.completion_tokens,
        "generation_kwargs": {"min_new_tokens": args.completion_tokens},  # with the maximum: all equally long
    }
    options = {
        "output_dir": folder,
        "max_steps": 1,
        "per_device_train_batch_size": args.prompts * (1 if side == "exact" else args.num_generations),
        **({} if side == "exact" else generation),
        "loss_type": "dr_grpo",
        "scale_rewards": "none",
        "entropy_coef": 0.02,
        "beta": 0.0,
        "gradient_checkpointing": args.gradient_checkpointing,
        "bf16": dtype is torch.bfloat16,
        "use_cpu": args.device == "cpu",
        "dataloader_pin_memory": args.device == "cuda",
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }
    everything = {
        "model": random_model(shape, tokenizer, args.device, dtype),
        "reward_funcs": brier_reward,
        "train_dataset": Dataset.from_list(rows),
        "processing_class": tokenizer,
        "peft_config": LoraConfig(r=args.lora_rank, target_modules="all-linear") if args.lora_rank else None,
    }
    if side in STOCK:
        return STOCK[side](args=GRPOConfig(**options), **everything)
    return grpo_trainer(
        args=JudgeGRPOConfig(**options, answers=side, orders="separate", answer_step=args.answer_step),
        answer_tree=AnswerTree(tokenizer, encoder.context, args.answer_step),
        **everything,
    )


def distinct_tokens(side: str, prompt_tokens: int, trainer: GRPOTrainer, args: argparse.Namespace) -> tuple[int, int]:
    """Tokens that a step of ours has to read, and positions whose logits it needs."""
    suffix = args.num_generations * args.completion_tokens
    if side == "exact":
        suffix = len(trainer.answer_tree.closed(0).tokens)
    return args.prompts * (prompt_tokens + suffix), args.prompts * (1 + suffix)


def step_memory(side: str, shape: Shape, prompt_tokens: int, args: argparse.Namespace) -> int | None:
    """Peak bytes of a first step above the weights. A tiny step before it triggers lazy imports."""
    quiet_libraries()
    with tempfile.TemporaryDirectory() as folder:
        for size in (TINY, shape):
            trainer = build_trainer(side, size, prompt_tokens, args, folder)
            add_clock(trainer, args.device)
            growth = peak_growth(trainer.train, args.device)
    return growth


def estimate(trainer: GRPOTrainer, prompt_tokens: int, args: argparse.Namespace) -> float:
    """Peak bytes of our first step above the weights: the optimizer's states come when activations are gone."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    judge = Judge(model, trainer.processing_class, PROMPT_FORMAT, args.answer_step)
    batch = micro_batch(judge, [prompt_tokens], trainer.args)
    parts = parts_of_step(model.config, *count_parameters(model), batch, setup_of(model, trainer.args))
    return parts["gradients"] + max(parts["optimizer"], parts["activations"] + parts["logits"])


def measure(prompt_tokens: int, args: argparse.Namespace) -> list[dict[str, object]]:
    """One record per kind of answers, at one prompt length."""
    shape = chosen_shape(args)
    names = [*(STOCK if args.device == "cpu" else ["trl"]), *args.answers]
    peak: dict[str, int | None] = dict.fromkeys(names)
    if args.memory:
        for side in names:
            peak[side] = with_free_memory(step_memory, side, shape, prompt_tokens, args, device=args.device)
    with tempfile.TemporaryDirectory() as folder:
        trainers = {side: build_trainer(side, shape, prompt_tokens, args, folder) for side in names}
        clocks = {side: add_clock(trainer, args.device) for side, trainer in trainers.items()}

        def one_step(side: str) -> float:
            trainers[side].train()
            return clocks[side].seconds[-1]

        work = {ours: distinct_tokens(ours, prompt_tokens, trainers[ours], args) for ours in args.answers}
        floors = {
            f"floor of {ours}": timed(
                floor_pass(trainers[ours].accelerator.unwrap_model(trainers[ours].model), tokens, prompt_tokens, kept),
                args.device,
            )
            for ours, (tokens, kept) in work.items()
        }
        seconds = alternate({side: lambda side=side: one_step(side) for side in names} | floors, args.repeats)
    n_parameters = sum(p.numel() for p in trainers["trl"].model.parameters())
    return [
        {
            "benchmark": "grpo_step",
            "ours": ours,
            "prompt_tokens": prompt_tokens,
            "prompts": args.prompts,
            "num_generations": args.num_generations,
            "completion_tokens": args.completion_tokens,
            "parameters": n_parameters,
            "lora_rank": args.lora_rank,
            "gradient_checkpointing": args.gradient_checkpointing,
            "repeats": args.repeats,
            "ours_seconds": seconds[ours],
            "trl_seconds": seconds["trl"],
            "sliced_seconds": seconds.get("sliced"),
            "ratio": ratio(seconds["trl"], seconds[ours]),
            "ratio_sliced": ratio(seconds.get("sliced"), seconds[ours]),
            "distinct_tokens": work[ours][0],
            "floor_seconds": seconds[f"floor of {ours}"],
            "of_floor": ratio(seconds[ours], seconds[f"floor of {ours}"]),
            "utilization": utilization(trainers[ours].model, *work[ours], seconds[ours]),
            "ours_peak_bytes": peak[ours],
            "trl_peak_bytes": peak["trl"],
            "sliced_peak_bytes": peak.get("sliced"),
            "memory_ratio": ratio(peak["trl"], peak[ours]),
            "peak_of_estimate": ratio(peak[ours], estimate(trainers[ours], prompt_tokens, args)),
            "memory_ratio_sliced": ratio(peak.get("sliced"), peak[ours]),
            "shared_prefix": trainers[ours].share_prefix,
            **machine(args.device, chosen_dtype(args)),
        }
        for ours in args.answers
    ]


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    quiet_libraries()
    for prompt_tokens in args.prompt_tokens:
        say(f"prompts of {prompt_tokens} tokens")
        for record in measure(prompt_tokens, args):
            emit(record)


if __name__ == "__main__":
    main()
