"""Prompts that begin alike come in one batch where that saves tokens."""

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autorater.prompts.batching import batches_by_beginning, shared_length, similar_lengths

TOKENS = st.lists(st.integers(0, 2), min_size=1, max_size=12)


def tokens_read(prompts, batches, suffix_tokens=0):
    """Tokens of a reader that keeps the beginning it read last, padding included."""
    total, held = 0, []
    for rows in batches:
        batch = [prompts[row] for row in rows]
        beginning = min(batch)[: shared_length(min(batch), max(batch))]
        total += len(beginning) - shared_length(held, beginning)
        total += len(batch) * (max(map(len, batch)) - len(beginning) + suffix_tokens)
        held = beginning
    return total


def distinct_tokens(prompts):
    return len({tuple(prompt[: i + 1]) for prompt in prompts for i in range(len(prompt))})


@given(st.lists(TOKENS, max_size=15), st.integers(0, 3), st.integers(1, 60), st.integers(0, 4))
def test_every_prompt_is_in_one_batch_within_the_budget(prompts, suffix_tokens, budget, call_tokens):
    batches = list(batches_by_beginning(prompts, suffix_tokens, budget, call_tokens))
    assert sorted(row for rows in batches for row in rows) == list(range(len(prompts)))
    for rows in batches:
        longest = max(len(prompts[row]) for row in rows)
        assert len(rows) == 1 or len(rows) * (longest + suffix_tokens) <= budget
        assert len(prompts[rows[0]]) == longest, "the longest first"


@given(st.lists(TOKENS, min_size=1, max_size=15))
def test_no_token_is_read_twice_where_calls_are_free(prompts):
    assert tokens_read(prompts, batches_by_beginning(prompts, 0, 10**6, 0)) == distinct_tokens(prompts)


@given(st.lists(TOKENS, min_size=1, max_size=15))
def test_calls_that_cost_too_much_are_not_made(prompts):
    assert len(list(batches_by_beginning(prompts, 0, 10**6, 10**6))) == 1


def test_pairs_of_the_same_responses_read_every_response_first_once():
    instructions, responses = [0] * 200, [[10 + k] * (80 + 5 * k) for k in range(8)]
    prompts = [instructions + a + [1] + b for a, b in permutations(responses, 2)]
    read = tokens_read(prompts, batches_by_beginning(prompts, 20, 16_384, 16), suffix_tokens=20)
    similar = tokens_read(prompts, similar_lengths([len(p) + 20 for p in prompts], 16_384), suffix_tokens=20)
    distinct = distinct_tokens(prompts) + 20 * len(prompts)
    assert read <= 1.1 * distinct
    assert similar >= 1.5 * read


@pytest.mark.parametrize(("call_tokens", "batches"), [(20, 4), (100, 2), (1000, 1)])
def test_prompts_of_unlike_lengths_are_read_apart_where_their_padding_costs_more(call_tokens, batches):
    prompts = [[k] * size for k, size in enumerate((300, 200, 100, 99, 10))]
    assert len(list(batches_by_beginning(prompts, 0, 10**6, call_tokens))) == batches


def test_many_beginnings_inside_one_another():
    """A chain of prompts, each the beginning of the next, has as many nodes as prompts."""
    prompts = [[1] * (k + 1) for k in range(3000)]
    assert sum(map(len, batches_by_beginning(prompts, 0, 16_384, 8))) == 3000
