"""Evaluations built from numbers; no model."""

import numpy as np
import pytest

from autorater.data.pairs import Pair
from autorater.metrics import Targets, judge_metrics


@pytest.fixture(autouse=True)
def pages_with_blank_figures(undrawn):
    pass


@pytest.fixture
def make_pairs():
    """Pairs with the given labels; `truth` and the texts are optional."""

    def make(labels, truth=None, n_votes=1, **columns):
        truth = [None] * len(labels) if truth is None else truth
        texts = {"prompt": "Why?", "response_a": "Because.", "response_b": "For fun.", **columns}
        return [
            Pair(
                id=f"pair-{i}",
                label=float(y),
                n_votes=n_votes,
                true_probability=None if p is None else float(p),
                **texts,
            )
            for i, (y, p) in enumerate(zip(labels, truth, strict=True))
        ]

    return make


@pytest.fixture
def make_evaluation():
    """An evaluation of the given answers."""
    pytest.importorskip("torch")
    from autorater.evaluation.judge import Evaluation
    from autorater.judges import Judgments

    def make(pairs, p_ab, p_ba, valid=1.0, n_bootstrap=100):
        mean = np.stack([p_ab, p_ba], axis=1).astype(float)
        judgments = Judgments(mean, mean.round(2), np.full_like(mean, 0.1), np.full_like(mean, valid))
        truth = [pair.true_probability for pair in pairs]
        metrics = judge_metrics(
            mean,
            Targets(
                [pair.label for pair in pairs],
                n_votes=None if pairs[0].n_votes is None else [pair.n_votes for pair in pairs],
                true_probability=None if None in truth else truth,
            ),
            valid=judgments.valid,
            n_bootstrap=n_bootstrap,
        )
        return Evaluation(pairs, judgments, metrics)

    return make


@pytest.fixture
def judged(make_pairs, make_evaluation):
    """Before (overconfident, favours the second response) and after (the truth), on 400 pairs with ten votes each."""
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 1.3, 400)
    truth = 1 / (1 + np.exp(-logits))
    pairs = make_pairs(generator.binomial(10, truth) / 10, truth, n_votes=10)
    p_ab, p_ba = (1 / (1 + np.exp(-(3 * sign * logits + 1.5))) for sign in (1, -1))
    return make_evaluation(pairs, p_ab, p_ba), make_evaluation(pairs, truth, 1 - truth)
