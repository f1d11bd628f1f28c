"""Rankings: planted strengths come back, and a bias for a position cancels out."""

import numpy as np
import pytest
from scipy.special import expit, logit

from autorater import Judge
from autorater.data.errors import UserError
from autorater.judges.judgments import Judgments
from autorater.judges.pointwise import PointwiseJudge
from autorater.judges.ranking import bradley_terry, rank
from autorater.prompts.templates import PromptFormat
from tests.conftest import make_model, make_tokenizer

STRENGTHS = {"poor": -2.0, "fair": 0.1, "good": 0.6, "best": 1.3}


class PlantedJudge:
    """Pr[second better] = σ(difference of strengths + bias)."""

    def __init__(self, bias=0.0, scale=1.0):
        self.bias, self.scale = bias, scale

    def probabilities(self, pairs, *, progress=False):
        difference = np.array([STRENGTHS[p.response_b] - STRENGTHS[p.response_a] for p in pairs]) * self.scale
        mean = expit(np.stack([difference + self.bias, -difference + self.bias], axis=1))
        return Judgments(mean, mean, np.zeros_like(mean), np.ones_like(mean))


@pytest.mark.parametrize("names", [list(STRENGTHS), ["good", "poor", "best"], ["best", "fair"]])
def test_planted_strengths_come_back(names):
    ranking = rank(PlantedJudge(), "Why?", names)
    planted = np.array([STRENGTHS[name] for name in names])
    np.testing.assert_allclose(ranking.strengths, planted - planted.mean(), atol=1e-6)
    assert [names[i] for i in ranking.order] == sorted(names, key=lambda name: -STRENGTHS[name])
    np.testing.assert_allclose(ranking.probabilities, expit(planted[:, None] - planted), atol=1e-12)
    assert ranking.n_judgments == len(names) * (len(names) - 1)


@pytest.mark.parametrize("bias", [-3.0, 1.0, 4.0])
def test_a_position_biased_judge_ranks_right(bias):
    names = ["fair", "best", "poor", "good"]
    ranking = rank(PlantedJudge(bias), "Why?", names)
    assert [names[i] for i in ranking.order] == ["best", "good", "fair", "poor"]
    np.testing.assert_allclose(ranking.probabilities + ranking.probabilities.T, 1)


def test_certain_wins_have_finite_strengths():
    ranking = rank(PlantedJudge(scale=1e6), "Why?", list(STRENGTHS))
    assert ranking.order.tolist() == [3, 2, 1, 0]
    assert np.isfinite(ranking.strengths).all()


def test_the_fit_is_a_maximum_of_the_likelihood():
    wins = np.random.default_rng(0).uniform(0.1, 0.9, (5, 5))
    wins = np.triu(wins, 1) + np.tril(1 - wins.T, -1)
    strengths = bradley_terry(wins)
    expected = expit(strengths[:, None] - strengths)
    np.testing.assert_allclose((wins - expected * (1 - np.eye(5))).sum(axis=1), 0, atol=1e-6)
    assert logit(0.8) == pytest.approx(np.diff(bradley_terry(np.array([[0.5, 0.2], [0.8, 0.5]])))[0])


def test_few_and_equal_responses():
    one = rank(PlantedJudge(), "Why?", ["good"])
    assert (one.order.tolist(), one.strengths.tolist(), one.n_judgments) == ([0], [0.0], 0)
    assert rank(PlantedJudge(), "Why?", ["good", "good", "best"]).order.tolist() == [2, 0, 1]
    assert rank(PlantedJudge(), "Why?", (text for text in ("good", "best"))).order.tolist() == [1, 0]
    for wrong in ([], "good", None):
        with pytest.raises(UserError, match="expected a list of at least one"):
            rank(PlantedJudge(), "Why?", wrong)


def test_a_local_judge_ranks():
    tokenizer = make_tokenizer("split")
    judge = Judge(make_model("llama", len(tokenizer)), tokenizer, PromptFormat("compact"), answer_step=0.1)
    ranking = judge.rank([{"role": "user", "content": "Why?"}], ["Because.", "No idea.", "Who knows?"])
    assert sorted(ranking.order.tolist()) == [0, 1, 2]
    assert ranking.n_judgments == 6


def test_a_pointwise_judge_reads_every_response_once():
    tokenizer = make_tokenizer("split")
    judge = PointwiseJudge(make_model("llama", len(tokenizer)), tokenizer)
    responses = ["Because.", "No idea.", "Who knows?", "Because."]
    ranking = judge.rank("Why?", responses)
    assert ranking.n_judgments == 3
    scores = judge.scores("Why?", responses)
    np.testing.assert_allclose(ranking.strengths, scores - scores.mean(), atol=1e-4)


def test_a_missing_answer_is_reported(caplog):
    class SilentJudge(PlantedJudge):
        def probabilities(self, pairs, *, progress=False):
            judgments = super().probabilities(pairs)
            judgments.valid[0, 1] = 0
            return judgments

    rank(SilentJudge(), "Why?", ["fair", "best", "poor"])
    assert "1 of 3 pairs lack an answer of the judge, which counts as 1/2" in caplog.text
