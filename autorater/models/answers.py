"""The exact distribution over verbalized answers.

The set of answers is finite, so nothing about it needs sampling. Every number of a grid is written out in all its
renderings (0.8 and 0.80 are one answer), tokenized behind the prompt, closed by the first token of the closing tag
(without it "0.8" would swallow "0.85"), and all of them together form a tree of tokens:

    π(k | x) = Σ_{strings s of k} Π_t π(s_t | x, s_<t)

One forward pass over `[prompt | tree]` gives them all (`autorater.models.token_tree`). What is left, 1 − Σ_k π(k | x), is the
probability of an answer off the grid or of no answer at all; it is kept, because dividing it away would hide that the
format is failing.

The same logits tell what greedy decoding would write: the branch whose every token is the likeliest of the whole
vocabulary. It need not be the mode. Greedy decoding settles on the likeliest first digit, and 0.8 and 0.80, one
answer here, are two texts to it.

The tree ends with the first token of the closing tag: no answer hangs on the rest. A model that is trained on the tree
alone would forget that rest, and what it generates could not be parsed. So `distribution` reads it on request behind
one answer, in the same forward pass, for the objective to keep it likely.

Deliberately left out: answers with white space around the number. The parser accepts them; here they are outside.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from autorater.models.shared_prefix import read_suffixes
from autorater.models.split_attention import supports_shared_prefix
from autorater.models.token_tree import TokenTree, tokens_behind
from autorater.prompts.batching import pad_prompts
from rewards.answer import CLOSE_TAG


class AnswerTree(TokenTree):
    """All answers on a grid, tokenized behind a prompt.

    Args:
        tokenizer: A fast tokenizer, digits split or merged.
        context: The text in front of the answer, as `PromptEncoder.context` has it.
        step: Distance between neighbouring answers; must divide 1 and have at most four decimals.

    Attributes:
        values: The answers, shape (K,), ascending from 0 to 1.
        string_values: Index into `values` of every string, shape (J,).
        strings: The texts themselves.
        depth: Tokens of the longest answer, terminator included.
        closing_tokens: Most tokens that the rest of the closing tag and the end of the text take behind one.
        …: The rest as in `TokenTree`.

    Raises:
        ValueError: If the step does not fit or the tokenizer gives two answers the same tokens.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, context: str, step: float = 0.01):
        count = round(1 / step) if step > 0 else 0
        if count < 1 or abs(count * step - 1) > 1e-9 or round(step, 4) != step:
            raise ValueError(f"answer step must divide 1 and have at most 4 decimals, got {step}")
        self.step = step
        self.values = np.round(np.arange(count + 1) * step, 4)
        strings = [(text, k) for k, value in enumerate(self.values) for text in _renderings(value, step)]
        sequences = [tokens_behind(tokenizer, context, text, CLOSE_TAG) for text, _ in strings]
        super().__init__(sequences)
        if len({tuple(path) for path in self.paths.tolist()}) < len(strings):
            raise ValueError("this tokenizer gives two different answers the same tokens")
        self.string_values = torch.tensor([k for _, k in strings])
        self.strings = [text for text, _ in strings]
        closed = (tokens_behind(tokenizer, context, text + CLOSE_TAG) for text, _ in strings)
        self._closed = [[*tokens, tokenizer.eos_token_id] for tokens in closed]
        self._sequences, self._trees = sequences, {}
        self.closing_tokens = max(len(c) - len(s) for c, s in zip(self._closed, sequences, strict=True))

    def closed(self, which: int) -> "ClosedTree":
        """This tree with the whole closing tag and the end of the text behind string number `which`."""
        if which not in self._trees:
            self._trees[which] = ClosedTree(self._sequences, which, self._closed[which])
        return self._trees[which]

    def distribution(
        self, model: PreTrainedModel, prompt_ids: torch.Tensor, prompt_mask: torch.Tensor, closing: int | None = None
    ) -> "AnswerDistribution":
        """Reads the distribution of every prompt in one forward pass; gradients flow.

        Args:
            prompt_ids, prompt_mask: Left-padded prompts, shape (B, L).
            closing: Number of the string behind which the rest of the closing tag is read too.
        """
        tree = self if closing is None else self.closed(closing)
        return self.from_logits(tree.logits(model, prompt_ids, prompt_mask), closing)

    @torch.no_grad()  # not inference_mode: the tree keeps tensors that training uses too
    def read(self, model: PreTrainedModel, prompts: Sequence[list[int]]) -> "AnswerDistribution":
        """The distribution of every prompt and what greedy decoding would write behind it; no gradients.

        Args:
            prompts: Token ids of B prompts.
        """
        if supports_shared_prefix(model)[0]:
            logits = read_suffixes(model, prompts, self.suffixes)
        else:
            logits = self.plain_logits(model, *pad_prompts(prompts, 0, next(model.parameters()).device))
        return replace(self.from_logits(logits), greedy=self.greedy_from_logits(logits))

    def greedy_from_logits(self, logits: torch.Tensor) -> torch.Tensor:
        """Answers that token-by-token greedy decoding writes, from logits as in `from_logits`; shape (B,).

        NaN where it leaves the tree: no number, one off the grid, or tokens in which this tokenizer writes no answer.
        """
        device = logits.device
        taken = logits.argmax(dim=-1)[:, self.edge_nodes.to(device)] == self.edge_tokens.to(device)  # (B, M)
        taken = torch.cat([taken, taken.new_ones(len(taken), 1)], dim=1)  # the padded read is always taken
        whole = taken[:, self.paths.to(device)].all(dim=-1)  # (B, J), one string at most
        values = torch.as_tensor(self.values, dtype=torch.float32)[self.string_values].to(device)
        return torch.where(whole.any(dim=-1), values[whole.int().argmax(dim=-1)], torch.nan)

    def from_logits(self, logits: torch.Tensor, closing: int | None = None) -> "AnswerDistribution":
        """The distribution from next-token logits behind the prompt and behind every node, shape (B, 1 + S, V).

        Args:
            logits: With `closing`, those of `closed(closing)`.
            closing: As in `distribution`.
        """
        size = 1 + len(self.tokens)
        strings = self.log_probs(logits[:, :size])  # (B, J)
        index = self.string_values.to(strings.device).expand(len(strings), -1)
        probs = strings.new_zeros(len(strings), len(self.values)).scatter_add(1, index, strings.exp())
        values = torch.as_tensor(self.values, dtype=probs.dtype, device=probs.device)
        if closing is None:
            return AnswerDistribution(probs, values)
        rest = torch.tensor(self.closed(closing).rest, device=logits.device).expand(len(logits), -1)
        closed = logits[:, size:].float().log_softmax(dim=-1).gather(-1, rest[..., None])
        return AnswerDistribution(probs, values, closing=closed.flatten(1).sum(dim=-1))


class ClosedTree(TokenTree):
    """A tree of answers with the closing tag and the end of the text behind one of them.

    Args:
        sequences: Tokens of the strings.
        which: The one that is closed.
        closed: Its tokens with the whole tag; they begin with those of the string.

    Attributes:
        rest: What follows the string, shape (R,). The nodes behind which it is read are the last R.
    """

    def __init__(self, sequences: Sequence[Sequence[int]], which: int, closed: Sequence[int]):
        super().__init__([*sequences, closed])
        self.rest = list(closed[len(sequences[which]) :])


@dataclass(frozen=True)
class AnswerDistribution:
    """Probabilities of all answers on the grid, for a batch of prompts.

    Attributes:
        probs: π(k | x), raw (the rows add up to at most 1), shape (B, K).
        values: The answers, shape (K,).
        greedy: The answer that greedy decoding writes, NaN where it writes none of them, shape (B,); None where nobody
            asked, which is in training.
        closing: Log-probability that the closing tag goes on and the text then ends, behind one of the answers; shape
            (B,). None where nobody asked.
    """

    probs: torch.Tensor
    values: torch.Tensor
    greedy: torch.Tensor | None = None
    closing: torch.Tensor | None = None

    @property
    def valid(self) -> torch.Tensor:
        """Probability that the answer is on the grid, shape (B,)."""
        return self.probs.sum(dim=-1)

    @property
    def outside(self) -> torch.Tensor:
        """Probability of everything else: off the grid, or not an answer. Shape (B,), at least 0."""
        return (1 - self.valid).clamp_min(0)

    @property
    def mean(self) -> torch.Tensor:
        """Expected answer, given that it is valid; 0.5 where nothing valid has any mass. Shape (B,)."""
        valid = self.valid
        mean = (self.probs * self.values).sum(dim=-1) / valid.clamp_min(1e-12)
        return torch.where(valid > 1e-12, mean, torch.full_like(mean, 0.5))

    @property
    def mode(self) -> torch.Tensor:
        """Most likely answer; 0.5 where nothing valid has any mass. Shape (B,)."""
        mode = self.values[self.probs.argmax(dim=-1)]
        return torch.where(self.valid > 0, mode, torch.full_like(mode, 0.5))

    @property
    def spread(self) -> torch.Tensor:
        """Standard deviation of the answer, given that it is valid. Shape (B,)."""
        weights = self.probs / self.valid.clamp_min(1e-12)[:, None]
        return (weights * (self.values - self.mean[:, None]) ** 2).sum(dim=-1).sqrt()

    @property
    def entropy(self) -> torch.Tensor:
        """−Σ_k π log π over the answers, in nats; mass outside the grid adds nothing. Shape (B,)."""
        return -torch.special.xlogy(self.probs, self.probs.clamp_min(1e-30)).sum(dim=-1)


def answer_decimals(step: float) -> int:
    """Decimals that answers on a grid are written with: two, or more where the step needs them."""
    return max(2, len(f"{step:.4f}".rstrip("0").split(".")[1]))


def _renderings(value: float, step: float) -> list[str]:
    """Every way to write a grid value with that many decimals at most: 0.5 → 0.5, 0.50."""
    longest = answer_decimals(step)
    return [f"{value:.{decimals}f}" for decimals in range(longest + 1) if round(value, decimals) == value]
