import numpy as np
import pytest

from autorater.report.headline import calibration_state, paired_gain, verdict


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
    assert high - mean == pytest.approx(1.959964 * 0.16 / 2)  # half-width: z · s/√2, and s is 0.16/√2
    assert mean - low == pytest.approx(high - mean)


def test_one_pair_proves_nothing(make_pairs, make_evaluation):
    pairs = make_pairs([1.0])
    before, after = make_evaluation(pairs, [0.1], [0.9]), make_evaluation(pairs, [1.0], [0.0])
    assert paired_gain(before, after)[1:] == (-np.inf, np.inf)
    assert "no clear difference" in verdict(before, after)


def test_other_pairs_are_refused(make_pairs, make_evaluation):
    before = make_evaluation(make_pairs([1.0, 0.0]), [0.5, 0.5], [0.5, 0.5])
    after = make_evaluation(make_pairs([1.0]), [0.5], [0.5])
    with pytest.raises(ValueError, match=r"before \(2 pairs\) and after \(1\)"):
        verdict(before, after)


@pytest.mark.parametrize(("power", "state"), [(1, "calibrated"), (3, "overconfident"), (0.4, "underconfident")])
def test_states(judge, power, state):
    assert calibration_state(judge(power)) == state


def test_neither_over_nor_underconfident(make_pairs, make_evaluation):
    # of the answers 0.8, all are right; of the answers 0.6, 0.4 are: off by 0.2 both ways
    labels = np.repeat([1.0, 0.4], 500)
    p = np.repeat([0.8, 0.6], 500)
    assert calibration_state(make_evaluation(make_pairs(labels, n_votes=None), p, 1 - p)) == "miscalibrated"


def test_few_votes_prove_nothing(make_pairs, make_evaluation):
    pairs = make_pairs([1.0, 0.0, 1.0, 1.0, 0.0, 1.0])
    p = np.array([0.9, 0.2, 0.6, 0.7, 0.4, 0.8])
    state = calibration_state(make_evaluation(pairs, p, 1 - p))
    assert state == "not distinguishable from calibrated with so few votes"


def test_improved(judge):
    sentence = verdict(judge(3), judge(1))
    assert sentence.startswith("Training improved the judge: its excess Brier score fell from 0.0")
    assert "it went from overconfident (ECE 0." in sentence
    assert "to calibrated (ECE 0.0" in sentence
    assert sentence.endswith("a perfect judge would show 0.005).")


def test_without_a_truth_the_votes_decide(judge):
    assert verdict(judge(3, known=False), judge(1, known=False)).startswith(
        "Training improved the judge: its Brier score fell from 0.2"
    )


def test_worse(judge):
    sentence = verdict(judge(1), judge(3))
    assert sentence.startswith("Training made the judge worse: its excess Brier score rose from 0.0000 to 0.0")
    assert "from calibrated" in sentence
    assert "to overconfident" in sentence


def test_improved_and_still_overconfident(judge):
    sentence = verdict(judge(4), judge(3))
    assert sentence.startswith("Training improved")
    assert "it was overconfident before (ECE 0." in sentence
    assert "and is so after (ECE 0." in sentence


def test_no_difference(judge):
    sentence = verdict(judge(3), judge(3))
    assert sentence.startswith("Training made no clear difference: the excess Brier score was 0.0")
    assert "a change within noise" in sentence


def test_collapse_is_named(judge):
    sentence = verdict(judge(3), judge(0))  # worse, too: hence "and"
    assert "; and its answers hardly vary (standard deviation 0.000)" in sentence


def test_unreadable_answers_are_named(judge):
    assert verdict(judge(3), judge(1, valid=0.6)).endswith("; but only 60.0 % of its answers can be read.")
