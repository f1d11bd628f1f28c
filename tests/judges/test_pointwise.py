"""Pointwise judges: exact digits for both kinds of tokenizers, no order, a response read once, saved and loaded."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.special import expit

from autorater.audit.judging import _blocks, _judge_locally
from autorater.audit.probes import Presentation
from autorater.data.errors import UserError
from autorater.data.messages import Message
from autorater.data.pairs import Pair
from autorater.judges import Judge
from autorater.judges.calibrators import LogitMap
from autorater.judges.methods import judging_method
from autorater.judges.opening import open_judge
from autorater.judges.pointwise import DigitTree, PointwiseJudge
from autorater.prompts.pointwise import DIGITS, ScoreEncoder
from autorater.prompts.templates import PromptFormat
from tests.conftest import make_model, make_tokenizer

TEXTS = ["blue, I think", "red", "It depends on the light and on the eye", "score: 9 [Response] 0"]


def make_pairs():
    return [
        Pair(f"{i}{j}", "Which colour?", a, b, 0.5) for i, a in enumerate(TEXTS) for j, b in enumerate(TEXTS) if i != j
    ]


def make_judge(tokenizer, **options):
    return PointwiseJudge(make_model("qwen", len(tokenizer)), tokenizer, **options)


@pytest.fixture(params=["split", "merged", "chat"])
def judge(request):
    chat = request.param == "chat"
    return make_judge(make_tokenizer("split" if chat else request.param, chat=chat), scale=3.0)


def digit_probabilities(judge, prompt, response):
    """π(d) from plain calls on the whole text's tokens."""
    ids = judge.encoder.encode_responses(prompt, [response])[0].ids
    probs = []
    for digit in judge.encoder.digits:
        whole = torch.tensor([ids + digit])
        logps = judge.model(whole).logits[0].log_softmax(dim=-1)
        probs.append(sum(logps[len(ids) - 1 + t, token] for t, token in enumerate(digit)).exp().item())
    return np.array(probs)


def test_options_are_checked_as_those_of_any_judge():
    tokenizer = make_tokenizer("split")
    with pytest.raises(UserError, match="max_batch_tokens is 0; expected at least 1"):
        make_judge(tokenizer, max_batch_tokens=0)
    assert make_judge(tokenizer).n_reasonings == 1


def test_digits_continue_the_prompt(judge):
    (prompt,) = judge.encoder.encode_responses("Which colour?", ["blue"])
    assert prompt.text.endswith("Score: ")
    for digit, tokens in zip(DIGITS, judge.encoder.digits, strict=True):
        assert judge.tokenizer.decode(prompt.ids + tokens).endswith(f"Score: {digit}")


def test_a_space_that_merges_with_digits_is_part_of_the_answer():
    tokenizer = make_tokenizer("split")
    tokenizer.add_tokens([f" {digit}" for digit in DIGITS])
    encoder = ScoreEncoder(tokenizer)
    (prompt,) = encoder.encode_responses("Which?", ["this"])
    assert [tokenizer.decode(tokens) for tokens in encoder.digits] == [f" {digit}" for digit in DIGITS]
    assert tokenizer.decode(prompt.ids).endswith("Score:")


def test_probabilities_are_the_exact_sums(judge):
    pairs = make_pairs()
    judgments = judge.probabilities(pairs)
    for i, pair in enumerate(pairs):
        a, b = (digit_probabilities(judge, pair.prompt, text) for text in (pair.response_a, pair.response_b))
        scores = [(p / p.sum()) @ np.arange(10) for p in (a, b)]
        assert judgments.p_ab[i] == pytest.approx(expit(3.0 * (scores[1] - scores[0])), abs=1e-4)
        assert judgments.valid[i, 0] == pytest.approx(a.sum() * b.sum(), rel=1e-3)
        joint = np.outer(a / a.sum(), b / b.sum())
        of_digits = expit(3.0 * (np.arange(10)[None, :] - np.arange(10)[:, None]))
        second, first = (joint * of_digits**2).sum(), (joint * of_digits).sum()
        assert judgments.spread[i, 0] == pytest.approx(np.sqrt(second - first**2), abs=1e-4)


def test_the_order_has_no_influence(judge):
    pairs = make_pairs()
    there, back = judge.probabilities(pairs), judge.probabilities([pair.swapped() for pair in pairs])
    np.testing.assert_array_equal(there.p_ab + there.p_ba, 1.0)
    np.testing.assert_allclose(there.p_ab, back.p_ba, rtol=1e-12)


@pytest.mark.parametrize("in_parts", [False, True])
def test_every_response_is_read_once(judge, in_parts):
    read = []
    if in_parts:
        judge._pairs_at_once = 1
    judge.tree.read_logits = lambda model, prompts, *options: (
        read.extend(map(tuple, prompts)) or DigitTree(judge.encoder.digits).read_logits(model, prompts, *options)
    )
    judge.probabilities(make_pairs())
    assert len(read) == len(set(read)) == len(TEXTS)


def test_small_batches_give_the_same(judge):
    small = PointwiseJudge(judge.model, judge.tokenizer, 3.0, max_batch_tokens=100)
    expected, got = judge.probabilities(make_pairs()), small.probabilities(make_pairs())
    np.testing.assert_allclose(got.mean, expected.mean, atol=1e-5)


def test_scores_rank_as_the_pairs(judge):
    scores = judge.scores("Which colour?", TEXTS)
    assert scores.shape == (4,)
    for pair, p in zip(make_pairs(), judge.probabilities(make_pairs()).p_ab, strict=True):
        a, b = (scores[TEXTS.index(text)] for text in (pair.response_a, pair.response_b))
        assert p == pytest.approx(expit(3.0 * (b - a)), abs=1e-5)


def test_scores_of_messages_as_mappings(judge):
    user, assistants = {"role": "user", "content": "Which?"}, [{"role": "assistant", "content": t} for t in TEXTS]
    of_mappings = judge.scores([user], [[message] for message in assistants])
    of_messages = judge.scores((Message(**user),), [(Message(**message),) for message in assistants])
    np.testing.assert_array_equal(of_mappings, of_messages)
    with pytest.raises(UserError, match=r"column 'responses\[1\]': got 3; expected text"):
        judge.scores("Which?", ["blue", 3])
    with pytest.raises(UserError, match="does not score single responses"):
        Judge(judge.model, judge.tokenizer).scores("Which?", TEXTS)


@pytest.mark.parametrize("recalibration", [None, LogitMap("odd_temperature", 0.5)])
def test_a_saved_judge_answers_equally(tmp_path, recalibration):
    judge = make_judge(make_tokenizer("merged"), scale=2.0, recalibration=recalibration)
    judge.model.save_pretrained(tmp_path)
    judge.tokenizer.save_pretrained(tmp_path)
    judge.save_format(tmp_path)
    assert json.loads((tmp_path / "autorater.json").read_text())["judgment"] == "pointwise"
    loaded = Judge.from_pretrained(str(tmp_path), device="cpu")
    assert isinstance(loaded, PointwiseJudge)
    np.testing.assert_array_equal(loaded.probabilities(make_pairs()).mean, judge.probabilities(make_pairs()).mean)

    assert type(Judge.from_pretrained(str(tmp_path), device="cpu", judgment="pairwise")) is Judge
    assert type(open_judge(str(tmp_path), device="cpu", judgment="pairwise")) is Judge
    with pytest.raises(UserError, match="judgment is 'both'; expected pairwise or pointwise"):
        Judge.from_pretrained(str(tmp_path), device="cpu", judgment="both")
    with pytest.raises(UserError, match="answer_step has no effect on a pointwise judge"):
        Judge.from_pretrained(str(tmp_path), device="cpu", answer_step=0.1)


def test_it_is_a_judging_method(judge):
    pairwise = Judge(judge.model, judge.tokenizer, PromptFormat("compact"), 0.25)
    as_method = judging_method("pointwise", pairwise).probabilities(make_pairs())
    scale_one = PointwiseJudge(judge.model, judge.tokenizer).probabilities(make_pairs())
    np.testing.assert_array_equal(as_method.mean, scale_one.mean)
    assert judging_method("answer_mean", judge).probabilities(make_pairs()).mean[0, 0] != 0.5
    as_itself = judging_method("pointwise", judge).probabilities(make_pairs())
    np.testing.assert_array_equal(as_itself.mean, judge.probabilities(make_pairs()).mean)
    with pytest.raises(UserError, match="this judge is pointwise"):
        judging_method("verbalized", judge)


def test_an_audit_reads_it_as_shown(judge):
    pairs = make_pairs()
    expected, answers = judge.probabilities(pairs).p_ab, {}

    class Request:
        def __init__(self, pair):
            self.number, self.presentation = pair.id, Presentation(pair)

    _judge_locally(judge, map(Request, pairs), (), lambda request, answer: answers.update({request.number: answer}))
    got = [answers[pair.id].probability for pair in pairs]
    np.testing.assert_allclose(got, expected, atol=2e-6)


def test_a_block_of_requests_has_whole_questions(monkeypatch):
    monkeypatch.setattr("autorater.audit.judging._BLOCK", 2)
    monkeypatch.setattr("autorater.audit.judging._LONGEST_BLOCK", 4)

    def sizes(questions, whole_questions=True):
        pairs = (Pair(str(i), question, "a", "b", 0.5) for i, question in enumerate(questions))
        requests = (SimpleNamespace(presentation=Presentation(pair)) for pair in pairs)
        return [len(block) for block in _blocks(requests, whole_questions)]

    assert sizes("aaabbc") == [3, 2, 1]
    assert sizes("aaaaaab") == [4, 2, 1], "no longer than memory allows"
    assert sizes("aaabbc", whole_questions=False) == [2, 2, 2]
    assert sizes("") == []
