import numpy as np
import pytest

from autorater.audit.plan import Plan
from autorater.audit.predictions import turns
from autorater.audit.probes import INJECTION, PADDING, PROBES
from autorater.data.pairs import Pair

PAIR = Pair("x", "Why?", "a", "bb", 0.8)


def told(probe, judge):
    """Both readings of a pair, as the audit tells them, by a judge that gives Pr[second shown better]."""
    readings = PROBES[probe].readings(PAIR)
    return [1 - judge(r) if turned else judge(r) for r, turned in zip(readings, turns(probe), strict=True)]


@pytest.mark.parametrize("probe", PROBES)
def test_a_judge_that_only_looks_at_what_is_said_is_unbiased(probe):
    def judge(reading):
        return 0.7 if reading.pair.response_b.startswith("bb") else 0.3

    assert sum(told(probe, judge)) == pytest.approx(1)
    assert told(probe, judge)[0] == 0.7


@pytest.mark.parametrize(
    ("probe", "judge"),
    [
        ("swap", lambda r: 0.9),
        ("verbosity", lambda r: 0.9 if PADDING in r.pair.response_b else 0.1),
        ("injection", lambda r: 0.9 if INJECTION in r.pair.response_b else 0.1),
        ("labels", lambda r: 0.9 if r.names == ("A", "B") else 0.1),
    ],
)
def test_what_is_favoured_has_a_deviation_above_zero(probe, judge):
    assert sum(told(probe, judge)) - 1 == pytest.approx(0.8)


@pytest.mark.parametrize("probe", ["verbosity", "injection"])
def test_a_preference_for_a_slot_cancels_out_of_other_probes(probe):
    assert sum(told(probe, lambda reading: 0.9)) == pytest.approx(1)


def test_every_question_has_its_own_number():
    plan = Plan(3, ("swap", "labels"), 2)
    questions = list(plan.questions([PAIR] * 5))
    assert [q.slot for q in questions] == list(range(plan.n_questions)) == list(range(24))
    for q in questions:
        record = {"pair": q.index, "probe": q.probe, "order": q.order, "repeat": q.repeat}
        assert plan.slot_of(record) == q.slot
    assert [q.slot for q in plan.questions([PAIR] * 3, done={0, 5})] == sorted(set(range(24)) - {0, 5})
    for wrong in ({"pair": 3}, {"repeat": 2}, {"order": "names_ab"}, {"probe": "verbosity"}):
        with pytest.raises(ValueError):
            plan.slot_of({"pair": 0, "probe": "swap", "order": "ab", "repeat": 0} | wrong)


def test_verbosity_is_told_like_a_swap():
    """The label of the second reading is that of A, as it is when the responses change places."""
    first, second = PROBES["verbosity"].readings(PAIR)
    assert first.pair.response_b == "bb" + PADDING
    assert second.pair.response_a == "a" + PADDING
    assert np.all([not first.turned, second.turned])
