"""The exact distribution over verbalized answers.

The set of answers is finite, so no sampling is needed. Every number of a grid is written in all its renderings (0.8
and 0.80 are one answer), tokenized after the prompt, and terminated by the first token of the closing tag (without it
"0.8" would include "0.85"). All strings together form a tree of tokens, read in one forward pass over
`[prompt | tree]` (`autorater.models.token_tree`):

    π(k | x) = Σ_{strings s of k} Π_t π(s_t | x, s_<t)

The remaining mass, 1 − Σ_k π(k | x), is that of answers off the grid and of no answer; normalizing it away would hide
format failure. The same logits determine the greedy answer: the branch on which every token is the most likely one of
the whole vocabulary. It can differ from the mode, since greedy decoding commits to the most likely first digit.

A model trained on the tree alone would forget the rest of the closing tag, and its generations would not parse. So
`distribution` can also return the probability of that rest after one answer, for the training objective.
"""

from dataclasses import replace

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from autorater.data.errors import UserError
from autorater.models.distribution import AnswerDistribution
from autorater.models.token_tree import TokenTree, tokens_after
from rewards.answer import CLOSE_TAG


class AnswerTree(TokenTree):
    """All answers on a grid, tokenized after a prompt.

    Args:
        tokenizer: A fast tokenizer, digits split or merged.
        context: The text in front of the answer, as in `PromptEncoder.context`.
        step: Distance between neighbouring answers; must divide 1 and have at most four decimals.

    Attributes:
        values: The answers, shape (K,), ascending from 0 to 1.
        strings: Their J renderings.
        string_values: Index into `values` of every string, shape (J,).
        closing_tokens: Maximum tokens of the rest of the closing tag and the end of the text.

    Raises:
        UserError: If the step does not fit or the tokenizer gives two answers the same tokens.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, context: str, step: float = 0.01):
        count = round(1 / step) if step > 0 else 0
        if count < 1 or abs(count * step - 1) > 1e-9 or round(step, 4) != step:
            raise UserError(f"answer step must divide 1 and have at most 4 decimals, got {step}")
        self.step = step
        self.values = np.round(np.arange(count + 1) * step, 4)
        strings = [(text, k) for k, value in enumerate(self.values) for text in _renderings(value, step)]
        sequences = [tokens_after(tokenizer, context, text, CLOSE_TAG) for text, _ in strings]
        super().__init__(sequences)
        if len({tuple(path) for path in self.paths.tolist()}) < len(strings):
            raise UserError("this tokenizer gives two different answers the same tokens")
        self.string_values = torch.tensor([k for _, k in strings])
        self.strings = [text for text, _ in strings]
        closed = (tokens_after(tokenizer, context, text + CLOSE_TAG) for text in self.strings)
        self._closed = [[*tokens, tokenizer.eos_token_id] for tokens in closed]
        self._sequences, self._trees = sequences, {}
        self.closing_tokens = max(len(c) - len(s) for c, s in zip(self._closed, sequences, strict=True))

    @property
    def longest(self) -> int:
        """Maximum tokens of an answer, the closing tag and the end of the text."""
        return self.depth + self.closing_tokens

    def closed(self, which: int) -> TokenTree:
        """This tree with the rest of the closing tag and the end of the text after string number `which`."""
        if which not in self._trees:
            self._trees[which] = TokenTree([*self._sequences, self._closed[which]])
        return self._trees[which]

    def distribution(
        self, model: PreTrainedModel, prompt_ids: torch.Tensor, prompt_mask: torch.Tensor, closing: int | None = None
    ) -> AnswerDistribution:
        """The distribution of every left-padded prompt (B, L) in one forward pass, with gradients.

        `closing` is the number of a string; the rest of the closing tag is then read after it.
        """
        tree = self if closing is None else self.closed(closing)
        return self.from_logits(tree.logits(model, prompt_ids, prompt_mask), closing)

    def answers(self, logits: torch.Tensor) -> AnswerDistribution:
        """The distributions and the greedy answers, from logits as in `from_logits`."""
        return replace(self.from_logits(logits), greedy=self.greedy_from_logits(logits))

    def greedy_from_logits(self, logits: torch.Tensor) -> torch.Tensor:
        """The greedy answers, from logits as in `from_logits`; shape (B,), NaN if greedy decoding leaves the tree."""
        device = logits.device
        taken = logits.argmax(dim=-1)[:, self.edge_nodes.to(device)] == self.edge_tokens.to(device)  # (B, M)
        taken = torch.cat([taken, taken.new_ones(len(taken), 1)], dim=1)  # padding is always taken
        whole = taken[:, self.paths.to(device)].all(dim=-1)  # (B, J), one string at most
        values = torch.as_tensor(self.values, dtype=torch.float32)[self.string_values].to(device)
        return torch.where(whole.any(dim=-1), values[whole.int().argmax(dim=-1)], torch.nan)

    def from_logits(self, logits: torch.Tensor, closing: int | None = None) -> AnswerDistribution:
        """The distribution from next-token logits after the prompt and after every node, shape (B, 1 + S, V).

        With `closing`, as in `distribution`, they are the logits of `closed(closing)`.
        """
        size = 1 + len(self.tokens)
        distribution = self._from_strings(self.log_probs(logits[:, :size]))
        if closing is None:
            return distribution
        rest = self._closed[closing][len(self._sequences[closing]) :]
        rest = torch.tensor(rest, device=logits.device).expand(len(logits), -1)
        closed = logits[:, size:].float().log_softmax(dim=-1).gather(-1, rest[..., None])
        return replace(distribution, closing=closed.flatten(1).sum(dim=-1))

    def from_edges(self, log_probs: torch.Tensor) -> AnswerDistribution:
        """The distribution from log-probabilities of the edges, shape (B, M)."""
        return self._from_strings(self.log_probs_of_edges(log_probs))

    def _from_strings(self, strings: torch.Tensor) -> AnswerDistribution:
        index = self.string_values.to(strings.device).expand(len(strings), -1)
        probs = strings.new_zeros(len(strings), len(self.values)).scatter_add(1, index, strings.exp())
        return AnswerDistribution(probs, torch.as_tensor(self.values, dtype=probs.dtype, device=probs.device))


def answer_decimals(step: float) -> int:
    """Decimals of the answers on a grid: two, or more if the step has more."""
    return max(2, len(f"{step:.4f}".rstrip("0").split(".")[1]))


def _renderings(value: float, step: float) -> list[str]:
    """Every way to write a grid value with at most `answer_decimals(step)` decimals: 0.5 → 0.5, 0.50."""
    longest = answer_decimals(step)
    return [f"{value:.{decimals}f}" for decimals in range(longest + 1) if round(value, decimals) == value]
