"""The targets; verbalized losses, and those of scores, against sums over all answers and automatic differentiation."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from autorater.models.distribution import AnswerDistribution
from autorater.training.exact_loss import WeightedReward
from autorater.training.pointwise import PointwiseLoss
from autorater.training.teaching.loss import TargetLoss, binomial_targets
from rewards import kl_reward

KL = WeightedReward([kl_reward], [1.0])


@settings(deadline=None)
@given(q=st.floats(0, 1), n=st.integers(2, 101))
def test_targets_are_binomial(q, n):
    target = binomial_targets(torch.tensor([q], dtype=torch.float64), n)[0]
    expected = [math.comb(n - 1, k) * q**k * (1 - q) ** (n - 1 - k) for k in range(n)]
    np.testing.assert_allclose(target, expected, atol=1e-6)
    assert float(target @ torch.linspace(0, 1, n, dtype=torch.float64)) == pytest.approx(q, abs=1e-6)


def test_loss_in_words_is_the_divergence_in_both_orders():
    logits = torch.randn(4, 13, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    values, q = torch.linspace(0, 1, 11).double(), torch.tensor([0.3, 0.7, 0.95, 0.05]).double()
    probs = logits.softmax(dim=1)[:, :11]  # two more tokens are no answers
    loss, _ = TargetLoss(KL, symmetry_coef=0.5, closing_coef=0.0)(AnswerDistribution(probs, values), q)

    means = (probs * values).sum(1) / probs.sum(1)
    expected = 0.5 * ((means[0::2] + means[1::2] - 1) ** 2).mean()
    for row, share in zip(probs, q, strict=True):
        target = torch.tensor(binom(10, share.item()).pmf(np.arange(11)))
        expected = expected + torch.nn.functional.kl_div(row.log(), target, reduction="sum") / 4
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-6)
    (got,), (wanted,) = (torch.autograd.grad(value, logits, retain_graph=True) for value in (loss, expected))
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)


def test_loss_by_scores_is_the_divergence():
    logits = torch.randn(3, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    a, b, q = torch.tensor([0, 1]), torch.tensor([2, 2]), torch.tensor([0.2, 0.6]).double()
    answers = AnswerDistribution(logits.softmax(dim=1), torch.arange(10.0).double())
    loss = -PointwiseLoss(KL, 0.5).value(answers, a, b, q).mean()
    scores = logits.softmax(dim=1) @ torch.arange(10.0).double()
    p = (0.5 * (scores[b] - scores[a])).sigmoid()
    expected = (q * (q / p).log() + (1 - q) * ((1 - q) / (1 - p)).log()).mean()
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-8)
    (got,), (wanted,) = (torch.autograd.grad(value, logits, retain_graph=True) for value in (loss, expected))
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-7)
