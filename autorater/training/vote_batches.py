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
from dataclasses import dataclass
from random import Random

import torch

from autorater.prompts.batching import common_beginning


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
        graph, batch, tokens = self.graph, [], 0
        nodes: set[int] = set()
        groups: set[int] = set()
        links: dict[int, int] = {}  # open votes of the responses outside the batch on those inside

        def cost(node: int) -> int:
            shared = 0 if graph.group[node] in groups else graph.shared[graph.group[node]]
            return graph.own[node] + shared

        def take(node: int) -> None:
            nonlocal tokens
            tokens += cost(node)
            nodes.add(node)
            groups.add(graph.group[node])
            links.pop(node, None)
            for other, votes in self._adjacent[node].items():
                unused = [vote for vote in votes if not used[vote]]
                if other in nodes:
                    batch.extend(unused)
                    for vote in unused:
                        used[vote] = True
                elif unused:
                    links[other] = links.get(other, 0) + len(unused)

        while True:
            fitting = [node for node in links if tokens + cost(node) <= self.max_tokens]
            if fitting:
                take(max(fitting, key=lambda node: (links[node], rank[node])))
                continue
            if links and nodes:  # full
                return batch
            while order and used[order[-1]]:
                order.pop()
            if not order:
                return batch
            fresh = sorted({*graph.votes[order[-1]]} - nodes)
            if nodes and tokens + graph.tokens(fresh) > self.max_tokens:
                return batch
            for node in fresh:
                take(node)
