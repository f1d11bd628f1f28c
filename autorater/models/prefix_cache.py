"""Keys and values of the beginning of prompts, kept from one batch to the next, as in the prefix caches of servers.

All prompts of a judge begin with the instructions. Batches of neighbours in sorted order
(`autorater.prompts.batching.batches_by_beginning`) often begin with the same question too; then only the rest of a
beginning is read.
"""

from collections.abc import Sequence

import torch
from torch import nn
from transformers import DynamicCache

from autorater.prompts.beginnings import shared_length


class PrefixCache:
    """Keys and values of the beginning that was read last, in one row. The weights must not change meanwhile."""

    def __init__(self, model: nn.Module):
        self._model = model
        self._tokens: list[int] = []
        self._cache = DynamicCache()  # without the config: no layer drops keys outside its window; the mask hides them

    @torch.no_grad()
    def read(self, tokens: Sequence[int]) -> DynamicCache:
        """The cache of at least one token id, for one model call, which may add tokens; the next `read` changes it.

        What these tokens begin with in common with those of the last `read` is not processed again.
        """
        kept = shared_length(self._tokens, tokens)
        if surplus := self._cache.get_seq_length() - kept:
            self._cache.crop(-surplus)
        self._tokens = list(tokens)
        if kept < len(tokens):
            ids = torch.tensor([self._tokens[kept:]], device=next(self._model.parameters()).device)
            self._model(input_ids=ids, past_key_values=self._cache, use_cache=True, logits_to_keep=1)
        return self._cache
