"""The temperature that a run fits: votes count, and a judge that favours a position is not made worse."""

import numpy as np
import pytest
from scipy.special import expit

from autorater.data.pairs import Pair
from autorater.judges import Judgments
from autorater.judges.calibrators import LogitMap, shrunken_temperature
from autorater.metrics.scores import log_scores
from autorater.training.temperature import fit_temperature


def judged(scale, shift, n=400, seed=0):
    """Pairs of three votes, and judgments whose logits are those of the truth times `scale`, plus `shift`."""
    generator = np.random.default_rng(seed)
    truth = generator.normal(0, 1, n)
    votes = generator.binomial(3, expit(truth))
    pairs = [Pair(f"{i}", "q", "a", f"b{i}", v / 3, n_votes=3, votes_a=3 - v, votes_b=v) for i, v in enumerate(votes)]
    mean = expit(np.stack([scale * truth + shift, -scale * truth + shift], axis=1))
    return pairs, Judgments(mean, mean, np.zeros_like(mean), np.ones_like(mean))


def test_all_votes_count(caplog):
    pairs, judgments = judged(2.0, 0.0)
    with caplog.at_level("INFO", "autorater"):
        fitted = fit_temperature(judgments, pairs, single_votes=False)
    assert 1 / fitted.slope == pytest.approx(2, rel=0.1)
    labels = [pair.label for pair in pairs]
    assert fitted == shrunken_temperature(judgments.p_ab, judgments.p_ba, labels, 1200)
    assert "recalibrated on 400 pairs, 1,200 votes: T = " in caplog.text
    assert "interval" not in caplog.text


def loss(p_ab, p_ba, labels):
    """Log loss of the answers of both orders."""
    return np.mean([log_scores(p_ab, labels), log_scores(p_ba, 1 - labels)])


@pytest.mark.parametrize("scale", [0.05, 0.2, 3.0])
def test_single_answers_are_not_made_worse(scale, caplog):
    """A judge that says too little about the responses is sharpened as far as its position bias allows."""
    pairs, judgments = judged(scale, 0.1)
    labels = np.array([pair.label for pair in pairs])
    with caplog.at_level("INFO", "autorater"):
        fitted = fit_temperature(judgments, pairs, single_votes=False)
    of_both = shrunken_temperature(judgments.p_ab, judgments.p_ba, labels, 1200)
    limited = scale < 1
    assert ("limited by the position bias" in caplog.text) == limited
    assert (fitted != of_both) == limited
    assert loss(fitted(judgments.p_ab), fitted(judgments.p_ba), labels) < loss(judgments.p_ab, judgments.p_ba, labels)
    if limited:
        assert of_both.slope > fitted.slope > 1
        sharper = LogitMap(fitted.kind, fitted.slope * 1.1)
        assert loss(sharper(judgments.p_ab), sharper(judgments.p_ba), labels) > loss(
            fitted(judgments.p_ab), fitted(judgments.p_ba), labels
        )


def test_no_temperature_where_only_the_average_would_gain(caplog):
    pairs, judgments = judged(0.1, 0.8)
    assert fit_temperature(judgments, pairs, single_votes=False) is None
    assert "no temperature: on 400 pairs, 1,200 votes T = 0.0" in caplog.text
    assert shrunken_temperature(judgments.p_ab, judgments.p_ba, [pair.label for pair in pairs], 1200).slope > 5
