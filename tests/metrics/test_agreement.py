import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from autorater.metrics import agreement, three_way_agreement


def test_by_hand():
    #               right  wrong  tie  right  split: not counted
    probabilities = [0.9, 0.2, 0.5, 0.1, 0.9]
    labels = [1.0, 0.7, 0.0, 0.4, 0.5]
    assert agreement(probabilities, labels) == pytest.approx((1 + 0 + 0.5 + 1) / 4)


def test_against_scikit_learn():
    generator = np.random.default_rng(0)
    probabilities, labels = generator.random(200), generator.integers(0, 2, 200)
    assert agreement(probabilities, labels) == pytest.approx(accuracy_score(labels, probabilities > 0.5))


def test_an_answered_tie_counts_one_half():
    assert agreement([0.55, 0.6, 0.45, 0.4], [1, 1, 1, 1]) == 0.5
    assert agreement([0.5, 0.6, 0.5, 0.4], [1, 1, 1, 1]) == pytest.approx((0.5 + 1 + 0.5 + 0) / 4)


def test_the_last_bit_makes_no_verdict():
    assert agreement([np.nextafter(0.5, 1)], [0]) == 0.5
    assert agreement([0.9, 0.9], [np.nextafter(0.5, 1), 0]) == 0


def test_swapping_the_responses_changes_nothing():
    generator = np.random.default_rng(1)
    probabilities, labels = generator.integers(0, 11, 300) / 10, generator.integers(0, 11, 300) / 10
    assert agreement(1 - probabilities, 1 - labels) == pytest.approx(agreement(probabilities, labels))


def test_split_labels_alone_are_an_error():
    with pytest.raises(ValueError, match=r"every label is 0\.5"):
        agreement([0.2, 0.8], [0.5, 0.5])


def three_classes(probabilities):
    return ["tie" if abs(round(p - 0.5, 9)) <= 0.05 else "B" if p > 0.5 else "A" for p in probabilities]


def test_three_way_agreement_against_scikit_learn():
    generator = np.random.default_rng(2)
    probabilities, labels = generator.integers(0, 101, 500) / 100, generator.integers(0, 11, 500) / 10
    predicted, true = three_classes(probabilities), three_classes(labels)
    report = three_way_agreement(probabilities, labels)
    assert report["agreement_three_way"] == pytest.approx(accuracy_score(true, predicted), abs=1e-12)
    assert report["macro_f1"] == pytest.approx(f1_score(true, predicted, average="macro"), abs=1e-12)


def test_verdicts_that_nobody_gives_do_not_count():
    assert three_way_agreement([0.9, 0.2], [1, 0]) == {"agreement_three_way": 1, "macro_f1": 1}
    assert three_way_agreement([0.55, 0.2], [0.5, 0]) == {"agreement_three_way": 1, "macro_f1": 1}
    assert three_way_agreement([0.5, 0.5], [0.5, 0.5]) == {"agreement_three_way": 1, "macro_f1": 1}
