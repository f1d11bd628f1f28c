"""Generation with one prefill for all samples of a prompt."""

import torch
from torch import nn
from transformers import DynamicCache, GenerationConfig

from autorater.models.shared_prefix import prompt_positions
from autorater.models.split_attention import supports_shared_prefix, transformer_of


@torch.no_grad()
def generate_shared(
    model: nn.Module,
    prompt_ids: torch.Tensor,
    prompt_mask: torch.Tensor,
    num_generations: int,
    generation_config: GenerationConfig | None = None,
    **generate_kwargs,
) -> torch.Tensor:
    """`model.generate` on every prompt repeated G times, with one prefill a prompt instead of G.

    The samples are those of `generate` on `prompt_ids.repeat_interleave(G, dim=0)` with the same seed.
    (`num_return_sequences` saves nothing: it repeats the prompt before the prefill.)

    Args:
        model: What `generate` is called on: unwrapped (see `trl.models.unwrap_model_for_generation`), PEFT is fine.
        prompt_ids: Left-padded prompts, shape (B, L).
        prompt_mask: 1 for a token, 0 for padding, shape (B, L).
        num_generations: Samples a prompt, G.
        generation_config: As for `generate`; the model's own by default.
        generate_kwargs: Passed on to `generate`.

    Returns:
        Prompts with their samples, shape (B·G, L + T), the samples of a prompt side by side.

    Raises:
        ValueError: If the model is training under gradient checkpointing, which drops the cache, or cannot repeat its
            cache, or the generation config asks for beams, several return sequences or a cache of its own.
    """
    base = transformer_of(model)
    if base.training and any(getattr(m, "gradient_checkpointing", False) for m in base.modules()):
        raise ValueError("gradient checkpointing drops the cache; switch it off or the model to eval() to generate")
    configs = [generation_config, base.generation_config]  # what the first leaves open, generate takes from the second
    for name, allowed in {"num_beams": 1, "num_return_sequences": 1, "cache_implementation": None}.items():
        values = [generate_kwargs.get(name), *(getattr(config, name, None) for config in configs)]
        asked = next((value for value in values if value is not None), allowed)
        if asked != allowed:
            raise ValueError(f"one-prefill generation needs {name}={allowed}, got {asked}")
    supported, reason = supports_shared_prefix(model)
    if not supported:
        raise ValueError(f"{type(base).__name__} cannot repeat its cache: {reason}")

    ids = prompt_ids.repeat_interleave(num_generations, dim=0)  # (B·G, L)
    mask = prompt_mask.repeat_interleave(num_generations, dim=0)
    if prompt_ids.shape[1] > 1:  # generate reads the last prompt token itself
        cache = DynamicCache(config=base.config)
        model(
            input_ids=prompt_ids[:, :-1],
            attention_mask=prompt_mask[:, :-1],
            position_ids=prompt_positions(prompt_mask)[:, :-1],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache.batch_repeat_interleave(num_generations)
        generate_kwargs |= {"past_key_values": cache, "use_cache": True}
    return model.generate(input_ids=ids, attention_mask=mask, generation_config=generation_config, **generate_kwargs)
