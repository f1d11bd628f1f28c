"""Estimate of the memory of a recipe's training step on GPUs, and the estimate against measured steps.

    python benchmarks/memory_estimate.py                 # recipes/configs/paper_* and exact_*, models of 7 to 9 B
    python benchmarks/memory_estimate.py recipes/configs/exact_gemma-2-9b.yaml --zero_stage 3 --gpus 16
    python benchmarks/memory_estimate.py --measure       # steps of small models on this machine, in new processes

No weights are loaded: the model is built from its published sizes on the meta device, and its parameters are counted.
The estimate is that of a training run (`autorater.models.memory`); with vLLM on the same GPU its share is added, which
is released while activations exist. Communication buffers and fragmentation, some GiB, are left out; leave a tenth of
the GPU free.
"""

import argparse
import re
import tempfile
from pathlib import Path

import torch
import yaml
from datasets import Dataset
from harness.inputs import PROMPT_FORMAT, TINY, Shape, judge_tokenizer, pairs_of_length, random_model
from harness.inputs import SHAPES as SMALL
from harness.measure import emit, in_fresh_process, peak_growth
from peft import LoraConfig
from transformers import AutoModelForCausalLM, Gemma2Config, LlamaConfig, PreTrainedConfig, Qwen2Config

from autorater.models.answers import AnswerTree
from autorater.models.libraries import quiet_libraries
from autorater.models.memory import GIB, MicroBatch, Setup, step_memory
from autorater.models.memory import count_parameters as weights_of
from autorater.prompts.encoder import PromptEncoder
from autorater.training.config import JudgeGRPOConfig
from autorater.training.data import training_rows
from autorater.training.grpo import grpo_trainer
from autorater.training.memory import setup_of
from rewards import brier_reward

GPU_GIB = 80e9 / GIB  # a GPU of 80 GB
SIZES = {
    "Qwen/Qwen2.5-7B-Instruct": lambda: Qwen2Config(
        hidden_size=3584, num_hidden_layers=28, num_attention_heads=28, num_key_value_heads=4,
        intermediate_size=18944, vocab_size=152064, tie_word_embeddings=False,
    ),
    "google/gemma-2-9b-it": lambda: Gemma2Config(
        hidden_size=3584, num_hidden_layers=42, num_attention_heads=16, num_key_value_heads=8, head_dim=256,
        intermediate_size=14336, vocab_size=256000, tie_word_embeddings=True,
    ),
    "meta-llama/Llama-3.1-8B-Instruct": lambda: LlamaConfig(
        hidden_size=4096, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8,
        intermediate_size=14336, vocab_size=128256, tie_word_embeddings=False,
    ),
}  # fmt: skip
SMOLLM2 = Shape(49_152, 576, 1_536, 30, 9, 3)  # of SmolLM2-135M
CASES = {  # shape, pairs a step, tokens a prompt, options of the training, rank of an adapter
    "small": (SMALL["small"], 8, 512, {}, 0),
    "small, bf16": (SMALL["small"], 8, 512, {"bf16": True}, 0),
    "small, checkpointing": (SMALL["small"], 8, 512, {"gradient_checkpointing": True}, 0),
    "smollm2, bf16": (SMOLLM2, 2, 256, {"bf16": True}, 0),
    "smollm2, bf16, checkpointing": (SMOLLM2, 2, 256, {"bf16": True, "gradient_checkpointing": True}, 0),
    "smollm2, bf16, lora": (SMOLLM2, 2, 256, {"bf16": True}, 16),
}
ANSWER_NODES = {0.05: 60, 0.01: 140}  # of a tree for a tokenizer that splits digits, including the closing tag


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    large = sorted(Path(__file__).parents[1].glob("recipes/configs/*-*b.yaml"))
    parser.add_argument("configs", nargs="*", type=Path, default=large, help="Configs of recipes/grpo.py.")
    parser.add_argument("--zero_stage", type=int, choices=(1, 2, 3), help="In place of that in the config's command.")
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--measure", nargs="*", choices=CASES, help="Measure these cases, by default all.")
    args = parser.parse_args()
    if args.measure is not None:
        for name in args.measure or CASES:
            emit({"case": name, **in_fresh_process(measured, *CASES[name])})
        return
    for path in args.configs:
        parts = estimate(path, args.zero_stage, args.gpus)
        print(f"{path.stem}: {as_text(parts)}")
        print("    " + ", ".join(f"{name} {size / GIB:.1f}" for name, size in parts.items()))


def estimate(path: Path, zero_stage: int | None = None, gpus: int = 8) -> dict[str, float]:
    """Bytes per GPU, by part.

    Args:
        path: Config of `recipes/grpo.py`, its command with the accelerate config in its comment.
        zero_stage: By default that of its command.
        gpus: Processes, W.
    """
    text = path.read_text(encoding="utf-8")
    recipe = yaml.safe_load(text)
    zero_stage = zero_stage or int(re.search(r"recipes/accelerate/zero(\d)", text).group(1))
    config = SIZES[recipe["model_name_or_path"]]()
    rows = recipe["per_device_train_batch_size"]
    exact = recipe["answers"] == "exact" and not recipe.get("reasoning")
    if exact:
        prompts, suffix = 2 * rows, ANSWER_NODES[recipe["answer_step"]]
    else:  # a micro-batch holds whole groups; each order of a pair is read once
        prompts = -(-rows // recipe["num_generations"]) * (2 if recipe.get("orders", "coupled") == "coupled" else 1)
        suffix = rows // prompts * recipe["max_completion_length"]
    positions = prompts * (1 + suffix)
    batch = MicroBatch(prompts, recipe["max_prompt_tokens"], suffix, positions, 12 if exact else 20)
    setup = Setup(
        element=2,
        checkpointing=True,
        eager=recipe.get("attn_implementation") == "eager",
        zero_stage=zero_stage,
        processes=gpus,
        reference=bool(recipe.get("beta")),
    )
    parameters = count_parameters(config)
    parts = step_memory(config, parameters, parameters, batch, setup)
    if recipe.get("use_vllm") and recipe["vllm_mode"] == "colocate":
        parts["vLLM"] = recipe["vllm_gpu_memory_utilization"] * GPU_GIB * GIB
    return parts


def count_parameters(config: PreTrainedConfig) -> int:
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config).num_parameters()


def measured(shape: Shape, pairs: int, tokens: int, options: dict, rank: int) -> dict[str, float]:
    """Measured and estimated GiB of two steps of exact answers on this CPU, from loading the model on."""
    quiet_libraries()
    encoder = PromptEncoder(judge_tokenizer(), PROMPT_FORMAT)
    examples = pairs_of_length(encoder, tokens, pairs)
    rows = Dataset.from_list(training_rows(examples, encoder.encode(examples), orders="coupled"))
    tree = AnswerTree(encoder.tokenizer, encoder.context, 0.05)
    lora = LoraConfig(r=rank, target_modules="all-linear") if rank else None

    def two_steps(shape: Shape) -> None:
        nonlocal trainer
        trainer = grpo_trainer(
            random_model(shape, encoder.tokenizer, "cpu", torch.float32), brier_reward, config, tree,
            train_dataset=rows, processing_class=encoder.tokenizer, peft_config=lora,
        )  # fmt: skip
        trainer.train()

    with tempfile.TemporaryDirectory() as folder:
        config = JudgeGRPOConfig(
            folder, max_steps=2, per_device_train_batch_size=pairs, answer_step=0.05, use_cpu=True, report_to="none",
            save_strategy="no", logging_strategy="no", disable_tqdm=True, dataloader_pin_memory=False, **options,
        )  # fmt: skip
        trainer = None
        two_steps(TINY)  # lazy imports
        growth = peak_growth(lambda: two_steps(shape), "cpu")
        nodes = len(tree.tokens) + tree.closing_tokens
        batch = MicroBatch(2 * pairs, tokens, nodes, 2 * pairs * (1 + nodes))
        setup = setup_of(trainer.accelerator.unwrap_model(trainer.model), config)
        parts = step_memory(trainer.model.config, *weights_of(trainer.model), batch, setup)
    total = sum(parts.values())
    sizes = {name: size / GIB for name, size in {"measured": growth, "estimated": total, **parts}.items()}
    return {"ratio": total / growth, **sizes}


def as_text(parts: dict[str, float]) -> str:
    """The parts that exist at the same time, in one line."""
    states = sum(parts[name] for name in ("weights", "gradients", "optimizer", "reference"))
    total = states + max(parts["activations"] + parts["logits"], parts.get("vLLM", 0))
    return f"{total / GIB:.0f} GiB a GPU, of it {states / GIB:.0f} GiB model states"


if __name__ == "__main__":
    main()
