"""Baselines that read no language, against their definition and on real votes."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize

from autorater.data.loading import load_pairs
from autorater.data.pairs import with_sparse_labels
from autorater.data.population import simulate_pairs
from benchmarks.study.baselines import baseline_probabilities
from tests.conftest import DATA, needs_data


@pytest.fixture(scope="module")
def pairs():
    return simulate_pairs(300, seed=0).pairs, simulate_pairs(200, seed=0, n_votes=10, held_out=True).pairs


def test_length_is_a_penalized_logistic_regression(pairs):
    train, held_out = pairs

    def ratios(pairs):
        return np.log([(1 + len(p.response_b)) / (1 + len(p.response_a)) for p in pairs])

    x, y = ratios(train), np.array([p.label for p in train])

    def loss(w):  # scikit-learn's: the sum of log losses and w² / 2
        return np.logaddexp(0, w * x).sum() - (y * w * x).sum() + w**2 / 2

    w = minimize(lambda w: loss(w[0]), [0.0], tol=1e-10).x[0]
    predicted = baseline_probabilities(train, held_out)["length"]
    assert predicted == pytest.approx(1 / (1 + np.exp(-w * ratios(held_out))), abs=1e-4)


def test_swapping_the_responses_turns_every_answer(pairs):
    train, held_out = pairs
    turned = baseline_probabilities(train, [pair.swapped() for pair in held_out])
    for name, p in baseline_probabilities(train, held_out).items():
        assert turned[name] == pytest.approx(1 - p)


def test_words_beat_length_where_words_matter(pairs):
    train, held_out = pairs
    truth = np.array([pair.true_probability for pair in held_out])
    errors = {name: np.mean((p - truth) ** 2) for name, p in baseline_probabilities(train, held_out).items()}
    assert errors["tfidf"] < errors["length"]
    assert errors["constant"] == pytest.approx(np.mean((truth - 0.5) ** 2))


def test_vote_shares_are_refused(pairs):
    train, held_out = pairs
    with pytest.raises(ValueError, match="single votes"):
        baseline_probabilities([replace(train[0], label=0.4), *train[1:]], held_out)


@needs_data("convincing_train", "convincing_test")
@pytest.mark.slow
def test_reference_figures_on_human_votes():
    """Not weaker than the figures that came with the data: 0.1156, 0.0848 and 0.0744."""
    train, test = (load_pairs(str(DATA / f"convincing_{part}.jsonl.gz")) for part in ("train", "test"))
    labels = np.array([pair.label for pair in test])
    predicted = baseline_probabilities(with_sparse_labels(train, 0), test)
    errors = {name: np.mean((p - labels) ** 2) for name, p in predicted.items()}
    assert errors == pytest.approx({"constant": 0.1156, "length": 0.0820, "tfidf": 0.0735}, abs=0.0005)
