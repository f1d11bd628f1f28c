"""Every judging method against what plain generation and plain forwards of the same model give."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from autorater.data.errors import UserError
from autorater.data.population import simulate_pairs
from autorater.judges import Judge, Judgments
from autorater.judges.calibrators import LogitMap
from autorater.judges.methods import (
    LetterLogits,
    SelfConsistency,
    Verbalized,
    judging_method,
    vote_shares,
)
from autorater.judges.options import METHODS
from autorater.metrics import position_bias
from autorater.prompts.templates import PromptFormat
from rewards import parse_probability
from tests.conftest import make_model, make_tokenizer


@pytest.fixture(scope="module")
def trained_model():
    """A two-layer model trained for a few steps to write a different number after each of 16 prompts."""
    tokenizer = make_tokenizer("split")
    model = make_model("qwen", len(tokenizer))
    judge = Judge(model, tokenizer, PromptFormat("compact"), answer_step=0.1)
    prompts = judge.encoder.encode(simulate_pairs(16, seed=1).pairs)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(160):
        text = f"{judge.tree.values[step % 16 % 11]:.1f}</"
        answer = tokenizer(text, add_special_tokens=False)["input_ids"]
        ids = torch.tensor([prompts[step % 16][0].ids + answer])
        labels = ids.clone()
        labels[:, : -len(answer)] = -100
        loss = model(ids, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval(), tokenizer


@pytest.fixture
def judge(trained_model):
    return Judge(*trained_model, PromptFormat("compact"), answer_step=0.1)


def generated(judge, prompt, **how):
    """Text after a prompt, up to the first token of the closing tag, closed."""
    ids = torch.tensor([prompt.ids])
    out = judge.model.generate(ids, max_new_tokens=judge.tree.depth + 3, pad_token_id=0, **how)[0, ids.shape[1] :]
    return judge.tokenizer.decode(out).split("<")[0] + "</prob_rb_better>"


def test_verbalized_is_what_greedy_decoding_writes(judge):
    pairs = simulate_pairs(16, seed=1).pairs
    judgments = Verbalized(judge).probabilities(pairs)
    assert judgments.valid.mean() > 0.5
    assert len(np.unique(judgments.mean)) > 1
    assert set(np.unique(judgments.mean)) <= {*judge.tree.values}, "decimals, not their float32 neighbours"
    for i, both in enumerate(judge.encoder.encode(pairs)):
        for order, prompt in enumerate(both):
            written = parse_probability(generated(judge, prompt, do_sample=False), prefilled=True)
            if judgments.valid[i, order]:
                assert judgments.mean[i, order] == pytest.approx(written)
            else:
                assert judgments.mean[i, order] == 0.5
                assert written is None or written not in judge.tree.values


def test_self_consistency_draws_from_the_distribution(judge, simulated):
    """With many draws the share comes to Pr[answer > 1/2] + Pr[answer = 1/2] / 2 among the answers that parse."""
    pairs, values = simulated.pairs[:2], judge.tree.values
    judgments = SelfConsistency(judge, 4000, seed=1).probabilities(pairs)
    for rows, (answers,) in judge.read([prompt for both in judge.encoder.encode(pairs) for prompt in both]):
        probs = answers.probs.double().numpy()
        share = (probs @ ((values > 0.5) + (values == 0.5) / 2)) / probs.sum(axis=1)
        n_parsed = judgments.valid.ravel()[rows] * 4000
        assert (np.abs(judgments.mean.ravel()[rows] - share) < 4 * np.sqrt(share * (1 - share) / n_parsed)).all()
        np.testing.assert_allclose(judgments.valid.ravel()[rows], probs.sum(axis=1), atol=0.04)


def test_self_consistency_is_reproducible_and_leaves_the_generator_alone(judge, simulated):
    torch.manual_seed(3)
    state = torch.random.get_rng_state()
    first, second, other = (SelfConsistency(judge, 5, s).probabilities(simulated.pairs[:4]) for s in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    np.testing.assert_array_equal(first.mean, second.mean)
    assert (first.mean != other.mean).any()


def test_other_pairs_have_other_random_reasonings(judge, simulated, monkeypatch):
    """An evaluation judges many small parts, and would draw alike in all of them."""
    seeds, seed = [], torch.manual_seed
    monkeypatch.setattr(torch, "manual_seed", lambda value: seeds.append(value) or seed(value))
    judge = Judge(judge.model, judge.tokenizer, PromptFormat("full", reasoning=True), 0.1, 4)
    for of_method, rows in ((0, slice(2)), (0, slice(2)), (0, slice(2, 4)), (1, slice(2))):
        SelfConsistency(judge, 2, of_method).probabilities(simulated.pairs[rows])
    assert seeds[0] == seeds[1]
    assert len(set(seeds)) == 3


def test_vote_shares():
    drawn = np.array([[[0.9, 0.6, 0.5, np.nan], [np.nan] * 4]])
    judgments = vote_shares(drawn)
    np.testing.assert_allclose(judgments.mean, [[2.5 / 3, 0.5]])
    np.testing.assert_allclose(judgments.valid, [[0.75, 0]])
    np.testing.assert_allclose(judgments.spread, [[np.std([1, 1, 0.5]), 0]])


def test_letter_logits_are_the_softmax_after_the_prompt(judge, simulated):
    pairs = simulated.pairs[:3]
    method = LetterLogits(judge)
    judgments = method.probabilities(pairs)
    tokens = {letter: [judge.tokenizer(t)["input_ids"] for t in (letter, f" {letter}")] for letter in "AB"}
    for i, both in enumerate(method.encoder.encode(pairs)):
        for order, prompt in enumerate(both):
            with torch.no_grad():
                probs = judge.model(torch.tensor([prompt.ids])).logits[0, -1].softmax(-1)
            a, b = (sum(probs[ids[0]].item() for ids in tokens[x] if len(ids) == 1) for x in "AB")
            assert judgments.mean[i, order] == pytest.approx(b / (a + b), rel=1e-4)
            assert judgments.valid[i, order] == pytest.approx(a + b, rel=1e-4)
            assert judgments.mode[i, order] == (b > a)
            assert "<prob_rb_better>" not in prompt.text


def test_letters_that_are_no_token_are_refused(judge, monkeypatch):
    monkeypatch.setattr("autorater.judges.methods.inside_ids", lambda tokenizer, texts: [[1, 2] for _ in texts])
    with pytest.raises(ValueError, match="letter A into several tokens"):
        LetterLogits(judge)


def test_every_method_judges_or_says_why_not(judge, simulated):
    full = Judge(judge.model, judge.tokenizer, PromptFormat("full"), 0.1)
    for name in METHODS:
        method = judging_method(name, full, simulated.pairs, n_samples=2, max_reasoning_tokens=4)
        judgments = method.probabilities(simulated.pairs[:2])
        assert len(judgments) == 2
        assert ((judgments.mean >= 0) & (judgments.mean <= 1)).all()
    with pytest.raises(ValueError, match="reasoning requires a template without it at the end"):
        judging_method("verbalized_reasoning", judge)
    with pytest.raises(ValueError, match="unknown judging method 'magic'"):
        judging_method("magic", judge)
    for name, least in (("self_consistency", 1), ("self_consistency_reasoning", 2)):
        with pytest.raises(UserError, match=f"n_samples is {least - 1}; expected at least {least}"):
            judging_method(name, full, n_samples=least - 1)


def test_the_method_pointwise_keeps_the_system_prompt_and_says_what_it_does_not_show(trained_model, caplog):
    judge = Judge(*trained_model, PromptFormat("criteria", system_prompt="Be fair.", criteria="Is it short?"))
    pieces = judging_method("pointwise", judge).encoder.pieces
    assert pieces[0].startswith("Be fair.\n\n")
    expected = "does not show criteria of the judge: prompt template pointwise has no {criteria}"
    assert caplog.messages == [f"the method pointwise {expected}"]


def test_methods_are_compared_without_a_saved_recalibration(judge, simulated):
    pairs = simulated.pairs[:3]
    raw = judge.probabilities(pairs).mean
    judge.recalibration = LogitMap("batch", intercept=1.0)
    assert (judge.probabilities(pairs).mean != raw).all()
    np.testing.assert_array_equal(judging_method("answer_mean", judge).probabilities(pairs).mean, raw)
    assert judge.recalibration is not None


def test_swap_averaging_removes_position_bias(judge, simulated):
    pairs = simulated.pairs[:6]
    plain = judge.probabilities(pairs)
    averaged = plain.swap_averaged()
    np.testing.assert_allclose(averaged.p_ab, plain.p_sym)
    np.testing.assert_allclose(averaged.p_sym, plain.p_sym)
    assert position_bias(averaged.p_ab, averaged.p_ba)["symmetry_deviation_abs"] < 1e-12
    np.testing.assert_allclose(averaged.spread[:, 0], np.sqrt((plain.spread**2).sum(1)) / 2)
    swapped = judge.probabilities([pair.swapped() for pair in pairs]).swap_averaged()
    np.testing.assert_allclose(swapped.p_ab, averaged.p_ba, rtol=1e-4)


def test_recalibration_maps_the_mean_and_nothing_else(judge, simulated):
    pairs, shift = simulated.pairs[:3], LogitMap("batch", intercept=0.7)
    plain = judge.probabilities(pairs)
    mapped = plain.recalibrated(shift)
    np.testing.assert_allclose(mapped.mean, shift(plain.mean))
    np.testing.assert_array_equal(mapped.mode, plain.mode)
    np.testing.assert_array_equal(mapped.greedy, plain.greedy)


def test_recalibration_is_saved_with_the_model_and_applied(judge, simulated, tmp_path):
    tokenizer = make_tokenizer("split")
    judge = Judge(make_model("llama", len(tokenizer)), tokenizer, PromptFormat("compact"), 0.25)
    pairs = simulated.pairs[:3]
    raw = judge.probabilities(pairs)
    judge.recalibration = LogitMap("odd_temperature", 0.5)
    judge.model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    judge.save_format(tmp_path)
    loaded = Judge.from_pretrained(str(tmp_path), dtype="float32", device="cpu")
    assert loaded.recalibration == judge.recalibration
    np.testing.assert_allclose(loaded.probabilities(pairs).mean, judge.recalibration(raw.mean), rtol=1e-5)


def test_some_of_the_judgments():
    columns = [np.arange(6.0).reshape(3, 2) + i for i in range(4)]
    part = Judgments(*columns)[1:]
    assert len(part) == 2
    np.testing.assert_array_equal(part.valid, columns[3][1:])
    assert part.greedy is None
    np.testing.assert_array_equal(replace(part, greedy=columns[0][1:])[1:].greedy, columns[0][2:])
