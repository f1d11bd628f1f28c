"""Simulated judges with known bias: the audit must detect it, and must not report bias without it."""

import numpy as np
import pytest

from autorater.audit.verdict import bias_state, favoured_side
from autorater.metrics.position_audit import audit_metrics

SHIFT = 0.3  # log-odds for the second position; noise below is in log-odds, too


def simulated(seed, shift=0.0, noise=0.0, n_pairs=300, n_repeats=3, own_shift=0.0):
    """Answers of shape (pairs, 2, repeats): σ(±merit + shift + noise), with two decimals."""
    draw = np.random.default_rng(seed)
    merit = draw.normal(0, 1.2, (n_pairs, 1)) * [1, -1]
    position = shift + draw.normal(0, own_shift, (n_pairs, 1))
    logits = (merit + position)[:, :, None] + noise * draw.standard_normal((n_pairs, 2, n_repeats))
    return (1 / (1 + np.exp(-logits))).round(2)


def audited(n_judges, n_bootstrap=0, **bias):
    return [audit_metrics(simulated(seed, **bias), n_bootstrap=n_bootstrap) for seed in range(n_judges)]


def check(n_judges):
    """The shares of judges of each kind that the audit gets right."""
    shifted = audited(n_judges, 1000, shift=SHIFT, noise=0.6)
    noisy = audited(n_judges, noise=0.8)
    symmetric = [
        audit_metrics(np.stack([p, 1 - p], axis=1), n_bootstrap=0)
        for p in (simulated(s)[:, 0] for s in range(n_judges))
    ]
    return {
        "recovered": np.mean([m["logit_shift_low"] <= SHIFT <= m["logit_shift_high"] for m in shifted]),
        "called biased": np.mean([bias_state(m) == "biased" for m in shifted]),
        "right side": np.mean([favoured_side(m, "swap") == "the response shown second" for m in shifted]),
        "called noisy": np.mean([bias_state(m) == "noisy" for m in noisy]),
        "called consistent": np.mean([bias_state(m) == "consistent" for m in symmetric]),
    }


def test_bias_noise_and_symmetry_are_distinguished():
    shares = check(40)
    assert shares["right side"] == shares["called biased"] == shares["called consistent"] == 1
    assert shares["recovered"] >= 0.9  # 40 judges are few; 400 are in the slow test
    assert shares["called noisy"] >= 0.9


@pytest.mark.slow
def test_ninety_five_of_a_hundred():
    shares = check(400)
    assert min(shares.values()) >= 0.95 - 2 * np.sqrt(0.95 * 0.05 / 400)
    assert shares["called noisy"] >= 0.95
    assert shares["called consistent"] == shares["called biased"] == 1


def test_bias_that_differs_between_pairs_is_not_called_noise():
    """No position is favoured on average, but swapping changes answers more than repeating the request does."""
    states = [bias_state(metrics) for metrics in audited(10, own_shift=1.0, noise=0.2)]
    assert states.count("mixed") >= 7  # the rest is called biased: in a sample, the mean is not quite 0
    assert not {"noisy", "consistent", "inconclusive"} & set(states)


def test_without_repetitions_noise_and_mixed_bias_are_not_separated():
    states = [bias_state(metrics) for metrics in audited(20, noise=0.8, n_repeats=1)]
    assert states.count("inconclusive") >= 18
