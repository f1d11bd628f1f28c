import numpy as np
import pytest
from scipy.special import expit, ndtr
from scipy.stats import ttest_rel

from autorater.metrics import agreement, calibration_metrics, compare_with_baseline, gate_fails
from autorater.metrics.position import position_bias


def runs(seed, n=1000, noise=0.4, shift=0.0, drop=0.0):
    """A baseline and a second run of the same judge, and five votes a pair.

    `shift` is added to the log odds of the second run's confidence; `drop` is the share of pairs
    whose second answer it turns around.
    """
    generator = np.random.default_rng(seed)
    truth = 1.3 * generator.normal(size=n)
    labels = generator.binomial(5, expit(truth)) / 5
    misread = 0.4 * generator.normal(size=n)

    def answers(scale):
        logits = scale * (truth + misread)
        return expit(np.stack([logits, -logits], axis=1) + 0.2 + noise * generator.normal(size=(n, 2)))

    baseline, current = answers(1.0), answers(1.0 + shift)
    flips = generator.random(n) < drop
    current[flips, 1] = 1 - current[flips, 1]
    return baseline, current, labels


def changes(*args, **options):
    return {change.metric: change for change in compare_with_baseline(*args, **options)}


def test_values_and_tests_by_hand():
    baseline, current, labels = runs(0, shift=1.0)
    found = changes(baseline, current, labels)
    for name, answers in (("baseline", baseline), ("current", current)):
        p_ab, p_ba = answers.T
        bias = position_bias(p_ab, p_ba)
        for metric in ("consistency", "symmetry_deviation_abs"):
            assert getattr(found[metric], name) == pytest.approx(bias[metric])
        assert getattr(found["agreement"], name) == pytest.approx(agreement((p_ab + 1 - p_ba) / 2, labels))
        brier = calibration_metrics(np.concatenate([p_ab, p_ba]), np.concatenate([labels, 1 - labels]))["brier"]
        assert getattr(found["brier"], name) == pytest.approx(brier)
    scores = [((a - np.stack([labels, 1 - labels], axis=1)) ** 2).mean(axis=1) for a in (current, baseline)]
    test = ttest_rel(*scores)
    assert [found["brier"].low, found["brier"].high] == pytest.approx(list(test.confidence_interval()))
    assert test.pvalue <= found["brier"].p_value <= 4 * test.pvalue
    assert found["brier"].verdict == "worse"


def test_what_is_worse_one_way_is_better_the_other():
    baseline, current, labels = runs(0, drop=0.1)
    there, back = changes(baseline, current, labels), changes(current, baseline, labels)
    assert (there["consistency"].verdict, back["consistency"].verdict) == ("worse", "better")
    assert there["consistency"].change == pytest.approx(-back["consistency"].change)
    assert gate_fails(list(there.values()))
    assert not gate_fails(list(back.values()))


def test_equal_answers_do_not_fail():
    baseline, _, labels = runs(0)
    assert {change.verdict for change in compare_with_baseline(baseline, baseline, labels)} == {"no clear change"}


def test_false_alarms_over_400_pairs_of_equal_runs():
    alarms = [gate_fails(compare_with_baseline(*runs(seed))) for seed in range(400)]
    assert np.mean(alarms) <= 0.05


@pytest.mark.parametrize(
    ("metric", "planted", "options"),
    [("brier", 0.01, {"shift": 0.75, "noise": 0.2}), ("consistency", -0.03, {"drop": 0.04, "noise": 0.1})],
)
def test_planted_losses_are_found_with_the_stated_power(metric, planted, options):
    """A loss as large as `detectable` is found in 80 % of the runs; larger ones more often."""
    found = [changes(*runs(seed, **options))[metric] for seed in range(200)]
    mean = np.mean([change.change for change in found])
    assert mean == pytest.approx(planted, rel=0.15)
    error = np.mean([change.high - change.low for change in found]) / 2 / 1.96
    detectable = np.mean([change.detectable for change in found])
    assert detectable == pytest.approx((2.50 + 0.84) * error, rel=0.02)  # z of 0.05 / 8 and of 80 %
    stated = ndtr(abs(planted) / error - 2.50)
    print(
        metric, f"loss {mean:.4f}, stated power {stated:.2f}, found {np.mean([c.verdict == 'worse' for c in found])}"
    )
    assert np.mean([change.verdict == "worse" for change in found]) >= stated - 0.1


def test_repeated_pairs_are_no_evidence_when_clustered():
    baseline, current, labels = runs(1, n=200, drop=0.05)
    once = changes(baseline, current, labels)
    thrice = changes(
        *(np.repeat(x, 3, axis=0) for x in (baseline, current, labels)), clusters=np.repeat(range(200), 3)
    )
    for metric, change in once.items():
        assert thrice[metric].p_value == pytest.approx(change.p_value)


def test_two_pairs_that_change_alike_prove_nothing():
    baseline, current = np.array([[0.8, 0.2]] * 2), np.array([[0.8, 0.8]] * 2)
    (change,) = (c for c in compare_with_baseline(baseline, current) if c.metric == "consistency")
    assert change.p_value >= 0.5
    assert change.verdict == "no clear change"
    many = [np.repeat(side[:1], 20, axis=0) for side in (baseline, current)]
    assert gate_fails(compare_with_baseline(*many)), "twenty do"


def test_without_labels_only_position_counts():
    baseline, current, _ = runs(0)
    assert list(changes(baseline, current)) == ["consistency", "symmetry_deviation_abs"]


def test_missing_answers_are_no_consistent_ones():
    """A judge that leaves half of its answers out is not more consistent, but answers less."""
    baseline, _, labels = runs(0)
    answered = np.arange(len(baseline)) % 2 == 0
    current = np.where(answered[:, None], baseline, 0.5)
    masks = [np.ones(len(baseline)), answered]
    found = changes(baseline, current, labels, answered=masks)
    for metric in ("consistency", "symmetry_deviation_abs"):
        assert found[metric].verdict == "no clear change"
        assert found[metric].change == 0
        assert found[metric].n_pairs == answered.sum()
        of_answered = changes(baseline[answered], baseline[answered])
        assert found[metric].current == pytest.approx(of_answered[metric].current)
    assert (found["answered"].baseline, found["answered"].current, found["answered"].verdict) == (1, 0.5, "worse")
    assert found["brier"].change == changes(baseline, current, labels)["brier"].change
    assert "answered" not in changes(baseline, current, labels, answered=[masks[0], masks[0]])


@pytest.mark.parametrize(
    ("current", "options", "message"),
    [
        ([[0.5, 0.5]], {}, "current has length 1"),
        ([[0.5, 0.5], [0.5, 2]], {}, "expected a value in"),
        ([[0.5, 0.5]] * 2, {"clusters": [1, 1]}, "single cluster"),
        ([[0.5, 0.5]] * 2, {"level": 5}, "level is 5"),
        ([[0.5, 0.5]] * 2, {"labels": [1]}, "labels has length 1"),
    ],
)
def test_bad_input_is_refused(current, options, message):
    with pytest.raises(ValueError, match=message):
        compare_with_baseline([[0.5, 0.4], [0.5, 0.6]], current, **options)
