"""Generation with one prefill for all samples of a prompt: its cache is repeated G times."""

import torch
from torch import nn
from transformers import GenerationConfig

from autorater.data.errors import UserError
from autorater.models.cache_copies import rows_of
from autorater.models.repeated_cache import is_known_to_repeat
from autorater.models.split_attention import supports_shared_prefix, transformer_of
from autorater.prompts.batching import prompt_positions

_NO_CACHE = "hybrid"  # in the Hub's files of Gemma 2 and 3; transformers ignores it


@torch.no_grad()
def generate_shared(
    model: nn.Module,
    prompt_ids: torch.Tensor,
    prompt_mask: torch.Tensor,
    num_generations: int,
    generation_config: GenerationConfig | None = None,
    **generate_kwargs,
) -> torch.Tensor:
    """`model.generate` on every prompt repeated G times, with one prefill per prompt instead of G.

    The samples are those of `generate` on `prompt_ids.repeat_interleave(G, dim=0)` with the same seed.

    Args:
        model: Unwrapped for generation (see `trl.models.unwrap_model_for_generation`), or a PEFT model.
        prompt_ids, prompt_mask: Left-padded prompts and 1 for a token, 0 for padding, shape (B, L).
        num_generations: Samples per prompt, G.
        generation_config, generate_kwargs: As for `generate`.

    Returns:
        Prompts with their samples, shape (B·G, L + T), the samples of a prompt in consecutive rows.

    Raises:
        UserError: For gradient checkpointing in training mode, beams, several return sequences, another cache
            implementation, or a model whose cache cannot be repeated.
    """
    base = transformer_of(model)
    if base.training and any(getattr(m, "gradient_checkpointing", False) for m in base.modules()):
        raise UserError("gradient checkpointing drops the cache; call model.eval() before generation")
    configs = [generation_config, base.generation_config]  # the second has the defaults of the first
    for name, allowed in {"num_beams": 1, "num_return_sequences": 1, "cache_implementation": None}.items():
        values = [generate_kwargs.get(name), *(getattr(config, name, None) for config in configs)]
        value = next((value for value in values if value not in (None, _NO_CACHE)), allowed)
        if value != allowed:
            raise UserError(f"one-prefill generation requires {name}={allowed}, got {value}")
    supported, reason = supports_shared_prefix(model)
    if not supported and not is_known_to_repeat(model):
        raise UserError(f"{type(base).__name__} cannot repeat its cache: {reason}")

    rows = torch.arange(len(prompt_ids), device=prompt_ids.device).repeat_interleave(num_generations)  # B·G
    if prompt_ids.shape[1] > 1:  # `generate` processes the last prompt token
        read = model(
            input_ids=prompt_ids[:, :-1],
            attention_mask=prompt_mask[:, :-1],
            position_ids=prompt_positions(prompt_mask)[:, :-1],
            use_cache=True,
            logits_to_keep=1,
        )
        generate_kwargs |= {"past_key_values": rows_of(read.past_key_values, rows), "use_cache": True}
    prompts = {"input_ids": prompt_ids[rows], "attention_mask": prompt_mask[rows]}
    return model.generate(**prompts, generation_config=generation_config, **generate_kwargs)
