from dataclasses import replace

import pytest

from autorater.report import breakdown
from autorater.report.breakdown import topic_rows, worst_pairs


def test_topics_by_hand(make_pairs, make_evaluation):
    pairs = make_pairs([0.6, 0.2, 1.0, 0.5, 0.0])
    pairs = [
        replace(pair, topic=topic) for pair, topic in zip(pairs, ["tea", "tea", "cars", "cars", None], strict=True)
    ]
    # averaged over the orders: 0.7, 0.1 | 0.9, 0.5 | 0.5
    evaluation = make_evaluation(pairs, [0.8, 0.1, 0.9, 0.6, 0.5], [0.4, 0.9, 0.1, 0.6, 0.5])
    tea, cars = topic_rows(evaluation)
    # tea: prefers B with 0.7 (votes 0.6), then A with 0.9 (votes 0.8)
    assert (tea["topic"], tea["n_pairs"]) == ("tea", 2)
    assert (tea["answer"], tea["vote"], tea["gap"]) == pytest.approx((0.8, 0.7, 0.1))
    # against every vote: (p − y)² + y (1 − y)
    assert tea["brier"] == pytest.approx((0.01 + 0.24 + 0.01 + 0.16) / 2)
    # cars: prefers B with 0.9 (votes 1.0), then neither
    assert (cars["answer"], cars["vote"], cars["gap"]) == pytest.approx((0.7, 0.75, -0.05))


def test_topics_are_weighted_by_their_pairs(make_pairs, make_evaluation):
    columns = zip(make_pairs([1, 0, 0, 1]), ["tea", "tea", "cars", "ships"], [9, 1, 2, 0], strict=True)
    pairs = [replace(pair, topic=topic, weight=weight) for pair, topic, weight in columns]
    cars, tea = topic_rows(make_evaluation(pairs, [0.7] * 4, [0.3] * 4))
    assert (cars["topic"], cars["vote"], cars["gap"]) == pytest.approx(("cars", 0, 0.7))
    assert (tea["n_pairs"], tea["answer"], tea["vote"], tea["gap"]) == pytest.approx((2, 0.7, 0.9, -0.2))
    assert tea["brier"] == pytest.approx(0.9 * 0.09 + 0.1 * 0.49)


def test_no_topics_no_table(make_pairs, make_evaluation, monkeypatch):
    pairs = make_pairs([0.0, 1.0, 1.0])
    answers = [0.2, 0.8, 0.9], [0.8, 0.2, 0.1]
    assert topic_rows(make_evaluation(pairs, *answers)) == []
    alike = [replace(pair, topic="tea") for pair in pairs]
    assert topic_rows(make_evaluation(alike, *answers)) == []
    distinct = [replace(pair, topic=pair.id) for pair in pairs]
    assert len(topic_rows(make_evaluation(distinct, *answers))) == 3
    monkeypatch.setattr(breakdown, "_MAX_TOPICS", 2)
    assert topic_rows(make_evaluation(distinct, *answers)) == []


def test_worst_pairs_are_far_from_the_votes(make_pairs, make_evaluation):
    pairs = make_pairs([1.0, 0.0, 1.0])
    before, after = (
        make_evaluation(pairs, p_ab, p_ba)
        for p_ab, p_ba in (([0.5] * 3, [0.5] * 3), ([0.9, 0.8, 0.4], [0.1, 0.6, 0.2]))
    )
    worst = worst_pairs(before, after)
    assert [row["pair"].id for row in worst[:2]] == ["pair-1", "pair-2"]
    assert (worst[0]["answer"], worst[0]["answer_ab"], worst[0]["answer_ba"]) == pytest.approx((0.6, 0.8, 0.4))
    assert worst[0]["answer_before"] == 0.5
    assert len(worst) == 3


def test_worst_pairs_are_far_from_the_truth_where_it_is_known(make_pairs, make_evaluation):
    pairs = make_pairs([1.0, 1.0], truth=[0.1, 0.9])
    evaluation = make_evaluation(pairs, [0.1, 0.7], [0.9, 0.3])
    assert [row["pair"].id for row in worst_pairs(evaluation, evaluation)] == ["pair-1", "pair-0"]
