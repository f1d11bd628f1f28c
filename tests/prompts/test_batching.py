"""Batches of prompts: all within the budget, and neighbours in sorted order where beginnings are shared."""

from itertools import pairwise, permutations

from hypothesis import given
from hypothesis import strategies as st

from autorater.prompts.batching import batches_by_beginning, similar_lengths

TOKENS = st.lists(st.integers(0, 2), min_size=1, max_size=12)


def distinct_tokens(prompts):
    return len({tuple(prompt[: k + 1]) for prompt in prompts for k in range(len(prompt))})


@given(st.lists(TOKENS, max_size=15), st.integers(0, 3), st.integers(1, 60))
def test_every_prompt_is_in_one_batch_within_the_budget(prompts, suffix_tokens, budget):
    batches = list(batches_by_beginning(prompts, suffix_tokens, budget))
    assert sorted(row for rows in batches for row in rows) == list(range(len(prompts)))
    sizes = [[len(prompts[row]) + suffix_tokens for row in rows] for rows in batches]
    assert all(len(batch) == 1 or sum(batch) <= budget for batch in sizes)
    assert all(sum(batch) + after[0] > budget for batch, after in pairwise(sizes)), "no smaller"


def test_prompts_with_the_same_responses_come_together():
    instructions, responses = [0] * 200, [[10 + k] * (80 + 5 * k) for k in range(20)]
    prompts = [instructions + a + [1] + b for a, b in permutations(responses, 2)]
    read = sum(distinct_tokens([prompts[row] for row in rows]) for rows in batches_by_beginning(prompts, 20, 16_384))
    sizes = [len(prompt) + 20 for prompt in prompts]
    by_length = sum(distinct_tokens([prompts[row] for row in rows]) for rows in similar_lengths(sizes, 16_384))
    assert read <= 1.1 * distinct_tokens(prompts) + 200 * sum(sizes) / 16_384
    assert by_length >= 1.2 * read
