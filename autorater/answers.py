"""The exact distribution over verbalized answers.

The set of answers is finite, so nothing about it needs sampling. Every number of a grid is written out in all its
renderings (0.8 and 0.80 are one answer), tokenized behind the prompt, closed by the first token of the closing tag
(without it "0.8" would swallow "0.85"), and all of them together form a tree of tokens:

    π(k | x) = Σ_{strings s of k} Π_t π(s_t | x, s_<t)

One forward pass over `[prompt | tree]` gives them all, because a node sees the prompt and its ancestors only
(`autorater.prefix`); a model that cannot share its prompt reads one sequence for every branch of the tree instead.
What is left, 1 − Σ_k π(k | x), is the probability of an answer off the grid or of no answer at all; it is kept,
because dividing it away would hide that the format is failing.

The same logits tell what greedy decoding would write: the branch whose every token is the likeliest of the whole
vocabulary. It need not be the mode. Greedy decoding settles on the likeliest first digit, and 0.8 and 0.80, one
answer here, are two texts to it.

Deliberately left out: answers with white space around the number. The parser accepts them; here they are outside.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from autorater.prefix import read_suffixes, suffix_logits, supports_shared_prefix, tree_suffixes
from autorater.prompts import pad_prompts
from rewards.answer import CLOSE_TAG


class AnswerTree:
    """All answers on a grid, tokenized behind a prompt.

    Args:
        tokenizer: A fast tokenizer, digits split or merged.
        context: The text in front of the answer, as `PromptEncoder.context` has it.
        step: Distance between neighbouring answers; must divide 1 and have at most four decimals.

    Attributes:
        values: The answers, shape (K,), ascending from 0 to 1.
        tokens: Token of every node, shape (S,). Node s + 1 of the paths below; node 0 is the end of the prompt.
        parents: Index of every node's parent in `tokens`, −1 behind the prompt, shape (S,).
        edge_nodes, edge_tokens: The M distinct reads "probability of this token behind this node", shape (M,) each;
            node 0 is the end of the prompt, node s + 1 is behind `tokens[s]`.
        paths: Reads of every string, padded with M, shape (J, D).
        depth: Tokens of the longest answer, terminator included, D.
        string_values: Index into `values` of every string, shape (J,).

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
        sequences = [_tokens_behind(tokenizer, context, text) for text, _ in strings]

        nodes: dict[tuple[int, ...], int] = {(): 0}
        edges: dict[tuple[int, int], int] = {}
        self.tokens, self.parents, paths = [], [], []
        for sequence in sequences:
            path, node = [], 0
            for t, token in enumerate(sequence):
                path.append(edges.setdefault((node, token), len(edges)))
                if t + 1 < len(sequence):  # nothing is read behind the terminator
                    prefix = tuple(sequence[: t + 1])
                    if prefix not in nodes:
                        nodes[prefix] = len(nodes)
                        self.tokens.append(token)
                        self.parents.append(node - 1)
                    node = nodes[prefix]
            paths.append(path)
        if len({tuple(p) for p in paths}) < len(paths):
            raise ValueError("this tokenizer gives two different answers the same tokens")

        self.depth = depth = max(map(len, paths))
        self.edge_nodes = torch.tensor([node for node, _ in edges])
        self.edge_tokens = torch.tensor([token for _, token in edges])
        self.paths = torch.tensor([p + [len(edges)] * (depth - len(p)) for p in paths])
        self.string_values = torch.tensor([k for _, k in strings])
        self.strings = [text for text, _ in strings]

    @cached_property
    def suffixes(self):
        """The tree as suffixes of a prompt, the same for every prompt."""
        return tree_suffixes(torch.tensor(self.tokens), torch.tensor(self.parents))

    def distribution(
        self, model: PreTrainedModel, prompt_ids: torch.Tensor, prompt_mask: torch.Tensor
    ) -> "AnswerDistribution":
        """Reads the distribution of every prompt in one forward pass; gradients flow.

        Args:
            prompt_ids, prompt_mask: Left-padded prompts, shape (B, L).
        """
        if supports_shared_prefix(model)[0]:
            return self.from_logits(suffix_logits(model, prompt_ids, prompt_mask, self.suffixes))
        return self.from_logits(self.plain_logits(model, prompt_ids, prompt_mask))

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

    def plain_logits(
        self, model: PreTrainedModel, prompt_ids: torch.Tensor, prompt_mask: torch.Tensor
    ) -> torch.Tensor:
        """Next-token logits behind the prompt and behind every node, one sequence a branch: (B, 1 + S, V)."""
        branches, branch_of, depth_of = self._branches
        batch, (count, length) = len(prompt_ids), branches.shape
        ids = torch.cat(
            [prompt_ids.repeat_interleave(count, 0), branches.to(prompt_ids.device).repeat(batch, 1)], dim=1
        )
        mask = prompt_mask.repeat_interleave(count, 0)
        mask = torch.cat([mask, mask.new_ones(len(mask), length)], dim=1)
        positions = (mask.cumsum(dim=1) - 1).clamp_min(0)
        logits = model(
            input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False, logits_to_keep=1 + length
        ).logits.unflatten(0, (batch, count))  # (B, branches, 1 + length, V)
        return torch.cat([logits[:, :1, 0], logits[:, branch_of, 1 + depth_of]], dim=1)

    @cached_property
    def _branches(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Paths to the childless nodes, filled up on the right; and for every node a path and its place in it."""
        paths = []
        for parent, token in zip(self.parents, self.tokens, strict=True):
            paths.append([*(paths[parent] if parent >= 0 else []), token])
        leaves = [path for s, path in enumerate(paths) if s not in self.parents]
        longest = max(map(len, leaves))
        branches = torch.tensor([leaf + leaf[-1:] * (longest - len(leaf)) for leaf in leaves])
        branch_of = [next(i for i, leaf in enumerate(leaves) if leaf[: len(path)] == path) for path in paths]
        return branches, torch.tensor(branch_of), torch.tensor([len(path) - 1 for path in paths])

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

    def from_logits(self, logits: torch.Tensor) -> "AnswerDistribution":
        """The distribution from next-token logits behind the prompt and behind every node, shape (B, 1 + S, V)."""
        device = logits.device
        logits = logits.float()
        nodes = self.edge_nodes.to(device)
        picked = logits[:, nodes, self.edge_tokens.to(device)]  # (B, M)
        edges = picked - logits.logsumexp(dim=-1)[:, nodes]
        edges = torch.cat([edges, edges.new_zeros(len(edges), 1)], dim=1)  # the padded read is certain
        strings = edges[:, self.paths.to(device)].sum(dim=-1)  # (B, J) log-probabilities
        index = self.string_values.to(device).expand(len(strings), -1)
        probs = strings.new_zeros(len(strings), len(self.values)).scatter_add(1, index, strings.exp())
        return AnswerDistribution(probs, torch.as_tensor(self.values, dtype=probs.dtype, device=device))


@dataclass(frozen=True)
class AnswerDistribution:
    """Probabilities of all answers on the grid, for a batch of prompts.

    Attributes:
        probs: π(k | x), raw (the rows add up to at most 1), shape (B, K).
        values: The answers, shape (K,).
        greedy: The answer that greedy decoding writes, NaN where it writes none of them, shape (B,); None where nobody
            asked, which is in training.
    """

    probs: torch.Tensor
    values: torch.Tensor
    greedy: torch.Tensor | None = None

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


def _tokens_behind(tokenizer: PreTrainedTokenizerBase, context: str, text: str) -> list[int]:
    """Tokens of an answer in context, up to and with the first token that reaches into the closing tag."""
    before = tokenizer(context, add_special_tokens=False)["input_ids"]
    encoded = tokenizer(context + text + CLOSE_TAG, add_special_tokens=False, return_offsets_mapping=True)
    ids, spans, end = encoded["input_ids"], encoded["offset_mapping"], len(context) + len(text)
    if ids[: len(before)] != before:  # the tokenizer would merge across the end of the prompt, which is fixed
        encoded = tokenizer(text + CLOSE_TAG, add_special_tokens=False, return_offsets_mapping=True)
        ids, spans, end, before = encoded["input_ids"], encoded["offset_mapping"], len(text), []
    last = next(i for i, (_, stop) in enumerate(spans) if stop > end)
    return ids[len(before) : last + 1]
