import doctest
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy
from sklearn.metrics import accuracy_score, brier_score_loss, f1_score, log_loss

from autorater.metrics import calibration_metrics, class_metrics, classes, expected_calibration_error

NOISY = [
    *["total_variation", "entropy_error", "entropy_error_abs", "kl", "log_loss", "brier", "mse_dense"],
    *["ranked_probability_score", "ece_classwise", "ece_toplabel"],
]


def sample(n=300, n_classes=4, votes=5, seed=0):
    generator = np.random.default_rng(seed)
    truth = generator.dirichlet(np.ones(n_classes), n)
    predicted = 0.7 * truth + 0.3 * generator.dirichlet(np.ones(n_classes), n)
    return predicted, generator.multinomial(votes, truth), truth


def test_all_keys():
    predicted, counts, _ = sample()
    report = class_metrics(predicted, counts, ordinal=True, n_bootstrap=50)
    ends = [f"{key}_{end}" for key in [*NOISY, "accuracy"] for end in ("low", "high")]
    floors = [f"{key}_noise_floor" for key in NOISY]
    alone = ["accuracy", "macro_f1", "ece_majority", "mse_corrected", "n_items", "n_classes"]
    assert set(report) == {*NOISY, *ends, *floors, *alone}
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    for key in [*NOISY, "accuracy"]:
        assert report[f"{key}_low"] <= report[key] <= report[f"{key}_high"], key
    nominal = class_metrics(predicted, counts / 5, n_bootstrap=0)
    assert set(nominal) == {*NOISY, *alone} - {"ranked_probability_score", "mse_corrected"}


def test_scores_of_votes_written_out_agree_with_scikit_learn():
    predicted, counts, _ = sample()
    report = class_metrics(predicted, counts, n_bootstrap=0)
    votes = np.concatenate([np.repeat(np.arange(4), row) for row in counts])
    rows = predicted.repeat(5, axis=0)
    assert report["brier"] == pytest.approx(brier_score_loss(votes, rows, scale_by_half=True), abs=1e-12)
    clipped = rows.clip(1e-3, 1 - 1e-3)
    clipped /= clipped.sum(axis=1, keepdims=True)
    assert report["log_loss"] == pytest.approx(log_loss(votes, clipped), abs=1e-12)


def test_verdicts_agree_with_scikit_learn():
    predicted, counts, _ = sample(votes=1)
    report = class_metrics(predicted, counts, n_bootstrap=0)
    chosen, true = predicted.argmax(axis=1), counts.argmax(axis=1)
    assert report["accuracy"] == pytest.approx(accuracy_score(true, chosen), abs=1e-12)
    assert report["macro_f1"] == pytest.approx(f1_score(true, chosen, average="macro"), abs=1e-12)
    never = class_metrics(np.insert(predicted, 2, 0, axis=1), np.insert(counts, 2, 0, axis=1), n_bootstrap=0)
    assert never["macro_f1"] == pytest.approx(report["macro_f1"], abs=1e-12)


def test_distances_agree_with_scipy_and_a_loop():
    predicted, counts, _ = sample()
    report = class_metrics(predicted, counts, ordinal=True, n_bootstrap=0)
    shares = counts / 5
    spread = entropy(predicted, axis=1) - entropy(shares, axis=1)
    assert report["entropy_error"] == pytest.approx(spread.mean(), abs=1e-12)
    assert report["entropy_error_abs"] == pytest.approx(np.abs(spread).mean(), abs=1e-12)
    clipped = predicted.clip(1e-3, 1 - 1e-3)
    assert report["kl"] == pytest.approx(entropy(shares, clipped, axis=1).mean(), abs=1e-12)  # scipy normalizes
    # Total variation is the largest difference in the probability of any set of classes.
    sets = np.array([[k >> j & 1 for j in range(4)] for k in range(16)])
    assert report["total_variation"] == pytest.approx(np.max((predicted - shares) @ sets.T, axis=1).mean(), abs=1e-12)
    total = 0.0
    for q, row in zip(predicted, counts, strict=True):
        for vote in np.repeat(np.arange(4), row):
            total += sum((q[: k + 1].sum() - (vote <= k)) ** 2 for k in range(3)) / 3
    assert report["ranked_probability_score"] == pytest.approx(total / counts.sum(), abs=1e-12)


def test_two_classes_are_a_single_probability():
    generator = np.random.default_rng(1)
    p, votes_b = generator.random(200), generator.integers(0, 6, 200)
    two = class_metrics(np.stack([1 - p, p], 1), np.stack([5 - votes_b, votes_b], 1), ordinal=True, n_bootstrap=0)
    one = calibration_metrics(p, votes_b / 5, n_votes=5)
    for key in ("brier", "log_loss", "mse_dense", "mse_corrected"):
        assert two[key] == pytest.approx(one[key], abs=1e-12), key
    assert two["ranked_probability_score"] == pytest.approx(one["brier"], abs=1e-12)
    assert two["total_variation"] == pytest.approx(np.mean(np.abs(p - votes_b / 5)), abs=1e-12)
    both = [expected_calibration_error(p, votes_b / 5), expected_calibration_error(1 - p, 1 - votes_b / 5)]
    assert two["ece_classwise"] == pytest.approx(np.mean(both), abs=1e-12)


def test_calibration_errors_by_class_and_of_the_likeliest():
    predicted, counts, _ = sample()
    shares, top = counts / 5, predicted.argmax(axis=1)
    report = class_metrics(predicted, counts, n_bootstrap=0)
    by_class = [expected_calibration_error(predicted[:, k], shares[:, k]) for k in range(4)]
    assert report["ece_classwise"] == pytest.approx(np.mean(by_class), abs=1e-12)
    of_top = expected_calibration_error(predicted.max(axis=1), shares[range(300), top])
    assert report["ece_toplabel"] == pytest.approx(of_top, abs=1e-12)


def test_ece_majority_agrees_with_torchmetrics_away_from_the_edges():
    import torch
    from torchmetrics.functional.classification import multiclass_calibration_error

    predicted, counts, _ = sample(votes=1)
    expected = multiclass_calibration_error(
        torch.tensor(predicted), torch.tensor(counts.argmax(axis=1)), num_classes=4, n_bins=10, norm="l1"
    )
    report = class_metrics(predicted, counts, n_bootstrap=0)
    assert report["ece_majority"] == pytest.approx(expected.item(), abs=1e-6)
    assert report["ece_toplabel"] == pytest.approx(report["ece_majority"], abs=1e-12), "one vote is its majority"


def test_ties_are_shared_and_split_votes_do_not_count():
    predicted = [[0.4, 0.4, 0.2], [0.1, 0.2, 0.7], [0.8, 0.1, 0.1]]
    report = class_metrics(predicted, [[3, 0, 0], [0, 1, 2], [1, 1, 1]], n_bootstrap=20)
    assert report["accuracy"] == pytest.approx((0.5 + 1) / 2)
    # F1: class 0 predicted ½, true 1, both ½; class 1 predicted ½, never true; class 2 always right.
    assert report["macro_f1"] == pytest.approx((2 * 0.5 / 1.5 + 0 + 1) / 3)
    split = class_metrics(predicted, [[1, 1, 0], [0, 1, 1], [1, 1, 1]], n_bootstrap=20)
    assert not {key for key in split if key.startswith(("accuracy", "macro_f1", "ece_majority"))}


def test_a_perfect_judge_is_at_the_noise_floors():
    truth = sample(500)[2]
    generator = np.random.default_rng(1)
    reports = [
        class_metrics(truth, generator.multinomial(5, truth), ordinal=True, n_bootstrap=0, seed=k) for k in range(40)
    ]
    for key in NOISY:
        shown, floor = (np.mean([report[name] for report in reports]) for name in (key, f"{key}_noise_floor"))
        assert shown == pytest.approx(floor, rel=0.08 if key.startswith("ece") else 0.01), key
    assert reports[0]["total_variation"] > 0.2, "five votes are that far from their own truth"
    assert reports[0]["entropy_error"] == pytest.approx((4 - 1) / (2 * 5), rel=0.3), "Miller (1955)"
    assert np.mean([report["mse_corrected"] for report in reports]) == pytest.approx(0, abs=1e-3)


def test_corrected_error_is_the_distance_to_the_true_distribution():
    predicted, counts, truth = sample(20_000)
    report = class_metrics(predicted, counts, n_bootstrap=0)
    assert report["mse_dense"] > 3 * report["mse_corrected"]
    assert report["mse_corrected"] == pytest.approx(np.mean(((predicted - truth) ** 2).sum(axis=1)) / 2, abs=2e-3)


@pytest.mark.parametrize("key", ["brier", "log_loss", "ranked_probability_score"])
def test_the_truth_has_the_best_expected_score(key):
    truth = np.array([[0.1, 0.6, 0.3]])
    best = class_metrics(truth, truth, ordinal=True, n_bootstrap=0)[key]
    for other in np.random.default_rng(0).dirichlet([1, 1, 1], 50):
        assert class_metrics([other], truth, ordinal=True, n_bootstrap=0)[key] > best


def test_a_near_miss_on_a_scale_costs_less_than_a_far_one():
    vote = [[0, 0, 0, 0, 1]]
    near, far = ([[0, 0, 0, 1, 0]], [[1, 0, 0, 0, 0]])
    scores = [class_metrics(q, vote, ordinal=True, n_bootstrap=0) for q in (near, far)]
    assert [s["ranked_probability_score"] for s in scores] == pytest.approx([0.25, 1.0])
    assert scores[0]["brier"] == scores[1]["brier"] == 1


tables = st.integers(2, 5).flatmap(
    lambda k: st.lists(
        st.tuples(
            st.lists(st.integers(1, 9), min_size=k, max_size=k), st.lists(st.integers(0, 4), min_size=k, max_size=k)
        ),
        min_size=1,
        max_size=20,
    )
)


@settings(max_examples=30, deadline=None)
@given(tables, st.randoms())
def test_names_of_classes_do_not_matter_unless_they_have_an_order(rows, random):
    weights = np.array([row for row, _ in rows], dtype=float)
    counts = np.array([row for _, row in rows]) + 1
    predicted = weights / weights.sum(axis=1, keepdims=True)
    report = class_metrics(predicted, counts, n_bootstrap=0)
    assert all(type(value) is float and np.isfinite(value) for value in report.values())
    order = random.sample(range(weights.shape[1]), weights.shape[1])
    renamed = class_metrics(predicted[:, order], counts[:, order], n_bootstrap=0)
    for key in report:
        if not key.endswith("_noise_floor"):
            assert renamed[key] == pytest.approx(report[key], abs=1e-12), key
    scale = class_metrics(predicted, counts, ordinal=True, n_bootstrap=0)["ranked_probability_score"]
    reverse = class_metrics(predicted[:, ::-1], counts[:, ::-1], ordinal=True, n_bootstrap=0)
    assert reverse["ranked_probability_score"] == pytest.approx(scale, abs=1e-12)


def test_clusters_widen_the_intervals():
    predicted, counts, _ = sample(60)
    copies = predicted.repeat(9, axis=0), counts.repeat(9, axis=0)
    alone = class_metrics(*copies, n_bootstrap=300)
    together = class_metrics(*copies, n_bootstrap=300, clusters=np.repeat(np.arange(60), 9))
    widths = [report["kl_high"] - report["kl_low"] for report in (alone, together)]
    assert widths[1] / widths[0] == pytest.approx(3, rel=0.3)


@pytest.mark.parametrize(
    ("predicted", "counts", "message"),
    [
        ([], [], r"predicted has shape \(0,\); expected \(N, K\) with N >= 1 and K >= 2"),
        ([[1.0]], [[1]], r"predicted has shape \(1, 1\)"),
        ([[0.5, 0.6]], [[1, 0]], r"predicted\[0\] sums to 1\.1; expected 1"),
        ([[0.5, 0.5], [1.5, -0.5]], [[1, 0]] * 2, r"predicted\[1, 1\] is -0\.5; expected a number of at least 0"),
        ([[0.5, float("nan")]], [[1, 0]], r"predicted\[0, 1\] is NaN"),
        ([["a", "b"]], [[1, 0]], "predicted is not a two-dimensional array of numbers"),
        ([[0.5, 0.5]], [[0, 0]], r"counts\[0\] is all zero; expected at least one vote"),
        ([[0.5, 0.5]], [[-1, 2]], r"counts\[0, 0\] is -1"),
        ([[0.5, 0.5]], [[1, 1, 1]], r"counts has shape \(1, 3\); expected \(1, 2\)"),
    ],
)
def test_bad_tables_are_refused(predicted, counts, message):
    with pytest.raises(ValueError, match=message):
        class_metrics(predicted, counts)


def test_single_precision_is_taken():
    predicted = np.random.default_rng(0).dirichlet([1, 1, 1], 50)
    rough = class_metrics(predicted.astype(np.float32), np.ones((50, 3)), n_bootstrap=0)
    assert rough["kl"] == pytest.approx(class_metrics(predicted, np.ones((50, 3)), n_bootstrap=0)["kl"], rel=1e-4)


def test_the_example_in_the_docstring():
    results = doctest.testmod(classes)
    assert results.attempted > 0
    assert results.failed == 0
