import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr

from autorater.charm import mismatch_degree
from autorater.metrics.intervals import Mean, Share, bootstrap
from autorater.metrics.systems import correlations, win_rates

P_SYM = [0.9, 0.2, 0.6, 0.7, 0.5]
LABELS = [1.0, 0.0, 0.5, 1.0, 0.0]
MODEL_A = ["ada", "bob", "ada", "cyd", "cyd"]
MODEL_B = ["bob", "ada", "bob", "ada", "cyd"]


def test_by_hand():
    ada_bob, ada_cyd = win_rates(P_SYM, LABELS, MODEL_A, MODEL_B, n_bootstrap=0)
    assert (ada_bob.model, ada_bob.opponent, ada_bob.n_pairs) == ("ada", "bob", 3)
    assert ada_bob.judged == pytest.approx((0.1 + 0.2 + 0.4) / 3)
    assert ada_bob.voted == pytest.approx((0 + 0 + 0.5) / 3)
    assert ada_bob.gap == pytest.approx(ada_bob.judged - ada_bob.voted)
    assert (ada_cyd.judged, ada_cyd.voted, ada_cyd.n_pairs) == (pytest.approx(0.7), 1.0, 1)
    assert ada_cyd.judged_low is None


def test_mismatch_with_the_rate_expected_by_elo():
    row, _ = win_rates(P_SYM, LABELS, MODEL_A, MODEL_B, elo={"ada": 1400, "bob": 1000, "cyd": 1000}, n_bootstrap=0)
    assert row.expected == pytest.approx(10 / 11)
    assert row.mismatch == pytest.approx(mismatch_degree(0.7 / 3, 10 / 11))


def test_without_votes_or_elo_there_is_no_reference():
    row, _ = win_rates(P_SYM, None, MODEL_A, MODEL_B, n_bootstrap=0)
    assert row.voted is row.gap is row.mismatch is None


def test_intervals_are_those_of_the_bootstrap_over_pairs_or_clusters():
    rng = np.random.default_rng(0)
    p_sym, labels = rng.uniform(size=(2, 60))
    clusters = np.repeat(np.arange(20), 3)
    for groups in (None, clusters):
        (row,) = win_rates(p_sym, labels, ["a"] * 60, ["b"] * 60, clusters=groups)
        means = {"judged": Mean(1 - p_sym), "voted": Share(1 - labels), "gap": Mean(labels - p_sym)}
        for name, value in bootstrap(means, clusters=groups).items():
            assert getattr(row, name) == value
        assert row.gap_low < row.gap < row.gap_high


def test_weights_are_numbers_of_copies():
    rng = np.random.default_rng(1)
    p_sym, labels = rng.uniform(size=(2, 40))
    model_b = rng.choice(["b", "c"], 40)
    weights = rng.integers(0, 4, 40)
    copies = [np.repeat(column, weights) for column in (p_sym, labels, ["a"] * 40, model_b)]
    weighted = win_rates(p_sym, labels, ["a"] * 40, model_b, weights=weights)
    for row, of_copies in zip(weighted, win_rates(*copies, n_bootstrap=0), strict=True):
        for name in ("judged", "voted", "gap"):
            assert getattr(row, name) == pytest.approx(getattr(of_copies, name))
        here = model_b == row.opponent
        voted = bootstrap({"voted": Share((weights * (1 - labels))[here], weights[here])})
        assert (row.voted_low, row.voted_high) == pytest.approx((voted["voted_low"], voted["voted_high"]))
    (row,) = win_rates(p_sym, labels, ["a"] * 40, model_b, weights=weights * (model_b == "b"))
    assert row == weighted[0], "models whose pairs have no weight have no row"


rows = st.lists(
    st.tuples(st.floats(0, 1), st.floats(0, 1), st.sampled_from("abc"), st.sampled_from("abc")),
    min_size=1,
    max_size=30,
)


@given(rows)
def test_swapping_the_responses_of_some_pairs_changes_nothing(data):
    there = win_rates(*zip(*data, strict=True), n_bootstrap=0)
    swapped = [(1 - p, 1 - y, b, a) if i % 2 else (p, y, a, b) for i, (p, y, a, b) in enumerate(data)]
    back = win_rates(*zip(*swapped, strict=True), n_bootstrap=0)
    assert len(there) == len(back)
    for row, again in zip(there, back, strict=True):
        assert (row.model, row.opponent, row.n_pairs) == (again.model, again.opponent, again.n_pairs)
        assert row.judged == pytest.approx(again.judged, abs=1e-12)
        assert row.voted == pytest.approx(again.voted, abs=1e-12)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"p_sym": []}, "p_sym is empty"),
        ({"p_sym": [0.5, np.nan, 0.5, 0.5, 0.5]}, r"p_sym\[1\] is NaN"),
        ({"labels": [2, 0, 0, 0, 0]}, r"labels\[0\] is 2; expected a value in \[0, 1\]"),
        ({"labels": [1.0]}, "labels has length 1 and p_sym has length 5"),
        ({"model_a": ["ada", None, "ada", "ada", "ada"]}, r"model_a\[1\] is None; expected the name of a model"),
        ({"model_b": ["ada"]}, "model_b has length 1"),
        ({"clusters": [1]}, "clusters has length 1"),
        ({"weights": [1, 1, -1, 1, 1]}, r"weights\[2\] is -1; expected a finite number of at least 0"),
        ({"elo": {"ada": 1000.0, "bob": 1000.0}}, "no Elo for 'cyd'; there is one for ada, bob"),
    ],
)
def test_bad_input_is_refused(changes, message):
    given = {"p_sym": P_SYM, "labels": LABELS, "model_a": MODEL_A, "model_b": MODEL_B} | changes
    with pytest.raises(ValueError, match=message):
        win_rates(**given)


def test_correlations_are_those_of_scipy():
    scores = {"a": 0.3, "b": 1.5, "c": 1.5, "d": -2.0, "e": 7.0}
    elo = {"e": 1100.0, "d": 1000.0, "c": 1050.0, "b": 1060.0, "a": 900.0, "unused": 0.0}
    ordered = [elo[model] for model in scores]
    found = correlations(scores, elo)
    assert found["pearson"] == pytest.approx(pearsonr(list(scores.values()), ordered).statistic)
    assert found["spearman"] == pytest.approx(spearmanr(list(scores.values()), ordered).statistic)


def test_correlations_of_equal_scores_are_left_out():
    assert correlations({"a": 1.0, "b": 1.0}, {"a": 1.0, "b": 2.0}) == {}
    with pytest.raises(ValueError, match="1 models; expected at least 2"):
        correlations({"a": 1.0}, {"a": 1.0})
    with pytest.raises(ValueError, match="no Elo for 'b'"):
        correlations({"a": 1.0, "b": 2.0}, {"a": 1.0})
