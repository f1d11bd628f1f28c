import numpy as np
import pytest

from autorater.audit.plan import Plan
from autorater.audit.predictions import ANSWERED, NOT_ASKED, UNPARSED, catalogue_pairs, journal_readings
from autorater.audit.results import flat_metrics, flipping, measure
from autorater.audit.store import Journal
from autorater.data.pairs import Pair

PAIRS = [Pair(str(i), "q", "a" * (i + 1), "bb", 0.25, topic=f"t{i % 2}") for i in range(3)]


@pytest.fixture
def heard(tmp_path):
    """Readings by probe of three pairs: the first is answered, the second half unparsed, the third not asked."""
    plan = Plan(3, ("swap", "verbosity"))
    journal = Journal(tmp_path, plan.n_questions, plan.slot_of, {})
    for pair, probe, order, said in (
        (0, "swap", "ab", 0.9), (0, "swap", "ba", 0.3), (0, "verbosity", "b_padded", 0.8),
        (0, "verbosity", "a_padded", 0.6), (1, "swap", "ab", None), (1, "swap", "ba", 0.4),
    ):  # fmt: skip
        record = {"pair": pair, "probe": probe, "order": order, "repeat": 0}
        record |= {"status": "unparsed"} if said is None else {"status": "answered", "probability": said}
        journal.append(plan.slot_of(record), record)
    yield {probe: journal_readings(journal, plan, catalogue_pairs(PAIRS, ["topic"]), probe) for probe in plan.probes}
    journal.close()


def test_answers_are_told_as_those_of_the_favoured_side(heard):
    np.testing.assert_allclose(heard["swap"].answers[0, :, 0], [0.9, 0.3])
    np.testing.assert_allclose(heard["verbosity"].answers[0, :, 0], [0.8, 0.4])  # B is padded; A is, and B at 0.6
    assert heard["swap"].status[:, :, 0].tolist() == [[ANSWERED] * 2, [UNPARSED, ANSWERED], [NOT_ASKED] * 2]
    assert flipping(heard["swap"]).tolist() == []
    assert measure(heard["verbosity"])["symmetry_deviation_mean"] == pytest.approx(0.2)


def test_what_is_left_out_is_counted(heard):
    metrics = measure(heard["swap"])
    assert [metrics[f"n_{name}"] for name in ("pairs", "unparsed", "refused", "not_asked")] == [1, 1, 0, 1]
    assert metrics["parse_rate"] == 0.75
    assert metrics["accuracy"] == 0  # the label prefers A, both readings B
    empty = measure(heard["swap"].of_group(1))
    assert (empty["n_pairs"], empty["n_unparsed"]) == (0, 1)
    assert set(flat_metrics({"swap": metrics, "verbosity": empty}, {"t1": empty})) >= {
        "consistency", "verbosity/n_pairs", "t1/n_unparsed",
    }  # fmt: skip


def test_the_catalogue_knows_its_pairs():
    catalogue = catalogue_pairs(PAIRS, ["topic"])
    assert catalogue.group_names == ("t0", "t1")
    assert catalogue.groups.tolist() == [0, 1, 0]
    assert catalogue.lengths.tolist() == [[1, 2], [2, 2], [3, 2]]
    assert catalogue.fingerprint == catalogue_pairs(PAIRS).fingerprint
    assert catalogue.fingerprint != catalogue_pairs(PAIRS[::-1]).fingerprint
    with pytest.raises(ValueError, match="has no model_a"):
        catalogue_pairs(PAIRS, ["model_a"])
    with pytest.raises(ValueError, match="cannot group by 'colour'; expected one of topic"):
        catalogue_pairs(PAIRS, ["colour"])
