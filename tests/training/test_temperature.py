"""The temperature that a run fits: votes count, and a judge that favours a position is not made worse."""

import numpy as np
import pytest
from scipy.special import expit, logit

from autorater.data.pairs import Pair
from autorater.judges import Judgments
from autorater.judges.calibrators import shrunken_temperature
from autorater.metrics import position_bias
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


@pytest.mark.parametrize(("scale", "left_out"), [(0.1, True), (3.0, False)])
def test_a_temperature_that_makes_single_answers_worse_is_left_out(scale, left_out, caplog):
    """The answers of a judge that says little about the responses, and much about the position, are not sharpened."""
    pairs, judgments = judged(scale, 0.8)
    with caplog.at_level("INFO", "autorater"):
        fitted = fit_temperature(judgments, pairs, single_votes=False)
    assert (fitted is None) == left_out == ("no temperature: that of" in caplog.text)
    if not left_out:
        bias = position_bias(fitted(judgments.p_ab), fitted(judgments.p_ba))["symmetry_deviation_abs"]
        assert bias < position_bias(judgments.p_ab, judgments.p_ba)["symmetry_deviation_abs"]
    else:
        sharper = shrunken_temperature(judgments.p_ab, judgments.p_ba, [pair.label for pair in pairs], 1200)
        assert logit(sharper(np.array([0.6])))[0] > 2 * logit(0.6)
