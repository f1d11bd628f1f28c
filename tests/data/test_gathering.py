"""One row an annotator, and rows that repeat a pair: gathered or resampled together, never new evidence."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autorater.audit.predictions import index_pairs, recorded_predictions
from autorater.audit.results import measure as measure_audit
from autorater.data.errors import DataError, DataWarning
from autorater.data.gathering import clusters, pair_clusters
from autorater.data.loading import LoadReport, iter_pairs, load_pairs
from autorater.data.pairs import Pair
from autorater.evaluation.judge import measure
from autorater.judges.judgments import Judgments
from autorater.judges.recorded import iter_recorded

TEA = {"prompt": "Tea?", "response_a": "Yes.", "response_b": "No."}
TURNED = {"prompt": "Tea?", "response_a": "No.", "response_b": "Yes."}


def read(*rows):
    report = LoadReport()
    return load_pairs(list(rows), report=report), report


@pytest.mark.parametrize("column", ["vote", "winner", "preference"])
def test_one_row_an_annotator_becomes_one_pair(column):
    rows = [
        TEA | {column: "A", "annotator": "ann"},
        TEA | {"prompt": "Milk?", column: "tie", "annotator": "ann"},
        TEA | {column: "B", "annotator": "bob"},
        TURNED | {column: "A", "annotator": "cyd"},
    ]
    pairs, report = read(*rows)
    assert [(p.id, p.votes_a, p.votes_b, p.votes_tie, p.n_votes) for p in pairs] == [
        ("0", 1, 2, 0, 3),
        ("1", 0, 0, 1, 1),
    ]
    assert pairs[0].label == pytest.approx(2 / 3)
    assert (report.rows, report.gathered) == (4, 2)
    assert [(p.votes_a, p.votes_b) for p in iter_pairs(rows)] == [(1, 0), (0, 0), (0, 1), (1, 0)]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from("AB="), st.booleans()), min_size=1, max_size=30),
    st.randoms(),
)
def test_gathered_counts_depend_neither_on_the_places_nor_on_the_orders_of_the_votes(votes, random):
    """Each vote is (question, winner, whether it is shown in the other order)."""
    other = {"A": "B", "B": "A", "=": "tie"}
    rows = [
        {**(TURNED if turned else TEA), "prompt": f"Q{i}", "vote": other[vote] if turned or vote == "=" else vote}
        for i, vote, turned in votes
    ]
    random.shuffle(rows)
    gathered = {}
    for pair in read(*rows)[0]:
        pair = pair if pair.response_a == "Yes." else pair.swapped()
        gathered[pair.prompt] = (pair.votes_a, pair.votes_b, pair.votes_tie)
    expected = {f"Q{i}": tuple(sum((j, v) == (i, w) for j, v, _ in votes) for w in "AB=") for i, *_ in votes}
    assert gathered == expected


def test_labels_and_ids_of_annotators():
    rows = [TEA | {"id": "x", "annotator": i, "label": label} for i, label in enumerate((1, 1, 0, 0.5))]
    (pair,), _ = read(*rows)
    assert (pair.id, pair.votes_a, pair.votes_b, pair.votes_tie) == ("x", 1, 2, 1)
    with pytest.raises(DataError, match=r"row 1 .*'id': got 'x'; expected distinct ids; row 0"):
        read(rows[0], rows[1] | {"prompt": "Another?"})


def test_an_annotator_without_a_vote_is_left_out():
    (pair,), report = read(*(TEA | {"annotator": i, "label": label} for i, label in enumerate((1, None, ""))))
    assert pair.n_votes == 1
    assert dict(report.left_out) == {"label is null": 2}


def test_counts_beside_an_annotator_are_counts():
    rows = [TEA | {"annotator": name, "votes_a": 3, "votes_b": 1} for name in "xy"]
    assert len(read(*rows)[0]) == 2
    assert len(read(*(row | {"votes_a": 0} for row in rows))[0]) == 1, "one vote a row"


def test_the_same_vote_of_the_same_annotator_counts_once():
    rows = [TEA | {"vote": "A", "annotator": "ann"}, TURNED | {"vote": "B", "annotator": "ann"}]
    (pair,), report = read(*rows, TEA | {"vote": "B", "annotator": "ann"})
    assert (pair.votes_a, pair.votes_b) == (1, 1)
    assert dict(report.left_out) == {"repeats a row of the same annotator": 1}


def test_other_models_criteria_and_groups_are_other_pairs():
    rows = [TEA | {"vote": "A"} | more for more in ({}, {"model_a": "m"}, {"criteria": "Brevity."}, {"group": "g"})]
    assert len(read(*rows)[0]) == 4


def test_counts_are_added_under_one_id_and_else_stay_apart():
    counted = TEA | {"votes_a": 1, "votes_b": 2}
    (pair,), _ = read(counted | {"id": "x"}, TURNED | {"votes_a": 4, "votes_b": 0, "id": "x"})
    assert (pair.votes_a, pair.votes_b, pair.n_votes) == (1, 6, 7)
    with pytest.warns(DataWarning, match="1 of 2 pairs repeat the texts of an earlier one; they are no new evidence"):
        pairs = load_pairs([counted, counted])
    assert pair_clusters(pairs) == [0, 0]


def test_clusters_are_numbered_in_order_of_first_occurrence():
    assert clusters("abca") == [0, 1, 2, 0]
    assert clusters("abc") is None


def gathered(k):
    """60 pairs with 3 votes, in 60 rows (k = 1) or in 180 rows of one vote each, half of them in the other order."""
    r = np.random.default_rng(0)
    p, votes = r.uniform(0.1, 0.9, (60, 2)).round(2), r.integers(0, 4, 60)
    texts = [(f"Q{i}", f"a{i}", f"b{i}") for i in range(60)]
    if k == 1:
        pairs = [
            Pair(str(i), *texts[i], label=v / 3, n_votes=3, votes_a=3 - int(v), votes_b=int(v), votes_tie=0)
            for i, v in enumerate(votes)
        ]
    else:
        pairs = [
            Pair(
                f"{i}-{j}",
                *texts[i],
                label=float(j < v),
                n_votes=1,
                votes_a=int(j >= v),
                votes_b=int(j < v),
                votes_tie=0,
            )
            for i, v in enumerate(votes)
            for j in range(3)
        ]
    return pairs, np.repeat(p, k, axis=0)


def test_intervals_of_one_row_a_vote_are_those_of_one_row_a_pair():
    results = []
    for k in (1, 3):
        pairs, answers = gathered(k)
        judgments = Judgments(answers, answers.copy(), np.zeros_like(answers), np.ones_like(answers))
        results.append(measure(pairs, judgments).metrics)
    one, many = results
    for key in ("brier", "log_loss", "consistency", "symmetry_deviation_abs", "first_slot_share"):
        for end in ("", "_low", "_high"):
            assert many[key + end] == pytest.approx(one[key + end]), key + end


def test_recorded_rows_that_repeat_are_one_unit(tmp_path):
    files = []
    for k in (1, 3):
        pairs, answers = gathered(k)
        rows = [
            {"prompt": p.prompt, "response_a": p.response_a, "response_b": p.response_b, "p_ab": a, "p_ba": b}
            for p, (a, b) in zip(pairs, answers.tolist(), strict=True)
        ]
        files.append(tmp_path / f"per_annotator_{k}.jsonl")
        files[-1].write_text("".join(json.dumps(row) + "\n" for row in rows))
    one, many = (measure_audit(recorded_predictions(iter_recorded(file))) for file in files)
    assert many["n_repeated_rows"] == 120
    for key, value in one.items():
        if not key.startswith("symmetry_deviation_q") and key not in ("n_unparsed", "n_refused", "n_not_asked"):
            assert many[key] == pytest.approx(value), key


def test_recorded_rows_without_texts_are_told_apart_by_their_ids(tmp_path):
    path = tmp_path / "judge_pair.jsonl"
    row = {
        "question_id": 81,
        "model_1": "m",
        "model_2": "n",
        "turn": 1,
        "g1_winner": "model_1",
        "g2_winner": "model_2",
    }
    rows = [row, row | {"turn": 2}, row | {"g1_winner": "error"}, row | {"model_2": "o"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    index = recorded_predictions(iter_recorded(path)).pairs
    assert index.clusters.tolist() == [0, 1, 0, 2]


def test_pairs_to_audit_need_no_label():
    index = index_pairs(iter_pairs([TEA, TURNED, TEA | {"prompt": "Milk?", "label": 1}], labelled=False))
    assert index.clusters.tolist() == [0, 0, 1]
    assert np.isnan(index.labels).tolist() == [True, True, False]


def test_blanks_around_texts_make_no_new_evidence():
    rows = [TEA | {"label": 1}, TEA | {"prompt": "Tea? ", "label": 1}, TURNED | {"response_a": "No.\n", "label": 0}]
    pairs, _ = read(*rows, TEA | {"prompt": "Milk?", "label": 1})
    assert pair_clusters(pairs) == [0, 0, 0, 1]
