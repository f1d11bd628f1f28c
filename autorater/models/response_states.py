"""Hidden states of responses: the mean over the tokens of a response that is read after its prompt.

    s_l(prompt, response) = mean over the tokens t of the response of h_l(t),   h_l the residual stream after layer l

The mean leaves out the prompt, whose first token has a state a hundred times as large as all others in many models. A
text is read once, whatever the number of pairs it is in.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from autorater.data.errors import UserError
from autorater.data.messages import Text, plain_text
from autorater.models.modes import evaluating
from autorater.models.shares import in_shares, interleaved
from autorater.models.split_attention import transformer_of
from autorater.progress import progress_bar
from autorater.prompts.batching import longest_prompt, pad_prompts, prompt_positions, similar_lengths
from autorater.prompts.tokens import DataTokenizer

ReadText = tuple[Text, Text]  # a prompt and a response


class ResponseStates:
    """Reads mean states of responses and keeps them.

    Args:
        model: Any causal LM, on the device to use.
        tokenizer: Its (fast) tokenizer.
        layers: Numbers of the layers to keep, 1 for the first; by default at most 16, evenly spaced up to the last.
        max_batch_tokens: Maximum tokens in one forward pass.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        layers: Sequence[int] | None = None,
        max_batch_tokens: int = 4096,
    ):
        self.model, self.max_batch_tokens = model, max_batch_tokens
        depth = model.config.get_text_config().num_hidden_layers
        self.layers = np.unique(
            np.linspace(1, depth, min(depth, 16)).round().astype(int) if layers is None else layers
        )
        self._tokenizer, self._padding = DataTokenizer(tokenizer), tokenizer.pad_token_id
        self._states: dict[ReadText, np.ndarray] = {}

    def keep(self, layer: int) -> None:
        """Reads and keeps one layer alone from now on."""
        row = self.layers.tolist().index(layer)
        self._states = {text: states[[row]] for text, states in self._states.items()}
        self.layers = np.array([layer])

    def read(self, texts: Sequence[ReadText], *, progress: bool = False, together: bool = False) -> np.ndarray:
        """States of N texts, shape (N, layers, width), float32.

        Args:
            texts: The texts; those that are kept are not read again.
            progress: Show a progress bar.
            together: The processes of a run divide the texts among them. All of them must call this.

        Raises:
            UserError: If a text is too long for the model.
        """
        new = [text for text in dict.fromkeys(texts) if text not in self._states]
        before = self._tokenizer.encode(plain_text(prompt) + "\n\n" for prompt, _ in new)
        after = self._tokenizer.encode(plain_text(response) for _, response in new)
        first = self._tokenizer.beginning()
        ids = [first + prompt + response for prompt, response in zip(before, after, strict=True)]
        sizes, limit = [len(row) for row in ids], longest_prompt(self.model, 0)
        if sizes and max(sizes) > limit:
            raise UserError(f"a prompt with its response has {max(sizes)} tokens; this model has room for {limit}")
        rows = [(row, max(1, len(response))) for row, response in zip(ids, after, strict=True)]
        if rows:
            read = partial(self._read, progress=progress)
            states = interleaved(in_shares(rows, read)) if together else read(rows)
            self._states.update(zip(new, states, strict=True))
        return np.stack([self._states[text] for text in texts])

    def _read(self, rows: Sequence[tuple[list[int], int]], *, progress: bool) -> np.ndarray:
        """Means over the last tokens of N sequences, given with their number; shape (N, layers, width)."""
        states: list = [None] * len(rows)
        with progress_bar(len(rows), "reading", "text", progress) as bar, evaluating(self.model):
            padded = not transformer_of(self.model)._is_stateful
            for batch in similar_lengths([len(ids) for ids, _ in rows], self.max_batch_tokens, padded=padded):
                read = self._forward(*zip(*(rows[i] for i in batch), strict=True))
                for i, state in zip(batch, read, strict=True):
                    states[i] = state
                bar.update(len(batch))
        return np.stack(states)

    @torch.no_grad()
    def _forward(self, ids: Sequence[list[int]], counts: Sequence[int]) -> np.ndarray:
        """Means over the last `counts` tokens of B sequences, shape (B, layers, width)."""
        device = next(self.model.parameters()).device
        tokens, mask = pad_prompts(ids, self._padding, device)
        hidden = self.model(
            input_ids=tokens, attention_mask=mask, position_ids=prompt_positions(mask), use_cache=False,
            logits_to_keep=1, output_hidden_states=True,
        ).hidden_states  # fmt: skip
        counts = torch.tensor(counts, device=device)[:, None]
        length = tokens.shape[1]
        weights = (torch.arange(length, device=device) >= length - counts) / counts  # (B, L)
        with torch.autocast(device.type, enabled=False):  # the model may compute in bfloat16, the mean may not
            means = [torch.einsum("bl,...bld->...bd", weights, hidden[layer].float()) for layer in self.layers]
            means = [mean if mean.dim() == 2 else mean[0] for mean in means]  # Gemma 3n has several streams
        return torch.stack(means, dim=1).cpu().numpy()
