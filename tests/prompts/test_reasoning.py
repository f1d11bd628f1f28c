"""The end of reasoning with several tokenizers; answers packed after reasoning against plain forward passes."""

import pytest
import torch
from tokenizers import AddedToken

from autorater.models.shared_prefix import plain_logps, shared_prefix_logps, suffix_logits
from autorater.models.suffixes import branch_suffixes, tree_suffixes
from autorater.prompts.reasoning import close_reasoning
from rewards import parse_probability
from rewards.answer import CLOSE_TAG, OPEN_TAG, THINK_CLOSE
from tests.conftest import make_model, make_tokenizer


def spelled_tokenizer(special):
    """`</think>` as a control token (Qwen3), or in pieces with a token `><` that extends into the answer tag."""
    tokenizer = make_tokenizer("split")
    vocabulary = tokenizer.get_added_vocab()
    if special:
        tokenizer.add_special_tokens({"additional_special_tokens": ["</think>"]})
        return tokenizer
    backend = tokenizer.backend_tokenizer
    assert "</think>" in vocabulary
    fresh = type(backend).from_str(backend.to_str().replace('"</think>"', '"<never>"'))
    fresh.add_tokens([AddedToken("><", special=False)])
    return type(tokenizer)(tokenizer_object=fresh, eos_token="<|endoftext|>", pad_token="<|endoftext|>")


def encode(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("thought", ["", "B cites a source. ", "naïve 😀", "<think>both are kind"])
@pytest.mark.parametrize("after", ["", OPEN_TAG + "0.5" + CLOSE_TAG, "😀 and on", "</think>"])
def test_answer_is_opened_after_the_first_end(special, thought, after):
    tokenizer = spelled_tokenizer(special)
    ids = encode(tokenizer, thought + THINK_CLOSE + after)
    reasoning = close_reasoning(tokenizer, ids)
    assert reasoning.closed
    assert tokenizer.decode(reasoning.ids) == thought + THINK_CLOSE + OPEN_TAG
    assert reasoning.ids[: reasoning.written] == ids[: reasoning.written]
    assert parse_probability(tokenizer.decode(reasoning.ids) + "0.85" + CLOSE_TAG) == 0.85


def test_token_across_the_end_is_replaced():
    tokenizer = spelled_tokenizer(special=False)
    ids = encode(tokenizer, "yes" + THINK_CLOSE + OPEN_TAG + "0.5")
    crossing = tokenizer.convert_tokens_to_ids("><")
    assert crossing in ids
    reasoning = close_reasoning(tokenizer, ids)
    assert crossing not in reasoning.ids[: reasoning.written]


@pytest.mark.parametrize("text", ["", "still thinking </thin", "</ think>"])
def test_reasoning_without_an_end_is_unchanged(text):
    tokenizer = spelled_tokenizer(special=False)
    ids = encode(tokenizer, text)
    reasoning = close_reasoning(tokenizer, ids)
    assert (reasoning.ids, reasoning.written, reasoning.closed) == (ids, len(ids), False)


@pytest.mark.parametrize("family", ["qwen", "llama", "gemma", "gpt2"])
def test_tree_after_every_branch_equals_plain_forward_passes(family):
    torch.manual_seed(0)
    model = make_model(family, 50)
    prompt_ids, prompt_mask = torch.randint(1, 50, (2, 9)), torch.ones(2, 9, dtype=torch.long)
    prompt_mask[1, :3] = 0
    completion_ids, completion_mask = torch.randint(1, 50, (2, 3, 5)), torch.ones(2, 3, 5, dtype=torch.long)
    completion_mask[0, 1, 2:] = 0
    completion_mask[1, 2, 1:] = 0
    tree = tree_suffixes(torch.tensor([7, 8, 9, 10]), torch.tensor([-1, 0, 0, 2]))
    batch = (prompt_ids, prompt_mask, completion_ids, completion_mask)

    logps, entropies, logits = shared_prefix_logps(model, *batch, temperature=0.7, tree=tree)
    plain, plain_entropies = plain_logps(model, *batch, temperature=0.7)
    torch.testing.assert_close(logps, plain, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(entropies, plain_entropies, rtol=1e-5, atol=1e-5)

    paths = [[], [7], [7, 8], [7, 9], [7, 9, 10]]
    expected = torch.zeros_like(logits)
    for b in range(2):
        prompt = prompt_ids[b][prompt_mask[b].bool()].tolist()
        for g in range(3):
            row = prompt + completion_ids[b, g][completion_mask[b, g].bool()].tolist()
            for t, path in enumerate(paths):
                expected[b, g, t] = model(torch.tensor([row + path])).logits[0, -1]
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    some = torch.rand_like(logits)
    got = torch.autograd.grad((logits * some).sum(), list(model.parameters()))
    expected_gradients = torch.autograd.grad((expected * some).sum(), list(model.parameters()))
    for a, b in zip(got, expected_gradients, strict=True):
        assert (a - b).norm() <= 1e-5 * b.norm() + 1e-7


def test_layout_of_branches_with_a_tree():
    completion_ids, completion_mask = torch.randint(1, 50, (1, 2, 3)), torch.ones(1, 2, 3, dtype=torch.long)
    model, prompt = make_model("qwen", 50), torch.randint(1, 50, (1, 4))
    tree = tree_suffixes(torch.tensor([7]), torch.tensor([-1]))
    packed = branch_suffixes(completion_ids, completion_mask, tree)
    assert packed.input_ids.tolist()[0] == [*completion_ids.flatten().tolist(), 7, 7]
    assert packed.depth.tolist() == [[0, 1, 2, 0, 1, 2, 3, 3]]
    assert suffix_logits(model, prompt, torch.ones_like(prompt), packed).shape == (1, 9, 50)
