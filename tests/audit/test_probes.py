import pytest

from autorater.audit.plan import Plan
from autorater.audit.probes import INJECTION, PADDING, PROBES
from autorater.data.pairs import Pair

PAIR = Pair("x", "Why?", "a", "bb", 0.8)


def answers(probe, judge):
    """Pr[favoured side better] in both presentations of a pair, by a judge that gives Pr[second shown better]."""
    first, second = map(judge, PROBES[probe].present(PAIR))
    return first, 1 - second if PROBES[probe].complement else second


@pytest.mark.parametrize("probe", PROBES)
def test_a_judge_that_only_compares_the_content_is_unbiased(probe):
    def judge(presentation):
        return 0.7 if "bb" in presentation.pair.response_b else 0.3

    assert sum(answers(probe, judge)) == pytest.approx(1)
    assert answers(probe, judge)[0] == 0.7


@pytest.mark.parametrize(
    ("probe", "judge"),
    [
        ("swap", lambda shown: 0.9),
        ("verbosity", lambda shown: 0.9 if PADDING in shown.pair.response_b else 0.1),
        ("injection", lambda shown: 0.9 if INJECTION in shown.pair.response_b else 0.1),
        ("style", lambda shown: 0.9 if "#" in shown.pair.response_b else 0.1),
        ("paraphrase", lambda shown: 0.1 if shown.wording.paraphrased else 0.9),
        ("labels", lambda shown: 0.9 if shown.wording.names == ("A", "B") else 0.1),
    ],
)
def test_the_favoured_side_has_a_deviation_above_zero(probe, judge):
    assert sum(answers(probe, judge)) - 1 == pytest.approx(0.8)


@pytest.mark.parametrize("probe", sorted(set(PROBES) - {"swap"}))
def test_position_bias_cancels_out_of_other_probes(probe):
    assert sum(answers(probe, lambda shown: 0.9)) == pytest.approx(1)


def test_every_request_has_its_own_number():
    plan = Plan(3, ("swap", "labels"), 2)
    requests = list(plan.requests([PAIR] * 5))
    assert [r.number for r in requests] == list(range(plan.n_requests)) == list(range(24))
    for r in requests:
        record = {"pair": r.index, "probe": r.probe, "order": r.order, "repeat": r.repeat}
        assert plan.number_of(record) == r.number
    assert [r.number for r in plan.requests([PAIR] * 3, done={0, 5})] == sorted(set(range(24)) - {0, 5})
    for wrong in ({"pair": 3}, {"pair": -1}, {"repeat": 2}, {"order": "names_ab"}, {"probe": "verbosity"}):
        with pytest.raises(ValueError):
            plan.number_of({"pair": 0, "probe": "swap", "order": "ab", "repeat": 0} | wrong)


def test_verbosity_pads_one_response_at_a_time():
    first, second = (presentation.pair for presentation in PROBES["verbosity"].present(PAIR))
    assert (first.response_a, first.response_b) == ("a", "bb" + PADDING)
    assert (second.response_a, second.response_b) == ("a" + PADDING, "bb")
