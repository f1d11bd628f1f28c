"""The answer distribution against plain forwards over every answer, one sequence at a time."""

import itertools

import pytest
import torch

from autorater.models.answers import AnswerTree
from autorater.prompts.batching import pad_prompts
from autorater.prompts.encoder import PromptEncoder
from autorater.prompts.templates import PromptFormat
from rewards import CLOSE_TAG, parse_probability
from tests.conftest import make_model, make_tokenizer

FAMILIES = ["qwen", "llama", "gemma", "gpt2"]


def answer_tokens(tokenizer, encoder, text):
    """Tokens of an answer after the whole prompt, and the first one of the closing tag."""
    with_tag = tokenizer(encoder.context + text + CLOSE_TAG, add_special_tokens=False)["input_ids"]
    without = tokenizer(encoder.context + text, add_special_tokens=False)["input_ids"]
    after = len(tokenizer(encoder.context, add_special_tokens=False)["input_ids"])
    assert with_tag[: len(without)] == without
    return with_tag[after : len(without) + 1]


def brute_force(model, tree, tokenizer, encoder, prompt, differentiable=False):
    """π(k | x) by one forward pass per string, tokenized after the whole prompt."""
    probs = [0.0] * len(tree.values)
    for text, value in zip(tree.strings, tree.string_values.tolist(), strict=True):
        answer = answer_tokens(tokenizer, encoder, text)
        logits = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
        logp = logits.log_softmax(-1).gather(1, torch.tensor(answer)[:, None]).sum()
        probs[value] = probs[value] + logp.exp()
    probs = torch.stack(probs)
    return probs if differentiable else probs.detach()


def brute_force_closing(model, tokenizer, encoder, prompt, text):
    """log π(rest of the closing tag, end of text | prompt, text and the tag's first token) by one plain forward."""
    whole = tokenizer(encoder.context + text + CLOSE_TAG, add_special_tokens=False)["input_ids"]
    after = len(tokenizer(encoder.context, add_special_tokens=False)["input_ids"])
    answer, begun = [*whole[after:], tokenizer.eos_token_id], len(answer_tokens(tokenizer, encoder, text))
    logits = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 + begun : -1]
    return logits.log_softmax(-1).gather(1, torch.tensor(answer[begun:])[:, None]).sum()


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


@pytest.mark.parametrize("digits", ["split", "merged"])
@pytest.mark.parametrize("family", FAMILIES)
def test_closing_tag_equals_brute_force(family, digits, simulated):
    tokenizer, encoder, model, tree, prompts, ids, mask = setting(family, digits, 0.25, simulated)
    with torch.no_grad():
        alone = tree.distribution(model, ids, mask)
        for which, text in enumerate(tree.strings):
            answers = tree.distribution(model, ids, mask, closing=which)
            torch.testing.assert_close(answers.probs, alone.probs, rtol=1e-5, atol=1e-12)
            for closing, prompt in zip(answers.closing, prompts, strict=True):
                expected = brute_force_closing(model, tokenizer, encoder, prompt, text)
                torch.testing.assert_close(closing, expected, rtol=1e-5, atol=1e-5)
    assert alone.closing is None


def favour_numbers(model, tree, last_prompt_token):
    """Favours, more or less by position, what may follow a token somewhere in the tree: numbers and near-numbers."""
    generator = torch.Generator().manual_seed(0)
    after = torch.tensor([last_prompt_token, *tree.tokens])[tree.edge_nodes]
    known, row = after.unique(return_inverse=True)
    favoured = torch.zeros(31, 1 + len(known), model.config.vocab_size)
    favoured[:, row, tree.edge_tokens] = 7 + 3 * torch.randn(31, len(row), generator=generator)
    row_of = torch.full((model.config.vocab_size,), len(known)).scatter(0, known, torch.arange(len(known)))

    def favour(model, args, kwargs, output):
        kept = kwargs.get("logits_to_keep")
        if not isinstance(kept, torch.Tensor):  # of `generate`
            kept = torch.arange(kwargs["input_ids"].shape[1])[-output.logits.shape[1] :]
        if "position_ids" not in kwargs:
            return  # the beginning that all prompts have in common: nothing is read there
        ids, positions = kwargs["input_ids"][:, kept], kwargs["position_ids"][:, kept]
        output.logits = output.logits + favoured[positions % 31, row_of[ids]]

    model.register_forward_hook(favour, with_kwargs=True)


@pytest.mark.parametrize("digits", ["split", "merged"])
@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_answer_is_what_generate_writes(family, digits, simulated):
    tokenizer, encoder, model, tree, prompts, *_ = setting(family, digits, 0.05, simulated, count=24)
    favour_numbers(model, tree, prompts[0][-1])
    answers = tree.read(model, prompts)
    spelled = {tuple(answer_tokens(tokenizer, encoder, text)): text for text in tree.strings}
    expected = []
    for prompt in prompts:
        written = model.generate(
            torch.tensor([prompt]), do_sample=False, min_new_tokens=tree.depth, max_new_tokens=tree.depth
        )[0, len(prompt) :].tolist()
        texts = [text for tokens, text in spelled.items() if tuple(written[: len(tokens)]) == tokens]
        expected.append(float(texts[0]) if texts else torch.nan)
    torch.testing.assert_close(answers.greedy, torch.tensor(expected), equal_nan=True)
    assert 0 < answers.greedy.isnan().sum() < len(prompts), "some should write an answer and some should not"
    torch.testing.assert_close(answers.probs, tree.distribution(model, *pad_prompts(prompts, 0)).probs.detach())


def test_greedy_answer_need_not_be_the_mode():
    """0.7 is the likeliest beginning, 0.8 the likeliest number."""
    tokenizer = make_tokenizer("split")
    tree = AnswerTree(tokenizer, PromptEncoder(tokenizer).context, 0.05)
    end = tokenizer.tokenize(CLOSE_TAG)[0]
    after = {
        "": {"0": 1.0}, "0": {".": 1.0}, "0.": {"7": 0.5, "8": 0.4, "9": 0.1},
        "0.7": {end: 0.34, "0": 0.33, "5": 0.33}, "0.70": {end: 1.0}, "0.75": {end: 1.0}, "0.8": {end: 1.0},
    }  # fmt: skip
    nodes = [""]
    for parent, token in zip(tree.parents, tree.tokens, strict=True):
        nodes.append(nodes[parent + 1] + tokenizer.decode(token))
    probs = torch.full((1, len(nodes), len(tokenizer)), 1e-9)
    for text, following in after.items():
        for token, prob in following.items():
            probs[0, nodes.index(text), tokenizer.convert_tokens_to_ids(token)] = prob
    answers = tree.from_logits(probs.log())
    assert tree.greedy_from_logits(probs.log()).tolist() == pytest.approx([0.7])
    assert answers.mode.tolist() == pytest.approx([0.8])
    expected = {0.7: 0.5 * 0.67, 0.75: 0.5 * 0.33, 0.8: 0.4}
    for value, prob in expected.items():
        assert answers.probs[0, tree.values.tolist().index(value)] == pytest.approx(prob, abs=1e-4)


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
    assert (answers.outside > 0.5).all(), "an untrained model writes almost anything"
    variance = (weights * answers.values**2).sum(1) - answers.mean**2
    torch.testing.assert_close(answers.spread**2, variance, rtol=1e-3, atol=1e-6)
    assert set(answers.mode.tolist()) <= set(answers.values.tolist())
    torch.testing.assert_close(answers.entropy, -(answers.probs * answers.probs.log()).sum(1))


@pytest.mark.parametrize("step", [0.03, 0, -0.1, 0.00005, 2])
def test_step_that_does_not_fit(tokenizer, step):
    with pytest.raises(ValueError, match="answer step must divide 1"):
        AnswerTree(tokenizer, "x", step)
