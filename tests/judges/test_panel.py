"""Panels: the weights against scikit-learn and CVXPY, symmetry in the order, what they gain."""

import numpy as np
import pytest
from scipy.special import expit, logit

from autorater.data.errors import UserError
from autorater.judges.judgments import Judgments
from autorater.judges.panel import RIDGES, Panel, fit_panel, mean_judgments


def judged(p_ab, p_ba=None):
    mean = np.stack([p_ab, 1 - p_ab if p_ba is None else p_ba], axis=1)
    return Judgments(mean, mean, np.zeros_like(mean), np.ones_like(mean))


@pytest.fixture(scope="module")
def study():
    """Two informative judges, one overconfident and one position-biased, a noisy one, and single votes."""
    rng = np.random.default_rng(0)
    n = 1500
    a, b = rng.normal(size=(2, n))
    truth = expit(1.2 * a + 0.8 * b)
    labels = (rng.random(n) < truth).astype(float)
    judges = [
        judged(expit(3 * a)),
        judged(expit(b + 0.7), expit(-b + 0.7)),
        judged(expit(rng.normal(size=n))),
    ]
    return judges, labels, truth


def symmetric_logits(judges):
    return np.stack([(logit(j.p_ab.clip(1e-3, 0.999)) - logit(j.p_ba.clip(1e-3, 0.999))) / 2 for j in judges], axis=1)


def test_without_a_ridge_it_is_scikit_learns_logistic_regression(study):
    from sklearn.linear_model import LogisticRegression

    judges, labels, truth = study
    panel = fit_panel(judges[:2], labels, ridge=0.0)
    theirs = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-9).fit(symmetric_logits(judges[:2]), labels)
    np.testing.assert_allclose(panel.weights, theirs.coef_[0], rtol=1e-4)
    both = np.concatenate([symmetric_logits(judges[:2])] * 2)  # vote shares: every pair twice, with weights
    targets, weights = np.repeat([1, 0], len(truth)), np.concatenate([truth, 1 - truth])
    theirs = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-9).fit(both, targets, weights)
    np.testing.assert_allclose(fit_panel(judges[:2], truth, ridge=0.0).weights, theirs.coef_[0], rtol=1e-4)


@pytest.mark.parametrize("ridge", [0.0, 0.01, 1.0])
def test_weights_with_bounds_and_a_ridge_are_those_of_cvxpy(study, ridge):
    import cvxpy as cp

    judges, labels, _ = study
    judges = [*judges, judged(1 - judges[0].p_ab)]  # always on the other side: its weight is 0
    logits, w = symmetric_logits(judges), cp.Variable(4)
    scores = logits @ w
    loss = cp.sum(cp.logistic(scores) - cp.multiply(labels, scores)) / len(labels)
    penalty = ridge / 2 * cp.sum_squares(w - cp.sum(w) / 4)
    cp.Problem(cp.Minimize(loss + penalty), [w >= 0]).solve(solver="CLARABEL")
    panel = fit_panel(judges, labels, ridge=ridge)
    if ridge:
        np.testing.assert_allclose(panel.weights, w.value, atol=2e-4)
    else:  # two opposite judges: only the difference of their weights is determined
        assert panel.weights[0] - panel.weights[3] == pytest.approx(w.value[0] - w.value[3], abs=1e-3)
    assert min(panel.weights) >= 0


def test_the_panel_is_better_than_its_judges_and_their_mean(study):
    judges, labels, truth = study
    panel = fit_panel(judges, labels)
    assert panel.ridge in RIDGES

    def excess(judgments):
        return ((judgments.p_sym - truth) ** 2).mean()

    combined = panel.combined(judges)
    assert excess(combined) < 0.1 * min(excess(mean_judgments(judges)), *map(excess, judges))
    assert panel.weights[2] < 0.15, "the noisy judge"
    np.testing.assert_allclose(combined.p_ab + combined.p_ba, 1)


def test_the_order_of_a_pair_does_not_matter(study):
    judges, labels, _ = study
    swapped = [judged(judge.p_ba, judge.p_ab) for judge in judges]
    panel = fit_panel(judges, labels, ridge=0.01)
    np.testing.assert_allclose(fit_panel(swapped, 1 - labels, ridge=0.01).weights, panel.weights, atol=1e-5)
    np.testing.assert_allclose(panel.combined(swapped).p_ab, 1 - panel.combined(judges).p_ab)


def test_with_few_votes_weights_stay_together(study):
    judges, labels, _ = study
    few = slice(0, 12)
    panel = fit_panel([judge[few] for judge in judges], labels[few], ["a"] * 12)
    assert panel.ridge == max(RIDGES)
    assert np.ptp(panel.weights) < np.ptp(fit_panel([judge[few] for judge in judges], labels[few], ridge=0.0).weights)


def test_a_weighted_sum_of_logits():
    judges = [judged(np.array([0.8]), np.array([0.4])), judged(np.array([0.6]))]
    expected = expit(0.5 * (logit(0.8) - logit(0.4)) / 2 + 2 * logit(0.6))
    np.testing.assert_allclose(Panel((0.5, 2.0)).combined(judges).p_ab, [expected])
    np.testing.assert_allclose(mean_judgments(judges).p_ab, [((0.8 + 0.6) / 2 + 0.6) / 2])


def test_mistakes():
    one = judged(np.array([0.8]))
    with pytest.raises(UserError, match="a panel of 1 judge; expected at least two"):
        fit_panel([one], [1.0])
    with pytest.raises(ValueError, match="labels"):
        fit_panel([one, one], [1.0, 0.0])
