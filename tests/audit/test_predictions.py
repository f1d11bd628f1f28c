from dataclasses import replace

import numpy as np
import pytest

from autorater.audit.plan import Plan
from autorater.audit.predictions import (
    ANSWERED,
    NOT_JUDGED,
    UNPARSED,
    index_pairs,
    recorded_predictions,
    stored_predictions,
)
from autorater.audit.results import flat_metrics, flipping, measure
from autorater.data.errors import UserError
from autorater.data.pairs import Pair
from autorater.evaluation.judgment_store import JudgmentStore
from autorater.judges.recorded import JudgedPair

PAIRS = [Pair(str(i), "q", "a" * (i + 1), "bb", 0.25, topic=f"t{i % 2}") for i in range(3)]


@pytest.fixture
def predictions(tmp_path):
    """By probe, for three pairs: the first is answered, the second half unparsed, the third not judged."""
    plan = Plan(3, ("swap", "verbosity"))
    store = JudgmentStore(tmp_path, plan.n_requests, plan.number_of, {})
    for pair, probe, order, probability in (
        (0, "swap", "ab", 0.9), (0, "swap", "ba", 0.3), (0, "verbosity", "b_padded", 0.8),
        (0, "verbosity", "a_padded", 0.6), (1, "swap", "ab", None), (1, "swap", "ba", 0.4),
    ):  # fmt: skip
        record = {"pair": pair, "probe": probe, "order": order, "repeat": 0}
        answered = {"status": "answered", "probability": probability}
        record |= {"status": "unparsed"} if probability is None else answered
        store.append(plan.number_of(record), record)
    index = index_pairs(PAIRS, ["topic"])
    yield {probe: stored_predictions(store, plan, index, probe) for probe in plan.probes}
    store.close()


def test_answers_are_those_of_the_favoured_side(predictions):
    np.testing.assert_allclose(predictions["swap"].answers[0, :, 0], [0.9, 0.3])
    np.testing.assert_allclose(predictions["verbosity"].answers[0, :, 0], [0.8, 0.4])  # A is padded, and B at 0.6
    status = predictions["swap"].status[:, :, 0]
    assert status.tolist() == [[ANSWERED] * 2, [UNPARSED, ANSWERED], [NOT_JUDGED] * 2]
    assert flipping(predictions["swap"]) == []
    assert measure(predictions["verbosity"])["symmetry_deviation_mean"] == pytest.approx(0.2)


def test_pairs_left_out_are_counted(predictions):
    metrics = measure(predictions["swap"])
    assert [metrics[f"n_{name}"] for name in ("pairs", "unparsed", "refused", "not_asked")] == [1, 1, 0, 1]
    assert metrics["parse_rate"] == 0.75
    assert metrics["accuracy"] == 0  # the label prefers A, both answers B
    empty = measure(predictions["swap"].of_group("t1"))
    assert (empty["n_pairs"], empty["n_unparsed"]) == (0, 1)
    assert set(flat_metrics({"swap": metrics, "verbosity": empty}, {"t1": empty})) >= {
        "consistency", "verbosity/n_pairs", "t1/n_unparsed",
    }  # fmt: skip


def test_pair_index():
    index = index_pairs(PAIRS, ["topic"])
    assert index.groups.tolist() == ["t0", "t1", "t0"]
    assert index.lengths.tolist() == [[1, 2], [2, 2], [3, 2]]
    assert index.fingerprint == index_pairs(PAIRS).fingerprint
    assert index.fingerprint != index_pairs(PAIRS[::-1]).fingerprint
    models = [("x", "y"), ("y", "x"), ("x", "x")]
    named = [replace(p, model_a=a, model_b=b) for p, (a, b) in zip(PAIRS, models, strict=True)]
    assert index_pairs(named, family=("x",)).own.tolist() == [-1, 1, 0]
    rows = [{"model_1": "x", "model_2": "y"}, {"model_a": "y", "model_b": "x"}, {}]
    recorded = [JudgedPair(str(i), (0.5, 0.5), 1.0, row) for i, row in enumerate(rows)]
    assert recorded_predictions(recorded, family=("x",)).pairs.own.tolist() == [-1, 1, 0]
    np.testing.assert_allclose(index.traits["length"], [1, 0, np.log2(2 / 3)])
    with pytest.raises(UserError, match="has no 'model_a' to group by"):
        index_pairs(PAIRS, ["model_a"])
    with pytest.raises(UserError, match="cannot group by 'colour'; expected one of topic"):
        index_pairs(PAIRS, ["colour"])
