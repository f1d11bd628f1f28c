"""Estimate of the GPU memory of a recipe: model states counted exactly, activations estimated from above.

    python benchmarks/memory_estimate.py                 # all recipes for models of 7 to 9 B
    python benchmarks/memory_estimate.py recipes/configs/exact_gemma-2-9b.yaml --zero_stage 3 --gpus 16

No weights are loaded: the model is built from its published sizes on the meta device, and its P parameters are
counted. On each of W GPUs with bf16 mixed precision (Rajbhandari et al. 2020, arXiv 1910.02054, figure 1; gradients in
float32, as DeepSpeed steps them):

    parameters  2 P, with ZeRO-3 2 P / W          gradients  4 P / W, with ZeRO-1 4 P
    optimizer   12 P / W (float32 copy, Adam's two moments)
    reference   2 P if beta is not 0, with ZeRO-3 2 P / W

    activations  with gradient checkpointing the input of every layer and the inside of one, for every token of a
                 micro-batch of the longest prompts; with eager attention also its scores
    logits       12 bytes per evaluated position and vocabulary entry: bf16 (2), float32 (4), their gradients (4 + 2);
                 20 for sampled answers, whose entropies keep two more copies
    vLLM         its share of the GPU, which is released while activations exist

Left out: communication buffers and fragmentation, some GiB; leave a tenth of the GPU free.
"""

import argparse
import re
from pathlib import Path

import torch
import yaml
from transformers import AutoModelForCausalLM, Gemma2Config, LlamaConfig, PreTrainedConfig, Qwen2Config

GIB = 2**30
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
ANSWER_NODES = {0.05: 60, 0.01: 140}  # of a tree for a tokenizer that splits digits, including the closing tag


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    large = sorted(Path(__file__).parents[1].glob("recipes/configs/*-*b.yaml"))
    parser.add_argument("configs", nargs="*", type=Path, default=large, help="Configs of recipes/grpo.py.")
    parser.add_argument("--zero_stage", type=int, choices=(1, 2, 3), help="In place of that in the config's command.")
    parser.add_argument("--gpus", type=int, default=8)
    args = parser.parse_args()
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
    parts = model_states(count_parameters(config), zero_stage, gpus, reference=bool(recipe.get("beta")))
    rows = recipe["per_device_train_batch_size"]
    exact = recipe["answers"] == "exact" and not recipe.get("reasoning")
    if exact:
        prompts, suffix = 2 * rows, ANSWER_NODES[recipe["answer_step"]]
    else:  # a micro-batch holds whole groups; each order of a pair is read once
        prompts = -(-rows // recipe["num_generations"]) * (2 if recipe.get("orders", "coupled") == "coupled" else 1)
        suffix = rows // prompts * recipe["max_completion_length"]
    eager = recipe.get("attn_implementation") == "eager"
    parts["activations"] = activations(config, prompts, recipe["max_prompt_tokens"], suffix, eager)
    parts["logits"] = (12 if exact else 20) * prompts * (1 + suffix) * config.vocab_size
    if recipe.get("use_vllm") and recipe["vllm_mode"] == "colocate":
        parts["vLLM"] = recipe["vllm_gpu_memory_utilization"] * GPU_GIB * GIB
    return parts


def count_parameters(config: PreTrainedConfig) -> int:
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config).num_parameters()


def model_states(parameters: int, zero_stage: int, gpus: int, reference: bool) -> dict[str, float]:
    whole = 1 if zero_stage < 3 else 1 / gpus
    return {
        "parameters": 2 * parameters * whole,
        "gradients": 4 * parameters / (gpus if zero_stage > 1 else 1),
        "optimizer": 12 * parameters / gpus,
        "reference": 2 * parameters * whole if reference else 0.0,
    }


def activations(config: PreTrainedConfig, prompts: int, longest: int, suffix: int, eager: bool) -> float:
    """Bytes for prompts of the longest length with `suffix` tokens after each."""
    tokens = prompts * (longest + suffix)
    heads, hidden = config.num_attention_heads, config.hidden_size
    head_dim = getattr(config, "head_dim", None) or hidden // heads
    attention = 2 * (heads + 2 * config.num_key_value_heads) * head_dim  # before and after the rotation
    inside = 8 * hidden + attention + heads * head_dim + 4 * config.intermediate_size
    scores = prompts * heads * (longest**2 + suffix * (longest + suffix)) * (2 + 4 + 2) if eager else 0
    return 2 * tokens * (config.num_hidden_layers * hidden + 2 * inside) + scores  # the inside, and its gradients


def as_text(parts: dict[str, float]) -> str:
    """The parts that exist at the same time, in one line."""
    states = sum(parts[name] for name in ("parameters", "gradients", "optimizer", "reference"))
    total = states + max(parts["activations"] + parts["logits"], parts.get("vLLM", 0))
    return f"{total / GIB:.0f} GiB a GPU, of it {states / GIB:.0f} GiB model states"


if __name__ == "__main__":
    main()
