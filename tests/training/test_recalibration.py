"""What a run fits: votes count, a judge that favours a position is not made worse, and a shift removes the bias."""

import numpy as np
import pytest
from scipy.special import expit

from autorater.data.pairs import Pair
from autorater.judges import Judgments
from autorater.judges.calibrators import LogitMap, fit_recalibration, fit_shift, shrunken_temperature
from autorater.metrics import position_bias
from autorater.metrics.scores import log_scores
from autorater.training.recalibration import fit_platt, fit_temperature


def judged(scale, shift, n=400, seed=0, spread=0.0):
    """Pairs of three votes, and judgments whose logits are those of the truth times `scale`, plus a position bias."""
    generator = np.random.default_rng(seed)
    truth = generator.normal(0, 1, n)
    votes = generator.binomial(3, expit(truth))
    pairs = [Pair(f"{i}", "q", "a", f"b{i}", v / 3, n_votes=3, votes_a=3 - v, votes_b=v) for i, v in enumerate(votes)]
    shift = shift + spread * generator.normal(0, 1, n)
    mean = expit(np.stack([scale * truth + shift, -scale * truth + shift], axis=1))
    return pairs, Judgments(mean, mean, np.zeros_like(mean), np.ones_like(mean))


def test_all_votes_count(caplog):
    pairs, judgments = judged(2.0, 0.0)
    with caplog.at_level("INFO", "autorater"):
        fitted = fit_temperature(judgments, pairs, labels="dense")
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
        fitted = fit_temperature(judgments, pairs, labels="dense")
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
    assert fit_temperature(judgments, pairs, labels="dense") is None
    assert "no temperature: on 400 pairs, 1,200 votes T = 0.0" in caplog.text
    assert shrunken_temperature(judgments.p_ab, judgments.p_ba, [pair.label for pair in pairs], 1200).slope > 5


@pytest.mark.parametrize("spread", [0.0, 0.3])
@pytest.mark.parametrize(("scale", "shift"), [(0.1, 0.8), (0.8, 0.2), (1.0, 0.0), (3.0, -0.5)])
def test_slope_and_shift_remove_the_bias_of_other_pairs(scale, shift, spread):
    fitted = fit_platt(*judged(scale, shift, spread=spread)[::-1], labels="dense")
    others, judgments = judged(scale, shift, n=5000, seed=1, spread=spread)
    labels = np.array([pair.label for pair in others])
    after = judgments.recalibrated(fitted)
    assert abs(position_bias(after.p_ab, after.p_ba)["symmetry_deviation_mean"]) < 0.02
    mapped = loss(after.p_ab, after.p_ba, labels)
    assert mapped < loss(judgments.p_ab, judgments.p_ba, labels) + 1e-3  # T from 1,200 votes costs 4e-4
    best = fit_recalibration("platt", judgments.p_ab, judgments.p_ba, labels)
    assert mapped < loss(best(judgments.p_ab), best(judgments.p_ba), labels) + 4e-3


def test_the_slope_is_the_temperature_without_the_bias_and_the_shift_follows(caplog):
    """A shared bias, which limits a temperature or leaves none, does not limit the slope beside a shift."""
    pairs, judgments = judged(0.1, 0.8)
    with caplog.at_level("INFO", "autorater"):
        fitted = fit_platt(judgments, pairs, labels="sparse")
    labels = [pair.label for pair in pairs]
    of_both = shrunken_temperature(judgments.p_ab, judgments.p_ba, labels, 1200)
    assert fit_temperature(judgments, pairs, labels="sparse") is None
    assert fitted.kind == "platt"
    assert fitted.slope == pytest.approx(of_both.slope, rel=0.02)  # Platt's targets are smoothed
    assert fitted.intercept == fit_shift(fitted.slope, judgments.p_ab, judgments.p_ba)
    assert fitted.intercept == pytest.approx(-0.8 * fitted.slope, abs=1e-6)
    text = rf"recalibrated on 400 pairs, 1,200 votes: {fitted}, 95 % interval "
    assert text in caplog.text
    assert "without the prior, 95 % interval" in caplog.text


def test_a_bias_that_differs_between_pairs_limits_the_slope(caplog):
    pairs, judgments = judged(0.2, 0.1, spread=0.5)
    with caplog.at_level("INFO", "autorater"):
        fitted = fit_platt(judgments, pairs, labels="dense")
    labels = [pair.label for pair in pairs]
    assert "limited by the position bias; without that T = 0." in caplog.text
    assert fitted.slope == max(1, fit_recalibration("platt", judgments.p_ab, judgments.p_ba, labels).slope)
    assert fitted.slope < shrunken_temperature(judgments.p_ab, judgments.p_ba, labels, 1200).slope / 2


@pytest.mark.parametrize("spread", [0.0, 0.3])
def test_few_votes_change_a_calibrated_judge_little(spread):
    """The slope by its prior, the shift because it depends on the answers alone."""
    few = judged(1.0, 0.0, n=30, spread=spread)
    fitted = fit_platt(*few[::-1], labels="dense")
    flipped = [Pair(p.id, p.prompt, p.response_a, p.response_b, 1 - p.label, n_votes=3) for p in few[0]]
    assert abs(np.log(fitted.slope)) < 0.35
    assert abs(fitted.intercept) < 0.15
    other = fit_platt(few[1], flipped, labels="dense")
    assert other.intercept == pytest.approx(fit_shift(other.slope, few[1].p_ab, few[1].p_ba))
