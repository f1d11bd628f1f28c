import doctest

import numpy as np
import pytest

from autorater.metrics import GroupMetrics, Targets, group_metrics, groups, judge_metrics, length_quartiles


@pytest.fixture(scope="module")
def pairs():
    """Three topics: calibrated, overconfident and underconfident; the answers of each are right on average."""
    generator = np.random.default_rng(0)
    truth = generator.beta(0.8, 0.8, 900)
    topic = np.repeat(["calibrated", "overconfident", "underconfident"], 300)
    stretch = np.select([topic == "calibrated", topic == "overconfident"], [1.0, 2.5], 0.3)
    answer = (0.5 + stretch * (truth - 0.5)).clip(0, 1).round(2)
    labels = generator.binomial(5, truth) / 5
    return {"answers": np.stack([answer, 1 - answer], axis=1), "labels": labels, "topics": topic}


def test_each_group_is_measured_alone_and_the_worst_comes_first(pairs):
    answers, labels, topics = pairs.values()
    found = group_metrics(answers, Targets(labels, 5), topics, n_bootstrap=50)
    assert [type(group) for group in found] == [GroupMetrics] * 3
    assert [group.n_pairs for group in found] == [300] * 3
    assert found[-1].name == "calibrated"
    gaps = {group.name: group.metrics["gap"] for group in found}
    assert gaps["underconfident"] < -0.1 < abs(gaps["calibrated"]) < 0.03 < 0.1 < gaps["overconfident"]
    excess = [group.metrics["ece"] - group.metrics["ece_noise_floor"] for group in found]
    assert excess == sorted(excess, reverse=True)
    for group in found:
        rows = topics == group.name
        assert group.metrics == judge_metrics(answers[rows], Targets(labels[rows], 5), n_bootstrap=50)
        assert group.metrics["gap_low"] <= group.metrics["gap"] <= group.metrics["gap_high"]


def test_optional_columns_are_divided_by_group(pairs):
    answers, labels, topics = pairs.values()
    votes, clusters = np.where(topics == "calibrated", 5, 10), np.arange(900) // 30
    columns = {"labels": labels, "n_votes": votes, "true_probability": answers[:, 0], "clusters": clusters}
    for group in group_metrics(answers, Targets(**columns), topics, n_bootstrap=20):
        rows = topics == group.name
        alone = Targets(**{name: values[rows] for name, values in columns.items()})
        assert group.metrics == judge_metrics(answers[rows], alone, n_bootstrap=20)


def test_small_groups_are_pooled_and_none_is_lost(pairs):
    names = [None if i < 25 else f"topic {i}" if i < 40 else "large" for i in range(900)]
    answers, targets = pairs["answers"], Targets(pairs["labels"])
    found = group_metrics(answers, targets, names, n_bootstrap=0)
    sizes = {group.name: group.n_pairs for group in found}
    assert sizes == {"(no group)": 25, "(rest: 15 groups, below 20 pairs)": 15, "large": 860}
    one = group_metrics(answers, targets, ["a"] + ["b"] * 899, n_bootstrap=0)
    assert {group.name: group.n_pairs for group in one} == {"(rest: 1 group, a, below 20 pairs)": 1, "b": 899}
    all_kept = group_metrics(answers, targets, names, min_pairs=1, n_bootstrap=0)
    assert len(all_kept) == 17


def test_groups_without_noise_floor_are_ordered_by_ece(pairs):
    answers, labels, topics = pairs.values()
    mixed = Targets(np.where(topics == "calibrated", labels.round(), labels))
    found = group_metrics(answers, mixed, topics, n_bootstrap=0)
    assert sum("ece_noise_floor" in group.metrics for group in found) == 1
    errors = [group.metrics["ece"] for group in found]
    assert errors == sorted(errors, reverse=True)


def test_lengths_and_settings_are_checked(pairs):
    answers, labels, topics = pairs.values()
    with pytest.raises(ValueError, match="answers has length 900 and groups has length 2"):
        group_metrics(answers, Targets(labels), ["a", "b"])
    with pytest.raises(ValueError, match="labels has length 899 and groups has length 900"):
        group_metrics(answers, Targets(labels[1:]), topics)
    with pytest.raises(ValueError, match="targets have no labels"):
        group_metrics(answers, Targets(), topics)
    with pytest.raises(ValueError, match="min_pairs is 0"):
        group_metrics(answers, Targets(labels), topics, min_pairs=0)


def test_quartiles_have_equal_size_and_keep_equal_lengths_together():
    lengths = np.random.default_rng(0).permutation(400)
    names, counts = np.unique(length_quartiles(lengths), return_counts=True)
    assert counts.tolist() == [100] * 4
    assert set(names) == {"length 0–99", "length 100–199", "length 200–299", "length 300–399"}
    tied = length_quartiles([7, 7, 7, 7, 8, 9, 10, 11])
    assert tied.tolist() == ["length 7"] * 4 + ["length 8–9"] * 2 + ["length 10–11"] * 2
    assert length_quartiles([3]).tolist() == ["length 3"]


def test_bad_lengths_are_refused():
    with pytest.raises(ValueError, match=r"lengths\[1\] is -2; expected a finite number of at least 0"):
        length_quartiles([1, -2])
    with pytest.raises(ValueError, match=r"lengths\[0\] is inf"):
        length_quartiles([np.inf])


def test_the_example_in_the_docstring():
    results = doctest.testmod(groups)
    assert results.attempted > 0
    assert results.failed == 0
