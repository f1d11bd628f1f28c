"""Batches of votes that share responses, so that one forward pass over a response serves all its votes in the batch.

The responses to the prompts are the nodes of a graph, the votes its edges. An epoch divides the edges into batches: a
batch begins with any vote and repeatedly takes in the response with the most votes on responses that it already has,
until the next one would exceed the tokens of a batch. Of twenty responses with a vote on every two of them, twenty
scores serve 190 votes. Where no response is left that shares a vote, the batch begins another cluster, so that pairs
without common responses give plain batches.

Every vote is used once an epoch. Each epoch draws new batches; their number is that of the first epochs, a multiple of
the number of processes. (Where fewer votes are left than processes, some are used twice.)
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random

import torch

from autorater.prompts.beginnings import common_beginning


@dataclass(frozen=True)
class VoteGraph:
    """Responses and the votes between them.

    Attributes:
        prompts: Token ids of the N distinct responses with their prompts.
        group: Index of every response's prompt, shape (N,).
        own: Tokens of every response that it does not share with the others of its prompt, shape (N,).
        shared: Tokens that all responses to a prompt share, by prompt.
        votes: The two responses (A, B) of every vote.
    """

    prompts: Sequence[list[int]]
    group: Sequence[int]
    own: Sequence[int]
    shared: Sequence[int]
    votes: Sequence[tuple[int, int]]

    @classmethod
    def of(cls, names: Sequence[object], prompts: Sequence[tuple[list[int], list[int]]]) -> "VoteGraph":
        """The graph of V pairs, given the name of each pair's prompt and the token ids for both of its responses."""
        node_of: dict[tuple[int, ...], int] = {}
        group_of: dict[object, int] = {}
        group, votes = [], []
        for name, both in zip(names, prompts, strict=True):
            for ids in both:
                if node_of.setdefault(tuple(ids), len(group)) == len(group):
                    group.append(group_of.setdefault(name, len(group_of)))
            votes.append(tuple(node_of[tuple(ids)] for ids in both))
        nodes = list(map(list, node_of))
        members: list[list[list[int]]] = [[] for _ in group_of]
        for node, g in zip(nodes, group, strict=True):
            members[g].append(node[:-1])
        shared = [len(common_beginning(m)) for m in members]
        return cls(nodes, group, [len(ids) - shared[g] for ids, g in zip(nodes, group, strict=True)], shared, votes)

    def tokens(self, nodes: Sequence[int]) -> int:
        """Tokens of some distinct responses, with each of their prompts once."""
        return sum(self.own[node] for node in nodes) + sum(self.shared[g] for g in {self.group[n] for n in nodes})


class VoteBatches:
    """A batch sampler: yields indices of votes.

    Args:
        graph: Responses and votes.
        tokens: Maximum tokens of the distinct responses of a batch, with their prompts; one vote may have more.
        processes: Number of processes, among which the batches are divided in turn.
        seed: Seed of all draws.

    Attributes:
        generator: Draws the seed of every epoch.
    """

    def __init__(self, graph: VoteGraph, tokens: int, processes: int = 1, seed: int = 0):
        self.graph, self.max_tokens = graph, tokens
        self.generator = torch.Generator().manual_seed(seed)
        self._adjacent: list[dict[int, list[int]]] = [{} for _ in graph.prompts]
        for vote, (a, b) in enumerate(graph.votes):
            for node, other in {(a, b), (b, a)}:
                self._adjacent[node].setdefault(other, []).append(vote)
        draws = [self._draw(Random(f"{seed}/{i}")) for i in range(3)]
        self._spare = max(draws, key=len)
        self._count = -(-len(self._spare) // processes) * processes

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[list[int]]:
        random = Random(torch.randint(2**62, (1,), generator=self.generator).item())
        batches = self._draw(random)
        if len(batches) > self._count:
            batches = list(self._spare)
        while len(batches) < self._count:  # the number of batches is that of all epochs
            largest = max(range(len(batches)), key=lambda i: len(batches[i]))
            votes = batches.pop(largest)
            half = len(votes) // 2
            batches += [votes[:half] or votes, votes[half:]]  # a single vote is used twice
        random.shuffle(batches)
        yield from batches

    def _draw(self, random: Random) -> list[list[int]]:
        order = list(range(len(self.graph.votes)))
        random.shuffle(order)
        rank = [random.random() for _ in self.graph.prompts]
        used, batches = [False] * len(order), []
        while order:
            if used[order[-1]]:
                order.pop()
            else:
                batches.append(self._grow(order, used, rank))
        return batches

    def _grow(self, order: list[int], used: list[bool], rank: list[float]) -> list[int]:
        """One batch; marks its votes as used."""
        batch = _Batch(self.graph, self._adjacent, used)
        while nodes := self._next(batch, order, rank):
            for node in nodes:
                batch.take(node)
        return batch.votes

    def _next(self, batch: "_Batch", order: list[int], rank: list[float]) -> list[int]:
        """The responses that a batch takes in next; none if it is complete."""
        fitting = [node for node in batch.links if batch.tokens + batch.cost(node) <= self.max_tokens]
        if fitting:
            return [max(fitting, key=lambda node: (batch.links[node], rank[node]))]
        if batch.links:  # full
            return []
        while order and batch.used[order[-1]]:
            order.pop()
        if not order:
            return []
        fresh = sorted({*self.graph.votes[order[-1]]})  # another cluster: neither is in the batch, which has no links
        fits = batch.tokens + self.graph.tokens(fresh) <= self.max_tokens
        return fresh if fits or not batch.nodes else []


@dataclass
class _Batch:
    """A batch that grows.

    Attributes:
        adjacent: The votes of every response, by the other one.
        used: Whether a vote is in this batch or an earlier one.
        nodes: The responses in the batch.
        groups: Their prompts.
        links: The number of open votes of each response outside the batch on those inside.
        votes: The votes in the batch.
        tokens: Tokens of its responses and prompts.
    """

    graph: VoteGraph
    adjacent: Sequence[dict[int, list[int]]]
    used: list[bool]
    nodes: set[int] = field(default_factory=set)
    groups: set[int] = field(default_factory=set)
    links: dict[int, int] = field(default_factory=dict)
    votes: list[int] = field(default_factory=list)
    tokens: int = 0

    def cost(self, node: int) -> int:
        group = self.graph.group[node]
        return self.graph.own[node] + (0 if group in self.groups else self.graph.shared[group])

    def take(self, node: int) -> None:
        self.tokens += self.cost(node)
        self.nodes.add(node)
        self.groups.add(self.graph.group[node])
        self.links.pop(node, None)
        for other, votes in self.adjacent[node].items():
            unused = [vote for vote in votes if not self.used[vote]]
            if other in self.nodes:
                self.votes += unused
                for vote in unused:
                    self.used[vote] = True
            elif unused:
                self.links[other] = self.links.get(other, 0) + len(unused)
