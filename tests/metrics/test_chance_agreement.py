"""κ against scikit-learn, α against a sum over pairs of votes and a published example; coverage of their intervals."""

import warnings

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from autorater.metrics import Targets, cohen_kappa, judge_metrics, krippendorff_alpha
from autorater.metrics.agreement import TIE_BAND, verdicts
from autorater.metrics.chance_agreement import VALUES, Alpha, Kappa

TENTHS = st.lists(st.tuples(st.integers(0, 10), st.integers(0, 10)), min_size=2, max_size=40)
COUNTS = st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=12)


@given(TENTHS)
def test_kappa_is_that_of_scikit_learn(tenths):
    p, y = np.array(tenths).T / 10
    reference = cohen_kappa_score(verdicts(p, TIE_BAND), verdicts(y, TIE_BAND))
    assume(not np.isnan(reference))
    assert cohen_kappa(p, y) == pytest.approx(reference, abs=1e-12)


@given(COUNTS)
def test_alpha_is_the_sum_over_pairs_of_votes(counts):
    units = [[v for v, n in zip(VALUES, row, strict=True) for _ in range(n)] for row in counts]
    units = [unit for unit in units if len(unit) > 1]
    votes = [v for unit in units for v in unit]
    n = len(votes)
    expected = sum((a - b) ** 2 for a in votes for b in votes) / max(1, n * (n - 1))
    found = krippendorff_alpha(counts)
    if expected == 0:
        assert np.isnan(found)
        return
    observed = sum((a - b) ** 2 / (len(unit) - 1) for unit in units for a in unit for b in unit) / n
    assert found == pytest.approx(1 - observed / expected, abs=1e-12)


def test_alpha_of_published_binary_votes():
    """Two observers of ten items, Krippendorff (2011), "Computing Krippendorff's alpha-reliability", section A."""
    first, second = np.array([0, 1, 0, 0, 0, 0, 0, 0, 1, 0]), np.array([1, 1, 1, 0, 0, 1, 0, 0, 0, 0])
    counts = np.stack([2 - first - second, np.zeros(10), first + second], axis=1)
    assert krippendorff_alpha(counts) == pytest.approx(0.095, abs=5e-4)


def test_alpha_refuses_other_shapes():
    with pytest.raises(ValueError, match="expected \\(N, 3\\)"):
        krippendorff_alpha([[1, 2]])
    with pytest.raises(ValueError, match="at least 0"):
        krippendorff_alpha([[1, -2, 3]])


def simulated(generator, n):
    truth = 1 / (1 + np.exp(-1.5 * generator.normal(size=n)))
    votes = generator.binomial(5, truth)
    return truth, np.stack([5 - votes, np.zeros(n), votes], axis=1)


def test_a_judge_that_is_one_more_annotator_changes_no_alpha():
    generator = np.random.default_rng(0)
    truth, counts = simulated(generator, 40_000)
    one_more = (generator.random(truth.size) < truth).astype(float)
    alphas = {}
    for name, p in (("person", one_more), ("majority", truth), ("coin", generator.random(truth.size).round())):
        metrics = judge_metrics(
            np.stack([p, 1 - p], axis=1), Targets(counts[:, 2] / 5, 5, counts=counts), n_bootstrap=0
        )
        alphas[name] = metrics["alpha_with_judge"] - metrics["alpha_annotators"]
    assert alphas["person"] == pytest.approx(0, abs=0.005)
    assert alphas["majority"] > 0.02
    assert alphas["coin"] < -0.02


def test_intervals_cover():
    """Of 400 studies of 150 pairs, 93 to 97 % hold κ and α of the population."""
    from autorater.metrics.intervals import bootstrap

    def statistics(truth, counts):
        labels = counts[:, 2] / 5
        return {"kappa": Kappa(truth[None], labels[None], np.ones(labels.size)), "alpha": Alpha(counts)}

    generator = np.random.default_rng(1)
    population = statistics(*simulated(generator, 400_000))
    values = {name: s.evaluate(s.columns.sum(axis=0, keepdims=True))[0] for name, s in population.items()}
    hits = []
    for _ in range(400):
        found = bootstrap(statistics(*simulated(generator, 150)), 400)
        hits.append([found[f"{name}_low"] <= value <= found[f"{name}_high"] for name, value in values.items()])
    assert (np.abs(np.mean(hits, axis=0) - 0.95) <= 0.025).all(), np.mean(hits, axis=0)


def test_without_several_votes_or_with_weights_there_is_no_alpha():
    answers, labels = [[0.3, 0.7], [0.8, 0.1]], [0.0, 1.0]
    single = judge_metrics(answers, Targets(labels, counts=[[1, 0, 0], [0, 0, 1]]), n_bootstrap=10)
    assert "alpha_annotators" not in single
    assert single["cohen_kappa"] == 1
    several = judge_metrics(answers, Targets(labels, counts=[[2, 0, 0], [0, 0, 2]]), n_bootstrap=10)
    assert several["alpha_with_judge"] == several["alpha_annotators"] == 1
    assert "alpha_annotators" not in judge_metrics(
        answers, Targets(labels, counts=[[2, 0, 0], [0, 0, 2]], weights=[1, 2]), n_bootstrap=10
    )


def test_a_resample_in_which_no_pair_counts_has_no_kappa():
    kappa = Kappa(np.array([[0.2, 0.7]]), np.array([[0.0, 1.0]]), np.array([0.0, 1.0]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(kappa.evaluate(kappa.columns[:1])).all()
