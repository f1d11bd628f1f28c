"""Keys and values of the beginning of prompts, kept from one batch to the next, as in the prefix caches of servers.

Prompts of a judge begin alike: all with the instructions, those of one question with the question, those of one first
response with that response too. `autorater.prompts.batching.batches_by_beginning` puts them in an order in which every
batch begins like the one before as far as possible; then only the rest of its beginning is read.
"""

from collections.abc import Sequence

import torch
from torch import nn
from transformers import DynamicCache

from autorater.prompts.batching import shared_length


class PrefixCache:
    """Keys and values of the beginning that was read last, in one row. The weights must not change meanwhile."""

    def __init__(self, model: nn.Module):
        self._model = model
        self._tokens: list[int] = []
        self._cache = DynamicCache()  # without the config: no layer drops keys outside its window; the mask hides them

    @torch.no_grad()
    def read(self, tokens: Sequence[int]) -> DynamicCache:
        """The cache of at least one token id, which the next `read` changes.

        What these tokens begin with in common with those of the last `read` is not processed again.
        """
        kept = shared_length(self._tokens, tokens)
        if kept < len(self._tokens):
            self._cache.crop(kept - len(self._tokens))
        self._tokens = list(tokens)
        if kept < len(tokens):
            ids = torch.tensor([self._tokens[kept:]], device=next(self._model.parameters()).device)
            self._model(input_ids=ids, past_key_values=self._cache, use_cache=True, logits_to_keep=1)
        return self._cache


def call_tokens(model: nn.Module) -> int:
    """Tokens that the fixed cost of a forward pass is worth: launching kernels, combining tensors.

    32 on a CPU (SmolLM2-135M: about 20 ms at 360 tokens a second and core, with the copies of the cache). On a GPU, an
    assumption that was not measured: 15 ms at 4e14 operations a second, two operations per parameter and token.
    """
    parameter = next(model.parameters())
    if parameter.device.type == "cpu":
        return 32
    return round(3e12 / sum(p.numel() for p in model.parameters()))
