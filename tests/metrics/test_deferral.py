import deferral as benchmark
import numpy as np
import pytest
from scipy.stats import binomtest

from autorater.metrics import deferral_threshold
from autorater.metrics.deferral import risk_curve


def pairs(margins, wrong):
    """Answers for B at the given margins, with three votes each; `wrong` says where the majority is for A."""
    wrong = np.asarray(wrong)
    return 0.5 + np.asarray(margins), np.where(wrong, 2, 0), np.where(wrong, 1, 3)


def test_last_threshold_is_where_clopper_and_pearson_still_hold():
    """Without errors in the upper half and with one in four in the lower."""
    margins, wrong = np.linspace(0.5, 0.001, 400), np.arange(400) % 4 == 0
    wrong[:200] = False
    threshold = deferral_threshold(*pairs(margins, wrong), alpha=0.1, delta=0.05)
    n = int((margins >= threshold).sum())

    def upper(n):  # one-sided 95 % limit
        interval = binomtest(int(wrong[:n].sum()), n).proportion_ci(0.9, method="exact")
        return interval.high

    assert upper(n) <= 0.1
    assert upper(n + 20) > 0.1, "the next threshold, a twentieth of the pairs below"
    assert n > 240


def test_without_any_error_all_stand_if_there_are_enough():
    for n, threshold in ((29, 0.2), (28, None)):  # 0.9^29 < 0.05 < 0.9^28
        assert deferral_threshold(*pairs([0.2] * n, [False] * n), alpha=0.1, delta=0.05) == (
            threshold if threshold is None else pytest.approx(threshold)
        )


def test_a_bad_judge_is_refused():
    generator = np.random.default_rng(0)
    answers, votes = generator.random(2000), generator.integers(0, 2, 2000)
    assert deferral_threshold(answers, 1 - votes, votes, alpha=0.1, delta=0.05) is None


def test_one_failure_ends_the_sequence():
    """A lower threshold must not be tested after a higher one failed, even if it would pass."""
    margins, wrong = np.linspace(0.5, 0.01, 1000), np.zeros(1000, dtype=bool)
    wrong[:100:2] = True
    assert wrong.mean() == 0.05
    assert deferral_threshold(*pairs(margins, wrong), alpha=0.1, delta=0.05) is None


def test_equal_answers_stand_or_fall_together():
    answers = np.repeat([0.9, 0.1, 0.6, 0.4], 100)
    votes_b = np.where(answers > 0.5, 3, 0)
    votes_b[200:] = 3  # of 0.6 and 0.4 half are wrong
    threshold = deferral_threshold(answers, 3 - votes_b, votes_b, alpha=0.1, delta=0.05)
    assert threshold == pytest.approx(0.4)
    assert (np.abs(answers - 0.5) >= threshold).sum() == 200, "not one less by rounding"


def test_split_votes_and_answers_of_one_half_are_half_wrong():
    shares, risks = risk_curve([0.9, 0.8, 0.5, 0.3], [1, 0, 0, 0], [1, 2, 3, 1])
    assert shares.tolist() == [0.25, 0.5, 0.75, 1]
    assert risks == pytest.approx([0.5, 0.25, 0.5, 0.5])


def test_swapping_the_responses_changes_nothing():
    generator = np.random.default_rng(1)
    answers = generator.beta(2, 2, 800)
    votes_b = generator.binomial(5, answers)
    there = deferral_threshold(answers, 5 - votes_b, votes_b, alpha=0.2, delta=0.1)
    back = deferral_threshold(1 - answers, votes_b, 5 - votes_b, alpha=0.2, delta=0.1)
    assert there == pytest.approx(back)


def test_promise_is_kept_and_calibration_saves_votes():
    records = {judge: benchmark.simulated_splits(judge, 500, 5, 100) for judge in benchmark.JUDGES}
    assert all(record["kept"] >= 0.95 for record in records.values())
    assert records["calibrated"]["to_people"] + 0.2 < records["raw"]["to_people"]


@pytest.mark.parametrize("n_votes", [1, 2, 4])
def test_promise_is_kept_with_split_and_single_votes(n_votes):
    assert benchmark.simulated_splits("calibrated", 500, n_votes, 200)["kept"] >= 0.95


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (([], [], []), {}, "probabilities is empty"),
        (([0.5], [1, 2], [1]), {}, "votes_a has length 2"),
        (([0.5], [-1], [1]), {}, r"votes_a\[0\] is -1"),
        (([1.5], [1], [1]), {}, r"probabilities\[0\] is 1.5"),
        (([0.5], [1], [1]), {"alpha": 0}, "alpha is 0"),
        (([0.5], [1], [1]), {"delta": 5}, "delta is 5"),
    ],
)
def test_bad_input_is_refused(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        deferral_threshold(*arguments, **{"alpha": 0.1, "delta": 0.05, **options})
