"""Finitely many strings after a prompt, as a tree of tokens that is read in one forward pass.

    log π(string | x) = Σ_t log π(s_t | x, s_<t)

Strings with a common beginning share nodes. A node attends to the prompt and to its ancestors only
(`autorater.models.shared_prefix`). For a model that cannot share its prompt, every leaf of the tree ends a row of its
own, behind the repeated cache of the prompt (`autorater.models.repeated_cache`) or, without such a cache, behind the
whole prompt. The strings are numbers in `autorater.models.answers` and labels in `autorater.alignment.labels`.
"""

import sys
from collections.abc import Sequence
from functools import cached_property

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from autorater.data.errors import UserError
from autorater.models.distribution import AnswerDistribution
from autorater.models.prefix_cache import PrefixCache
from autorater.models.prefix_tree import read_suffixes
from autorater.models.repeated_cache import Beginning, logits_along_and_behind, read_nodes, repeats_cache
from autorater.models.shared_prefix import suffix_logits, whole_sequences
from autorater.models.split_attention import supports_shared_prefix
from autorater.models.suffixes import tree_suffixes
from autorater.prompts.batching import pad_prompts
from autorater.prompts.tokens import anchor


class TokenTree:
    """Strings after a prompt.

    Args:
        sequences: Tokens of J strings, each at least one token.

    Attributes:
        tokens: Token of every node, shape (S,).
        parents: Index of every node's parent in `tokens`, −1 for the prompt, shape (S,).
        edge_nodes, edge_tokens: The M distinct edges: a node and the next token, shape (M,) each. Node 0 is the end of
            the prompt, node s + 1 is `tokens[s]`.
        paths: Edges of every string, padded with M, shape (J, D).
        depth: Tokens of the longest string, D.
    """

    def __init__(self, sequences: Sequence[Sequence[int]]):
        nodes: dict[tuple[int, ...], int] = {(): 0}
        edges: dict[tuple[int, int], int] = {}
        self.tokens, self.parents, paths = [], [], []
        for sequence in sequences:
            path, node = [], 0
            for t, token in enumerate(sequence):
                path.append(edges.setdefault((node, token), len(edges)))
                if t + 1 < len(sequence):  # the last token needs no node
                    prefix = tuple(sequence[: t + 1])
                    if prefix not in nodes:
                        nodes[prefix] = len(nodes)
                        self.tokens.append(token)
                        self.parents.append(node - 1)
                    node = nodes[prefix]
            paths.append(path)
        self.depth = depth = max(map(len, paths))
        self.edge_nodes = torch.tensor([node for node, _ in edges])
        self.edge_tokens = torch.tensor([token for _, token in edges])
        self.paths = torch.tensor([p + [len(edges)] * (depth - len(p)) for p in paths])

    @cached_property
    def suffixes(self):
        """The tree as suffixes of any prompt."""
        return tree_suffixes(torch.tensor(self.tokens, dtype=torch.long), torch.tensor(self.parents))

    @cached_property
    def node_paths(self) -> list[list[int]]:
        """The tokens from the end of the prompt to every node, S lists."""
        paths: list[list[int]] = []
        for parent, token in zip(self.parents, self.tokens, strict=True):
            paths.append([*(paths[parent] if parent >= 0 else []), token])
        return paths

    @cached_property
    def leaf_paths(self) -> list[list[int]]:
        """The tokens from the end of the prompt to every node without children: one empty path if there is no node."""
        inner = set(self.parents)
        return [path for node, path in enumerate(self.node_paths) if node not in inner] or [[]]

    @cached_property
    def _leaves(self) -> torch.Tensor:
        """The leaf paths, padded on the right, (leaves, D)."""
        return pad_sequence([torch.tensor(path, dtype=torch.long) for path in self.leaf_paths], batch_first=True)

    @cached_property
    def _places(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Of every node, a leaf path that it is on, and how many tokens of it lead to the node; shape (S,) each."""
        leaf_of = {tuple(path[:n]): i for i, path in enumerate(self.leaf_paths) for n in range(len(path) + 1)}
        leaves = torch.tensor([leaf_of[tuple(path)] for path in self.node_paths], dtype=torch.long)
        return leaves, torch.tensor([len(path) for path in self.node_paths], dtype=torch.long)

    def logits(self, model: PreTrainedModel, prompt_ids: torch.Tensor, prompt_mask: torch.Tensor) -> torch.Tensor:
        """Next-token logits after left-padded prompts (B, L) and after every node, (B, 1 + S, V), with gradients."""
        if self.tokens and supports_shared_prefix(model)[0]:
            return suffix_logits(model, prompt_ids, prompt_mask, self.suffixes)
        if self.repeats_cache(model, prompt_ids[0][prompt_mask[0].bool()]):
            return self.logits_along_and_behind(model, prompt_ids, prompt_mask, 1)[1]
        return self.plain_logits(model, prompt_ids, prompt_mask)

    def logits_along_and_behind(
        self, model: PreTrainedModel, prompt_ids: torch.Tensor, prompt_mask: torch.Tensor, last: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`logits`, and in front of them those after each of the last tokens of every prompt, (B, `last`, V).

        For a model for which `repeats_cache` holds.
        """
        leaves = self._leaves.to(prompt_ids.device)
        along, behind = logits_along_and_behind(model, prompt_ids, prompt_mask, last, leaves)
        return along, self._of_nodes(behind)

    def plain_logits(
        self,
        model: PreTrainedModel,
        prompt_ids: torch.Tensor,
        prompt_mask: torch.Tensor,
        max_tokens: int = sys.maxsize,
    ) -> torch.Tensor:
        """As `logits`, with one sequence per leaf, in calls of at most `max_tokens` tokens or one leaf."""
        leaves = self._leaves.to(prompt_ids.device)
        return self._of_nodes(whole_sequences(model, prompt_ids, prompt_mask, leaves, max_tokens))

    def repeats_cache(self, model: PreTrainedModel, prompt: torch.Tensor | Sequence[int]) -> bool:
        """Whether the leaves are read behind the cache of a prompt, not behind the whole prompt; found on this one.

        Of interest for a model that cannot share its prompt. The first time, the model processes the prompt.
        """
        return bool(self.tokens) and repeats_cache(model, prompt, self._leaves)

    def _of_nodes(self, logits: torch.Tensor) -> torch.Tensor:
        """`logits` from those after every prompt and after every token of its leaf paths, (B, leaves, 1 + D, V)."""
        return torch.cat([logits[:, :1, 0], logits[:, *self._places]], dim=1)

    @torch.no_grad()  # not inference_mode: the tree caches tensors that training uses too
    def read_logits(
        self,
        model: PreTrainedModel,
        prompts: Sequence[Sequence[int]],
        known: PrefixCache | Beginning | None = None,
        max_tokens: int = sys.maxsize,
    ) -> torch.Tensor:
        """As `logits`, without gradients, after B prompts given as token ids.

        Args:
            model, prompts: As in `read_suffixes`.
            known: What prompts begin with: as in `read_suffixes`, or for a repeated cache as in `read_nodes`.
            max_tokens: Where prompts cannot be shared, as in `plain_logits` or `read_nodes`.
        """
        if supports_shared_prefix(model)[0]:
            return read_suffixes(model, prompts, self.suffixes, known)
        ids, mask = pad_prompts(prompts, 0, next(model.parameters()).device)
        if self.repeats_cache(model, prompts[0]):
            return read_nodes(model, ids, mask, self.tokens, self.parents, known, max_tokens)
        return self.plain_logits(model, ids, mask, max_tokens)

    def answers(self, logits: torch.Tensor) -> AnswerDistribution:
        """The distribution over the answers that the strings stand for, from logits as `logits` gives them."""
        raise NotImplementedError

    def read(
        self, model: PreTrainedModel, prompts: Sequence[Sequence[int]], max_tokens: int = sys.maxsize
    ) -> AnswerDistribution:
        """`answers` to B prompts given as token ids, without gradients; `max_tokens` as in `read_logits`."""
        return self.answers(self.read_logits(model, prompts, max_tokens=max_tokens))

    def log_probs(self, logits: torch.Tensor) -> torch.Tensor:
        """Log-probabilities of the strings, shape (B, J), from logits as `logits` gives them, shape (B, 1 + S, V)."""
        device = logits.device
        nodes = self.edge_nodes.to(device)
        picked = logits[:, nodes, self.edge_tokens.to(device)].float()  # (B, M)
        # one prompt at a time: on a CPU, results over the vocabulary for all at once take several times as long
        normalizers = torch.stack([of_prompt.float().logsumexp(dim=-1) for of_prompt in logits])  # (B, 1 + S)
        return self.log_probs_of_edges(picked - normalizers[:, nodes])

    def log_probs_of_edges(self, edges: torch.Tensor) -> torch.Tensor:
        """Log-probabilities of the strings, shape (B, J), from those of the edges, shape (B, M)."""
        edges = torch.cat([edges, edges.new_zeros(len(edges), 1)], dim=1)  # padding adds nothing
        return edges[:, self.paths.to(edges.device)].sum(dim=-1)


def tokens_after(tokenizer: PreTrainedTokenizerBase, context: str, text: str, closing: str = "") -> list[int]:
    """Tokens of a text after a context; with `closing`, including the first token that extends into it.

    Raises:
        UserError: If the tokenizer is slow.
    """
    if not tokenizer.is_fast:
        raise UserError(
            f"the tokenizer, {type(tokenizer).__name__}, is slow: written in Python, it does not say where tokens "
            "stand in a text; expected a fast one, with a file tokenizer.json, or a pointwise judge"
        )
    for front in (context, anchor(tokenizer), ""):  # the tokenizer may merge across the end of the fixed prompt
        before = tokenizer(front, add_special_tokens=False)["input_ids"] if front else []
        encoded = tokenizer(front + text + closing, add_special_tokens=False, return_offsets_mapping=True)
        ids, spans, end = encoded["input_ids"], encoded["offset_mapping"], len(front) + len(text)
        if ids[: len(before)] == before:
            break
    last = next((i for i, (_, stop) in enumerate(spans) if stop > end), len(ids))
    return ids[len(before) : last + 1]
