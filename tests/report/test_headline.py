from dataclasses import replace

import numpy as np
import pytest

from autorater.report.headline import calibration_state, headline, paired_gain


@pytest.fixture
def population():
    """Truth of 2,000 pairs and ten votes on each."""
    generator = np.random.default_rng(1)
    truth = 1 / (1 + np.exp(-generator.normal(0, 1.3, 2000)))
    return truth, generator.binomial(10, truth) / 10


def sharpened(truth, power):
    odds = (truth / (1 - truth)) ** power
    return odds / (1 + odds)


@pytest.fixture
def judge(make_pairs, make_evaluation, population):
    """The truth with its log odds multiplied; 1 is the perfect judge."""
    truth, labels = population

    def make(power, known=True, valid=1.0):
        pairs = make_pairs(labels, truth if known else None, n_votes=10)
        p = sharpened(truth, power)
        return make_evaluation(pairs, p, 1 - p, valid=valid, n_bootstrap=0)

    return make


def test_gain_by_hand(make_pairs, make_evaluation):
    pairs = make_pairs([1.0, 0.0])
    before = make_evaluation(pairs, [0.5, 0.5], [0.5, 0.5])
    after = make_evaluation(pairs, [0.9, 0.5], [0.1, 0.7])
    # pair 0: 0.25 − 0.01 in both orders; pair 1: 0.25 − 0.25 and 0.25 − 0.09
    mean, low, high = paired_gain(before, after)
    assert mean == pytest.approx((0.24 + 0.08) / 2)
    # half-width: t · s/√2, where s is 0.16/√2 and t has one degree of freedom
    assert high - mean == pytest.approx(12.706205 * 0.16 / 2, rel=1e-6)
    assert mean - low == pytest.approx(high - mean)


def test_pairs_of_a_cluster_are_no_independent_evidence(make_pairs, make_evaluation):
    """No gain on average, but one a debate: by pairs it would be called better or worse in most draws."""
    rng, called = np.random.default_rng(0), {"pairs": 0, "clusters": 0}
    names = np.repeat(np.arange(20), 10)
    for _ in range(40):
        pairs = make_pairs(np.full(200, 0.5), n_votes=None)
        shift = np.repeat(rng.normal(0, 0.03, 20), 10)
        before, after = (make_evaluation(pairs, 0.6 + s, 0.4 - s) for s in (0 * shift, shift))
        for name, clusters in (("pairs", None), ("clusters", names)):
            _, low, high = paired_gain(before, replace(after, clusters=clusters))
            called[name] += low > 0 or high < 0
    assert called["clusters"] < 12 < called["pairs"]


def test_one_pair_proves_nothing(make_pairs, make_evaluation):
    pairs = make_pairs([1.0])
    before, after = make_evaluation(pairs, [0.1], [0.9]), make_evaluation(pairs, [1.0], [0.0])
    assert paired_gain(before, after)[1:] == (-np.inf, np.inf)
    assert "no clear difference" in headline(before, after)


def test_other_pairs_are_refused(make_pairs, make_evaluation):
    before = make_evaluation(make_pairs([1.0, 0.0]), [0.5, 0.5], [0.5, 0.5])
    after = make_evaluation(make_pairs([1.0]), [0.5], [0.5])
    with pytest.raises(ValueError, match=r"before \(2 pairs\) and after \(1\)"):
        headline(before, after)


@pytest.mark.parametrize(
    ("power", "state"),
    [(1, "calibrated"), (3, "overconfident"), (1.3, "slightly overconfident"), (0.4, "underconfident")],
)
def test_states(judge, power, state):
    assert calibration_state(judge(power)) == state


def test_neither_over_nor_underconfident(make_pairs, make_evaluation):
    # all answers of 0.8 are right, and 0.4 of the answers of 0.6: both are off by 0.2, in opposite directions
    labels = np.repeat([1.0, 0.4], 500)
    p = np.repeat([0.8, 0.6], 500)
    state = calibration_state(make_evaluation(make_pairs(labels, n_votes=None), p, 1 - p))
    assert state == "overconfident on some pairs and underconfident on others"


def test_few_votes_prove_nothing(make_pairs, make_evaluation):
    pairs = make_pairs([1.0, 0.0, 1.0, 1.0, 0.0, 1.0])
    p = np.array([0.9, 0.2, 0.6, 0.7, 0.4, 0.8])
    state = calibration_state(make_evaluation(pairs, p, 1 - p))
    assert state == "not distinguishable from calibrated with so few votes"


def test_improved(judge):
    before, after = judge(3), judge(1)
    assert headline(before, after) == (
        f"Training improved the judge: excess Brier score {before.metrics['excess_brier']:.4f} → 0.0000 "
        f"(always answering 0.5: {after.metrics['excess_brier_constant']:.4f}, "
        f"the base rate: {after.metrics['excess_brier_base_rate']:.4f}), "
        f"calibration error {before.metrics['ece']:.3f} → {after.metrics['ece']:.3f} "
        "(a perfect judge would show 0.005). It was overconfident before and is now calibrated."
    )


def test_a_judge_is_compared_with_the_constant(make_pairs, make_evaluation):
    labels = np.tile([1.0, 0.0], 200)
    pairs = make_pairs(labels)
    worse, no_better = (np.full(400, p) for p in (0.9, 0.5))
    text = headline(make_evaluation(pairs, 1 - labels, labels), make_evaluation(pairs, worse, worse))
    assert (
        "improved the judge: Brier score 1.0000 → 0.4100 (always answering 0.5: 0.2500, the base rate: 0.2500)" in text
    )
    assert "It is worse than always answering 0.5." in text
    text = headline(make_evaluation(pairs, worse, worse), make_evaluation(pairs, no_better, no_better))
    assert "It is not clearly better than always answering 0.5." in text


def test_a_judge_is_compared_with_the_base_rate(make_pairs, make_evaluation):
    labels = np.tile([1.0, 1.0, 1.0, 1.0, 0.0], 80)
    pairs, before, after = make_pairs(labels), np.full(400, 0.4), np.full(400, 0.7)
    text = headline(make_evaluation(pairs, before, 1 - before), make_evaluation(pairs, after, 1 - after))
    assert "0.1700 (always answering 0.5: 0.2500, the base rate: 0.1600)" in text
    assert "It is worse than always answering the base rate." in text


@pytest.mark.parametrize("change", [1e-6, -1e-6])
def test_a_change_that_no_digit_shows_is_no_change(make_pairs, make_evaluation, change):
    labels = np.tile([1.0, 0.0], 200)
    pairs, p = make_pairs(labels), np.abs(labels - 0.3)
    moved = p + (labels - p) * change
    text = headline(make_evaluation(pairs, p, 1 - p), make_evaluation(pairs, moved, 1 - moved))
    assert text.startswith("Training made no clear difference: Brier score 0.0900 → 0.0900")


def test_without_a_truth_the_votes_decide(judge):
    text = headline(judge(3, known=False), judge(1, known=False))
    assert text.startswith("Training improved the judge: Brier score 0.2")


@pytest.mark.parametrize(
    ("before", "after", "calibration"),
    [
        (3, 0.8, "It was overconfident before and is now slightly underconfident."),
        (4, 0.5, "It was overconfident before and is now underconfident, but by less."),
        (4, 2.5, "It is still overconfident, but by less."),
        (0, 1.25, "Its answers are more accurate but no longer calibrated: it is now slightly overconfident."),
    ],
)
def test_an_improvement_never_reads_as_a_step_back(judge, before, after, calibration):
    text = headline(judge(before), judge(after))
    assert text.startswith("Training improved the judge: ")
    assert text.endswith(f"). {calibration}")


def test_worse(judge):
    text = headline(judge(1), judge(3))
    assert text.startswith("Training made the judge worse: excess Brier score 0.0000 → 0.0")
    assert text.endswith("It was calibrated before and is now overconfident.")


@pytest.mark.parametrize(("power", "state"), [(3, "overconfident"), (1, "calibrated")])
def test_no_difference(judge, power, state):
    text = headline(judge(power), judge(power))
    assert text.startswith("Training made no clear difference: excess Brier score 0.0")
    assert text.endswith(f"It is still {state}.")


def test_collapse_is_named(judge):
    text = headline(judge(3), judge(0))
    assert text.startswith("Training made the judge worse")
    assert "Its answers hardly vary (standard deviation 0.000)" in text


def test_unparsed_answers_are_named(judge):
    assert headline(judge(3), judge(1, valid=0.6)).endswith(
        " On average only 60.0 % of the probability is on answers that parse."
    )
