"""Batches of votes: every vote once an epoch, few scored responses, tokens bounded, the same number in every epoch."""

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autorater.training.vote_batches import VoteBatches, VoteGraph


def make_graph(votes, names=None):
    """Responses 0, 1, … of 10 + i % 7 tokens, of which 5 are shared within a prompt."""

    def ids(name, i):
        return [1, 2, 3, 4, name + 100, *[i + 1000] * (5 + i % 7), 9]

    names = names or [0] * len(votes)
    return VoteGraph.of(names, [tuple(ids(name, i) for i in vote) for name, vote in zip(names, votes, strict=True)])


def responses(graph, batch):
    return {node for vote in batch for node in graph.votes[vote]}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=60),
    st.integers(20, 200),
    st.integers(1, 3),
    st.integers(0, 3),
)
def test_every_vote_once_within_the_tokens(votes, tokens, processes, seed):
    graph = make_graph(votes, [min(a, b) % 2 for a, b in votes])
    batches = VoteBatches(graph, tokens, processes, seed)
    for _ in range(3):
        epoch = list(batches)
        assert len(epoch) == len(batches)
        assert len(epoch) % processes == 0
        assert all(epoch), "no batch is empty"
        used = sorted(vote for batch in epoch for vote in batch)
        assert used == list(range(len(votes))) or (
            len(votes) < len(batches) < len(votes) + processes and set(used) == set(range(len(votes)))
        )
        for batch in epoch:
            assert len(batch) == 1 or graph.tokens(sorted(responses(graph, batch))) <= tokens or (
                len(responses(graph, batch)) <= 2
            )  # fmt: skip


def test_a_complete_graph_is_read_few_times():
    graph = make_graph(list(combinations(range(20), 2)))
    everything = graph.tokens(range(20))
    (whole,) = VoteBatches(graph, everything)
    assert len(whole) == 190
    half = list(VoteBatches(graph, everything // 2))
    scored = sum(len(responses(graph, batch)) for batch in half)
    assert scored <= 80, "two responses a vote would be 380"


def test_pairs_without_common_responses_fill_batches():
    graph = make_graph([(2 * i, 2 * i + 1) for i in range(40)], list(range(40)))
    batches = list(VoteBatches(graph, 200))
    assert all(len(batch) > 3 for batch in batches[:-1])


def test_epochs_differ_and_a_restored_generator_repeats_one():
    graph = make_graph(list(combinations(range(12), 2)))
    batches = VoteBatches(graph, 60, seed=1)
    state = batches.generator.get_state()
    first, second = list(batches), list(batches)
    assert first != second
    batches.generator.set_state(state)
    assert list(batches) == first
    assert list(VoteBatches(graph, 60, seed=1)) == first


def test_equal_responses_are_one_node_and_a_tie_of_texts_is_a_vote():
    graph = make_graph([(0, 1), (1, 0), (0, 0), (0, 1)])
    assert len(graph.prompts) == 2
    assert [sorted(batch) for batch in VoteBatches(graph, 1000)] == [[0, 1, 2, 3]]


def test_shared_tokens_count_once_a_prompt():
    graph = make_graph([(0, 1), (2, 3)], [0, 1])
    assert graph.shared == [5, 5]
    assert graph.tokens([0, 1]) == 5 + 6 + 7
    assert graph.tokens([0, 2]) == 10 + 6 + 8


@pytest.mark.parametrize("tokens", [1, 10])
def test_a_vote_larger_than_a_batch_is_one(tokens):
    graph = make_graph(list(combinations(range(4), 2)))
    assert sorted(len(batch) for batch in VoteBatches(graph, tokens)) == [1] * 6
