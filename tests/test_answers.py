"""The answer distribution against plain forwards over every answer, one sequence at a time."""

import itertools

import pytest
import torch

from autorater.answers import AnswerTree
from autorater.prompts import PromptEncoder, PromptFormat, pad_prompts
from rewards import CLOSE_TAG, parse_probability
from tests.conftest import make_model, make_tokenizer

FAMILIES = ["qwen", "llama", "gemma", "gpt2"]


def brute_force(model, tree, tokenizer, encoder, prompt, differentiable=False):
    """π(k | x) by one forward pass a string, tokenized behind the whole prompt."""
    probs = [0.0] * len(tree.values)
    for text, value in zip(tree.strings, tree.string_values.tolist(), strict=True):
        with_tag = tokenizer(encoder.context + text + CLOSE_TAG, add_special_tokens=False)["input_ids"]
        without = tokenizer(encoder.context + text, add_special_tokens=False)["input_ids"]
        behind = len(tokenizer(encoder.context, add_special_tokens=False)["input_ids"])
        assert with_tag[: len(without)] == without
        answer = with_tag[behind : len(without) + 1]
        logits = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
        logp = logits.log_softmax(-1).gather(1, torch.tensor(answer)[:, None]).sum()
        probs[value] = probs[value] + logp.exp()
    probs = torch.stack(probs)
    return probs if differentiable else probs.detach()


def setting(family, digits, step, simulated, count=3):
    tokenizer = make_tokenizer(digits, chat=family == "qwen")
    encoder = PromptEncoder(tokenizer, PromptFormat("compact"))
    model = make_model(family, len(tokenizer))
    tree = AnswerTree(tokenizer, encoder.context, step)
    prompts = [p.ids for p in itertools.chain(*encoder.encode(simulated.pairs[:count]))][:count]
    ids, mask = pad_prompts(prompts, tokenizer.pad_token_id)
    assert len({len(p) for p in prompts}) > 1, "the prompts should differ in length"
    return tokenizer, encoder, model, tree, prompts, ids, mask


@pytest.mark.parametrize("digits", ["split", "merged"])
@pytest.mark.parametrize("family", FAMILIES)
def test_distribution_equals_brute_force(family, digits, simulated):
    tokenizer, encoder, model, tree, prompts, ids, mask = setting(family, digits, 0.05, simulated)
    with torch.no_grad():
        probs = tree.distribution(model, ids, mask).probs
        for row, prompt in zip(probs, prompts, strict=True):
            expected = brute_force(model, tree, tokenizer, encoder, prompt)
            torch.testing.assert_close(row, expected, rtol=1e-5, atol=1e-12)


def test_finest_grid_equals_brute_force(simulated):
    tokenizer, encoder, model, tree, prompts, ids, mask = setting("qwen", "split", 0.01, simulated)
    assert len(tree.values) == 101
    assert len(tree.tokens) < 130
    with torch.no_grad():
        probs = tree.distribution(model, ids, mask).probs
        torch.testing.assert_close(
            probs[1], brute_force(model, tree, tokenizer, encoder, prompts[1]), rtol=1e-5, atol=1e-12
        )


@pytest.mark.parametrize("step", [0.01, 0.05, 0.1, 0.25, 1.0])
def test_every_string_parses_to_its_value(tokenizer, step):
    tree = AnswerTree(tokenizer, PromptEncoder(tokenizer).context, step)
    assert tree.values[0] == 0
    assert tree.values[-1] == 1
    for text, k in zip(tree.strings, tree.string_values.tolist(), strict=True):
        assert parse_probability(text + CLOSE_TAG, prefilled=True) == tree.values[k]
    assert set(tree.string_values.tolist()) == set(range(len(tree.values)))
    assert len(set(tree.strings)) == len(tree.strings)


def test_terminator_separates_short_from_long_answers(tokenizer):
    """Without the terminator the paths of 0.8 and 0.85 would start with the same tokens and 0.8 would count both."""
    tree = AnswerTree(tokenizer, PromptEncoder(tokenizer).context, 0.01)
    width = len(tree.edge_tokens)
    paths = [[e for e in path if e != width] for path in tree.paths.tolist()]
    for a, b in itertools.permutations(paths[:40], 2):
        assert a != b[: len(a)], "an answer is the beginning of another"


def test_distribution_statistics(simulated):
    *_, model, tree, _, ids, mask = setting("llama", "split", 0.1, simulated)
    with torch.no_grad():
        answers = tree.distribution(model, ids, mask)
    weights = answers.probs / answers.probs.sum(1, keepdim=True)
    torch.testing.assert_close(answers.mean, weights @ answers.values)
    torch.testing.assert_close(answers.valid + answers.outside, torch.ones(len(ids)))
    assert (answers.outside > 0.5).all(), "an untrained model says almost anything"
    variance = (weights * answers.values**2).sum(1) - answers.mean**2
    torch.testing.assert_close(answers.spread**2, variance, rtol=1e-3, atol=1e-6)
    assert set(answers.mode.tolist()) <= set(answers.values.tolist())
    torch.testing.assert_close(answers.entropy, -(answers.probs * answers.probs.log()).sum(1))


@pytest.mark.parametrize("step", [0.03, 0, -0.1, 0.00005, 2])
def test_step_that_does_not_fit(tokenizer, step):
    with pytest.raises(ValueError, match="answer step must divide 1"):
        AnswerTree(tokenizer, "x", step)
