import csv
import json
import math

import pytest

from autorater.data.errors import DataError
from autorater.data.loading import load_pairs
from autorater.judges.judged import judged_in_both_orders, read_judged
from autorater.judges.recorded import iter_recorded


def read(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return list(iter_recorded(path))


@pytest.mark.parametrize(
    ("row", "answers", "label"),
    [
        ({"p_ab": 0.3, "p_ba": 0.9, "label": 0.25}, (0.3, 0.9), 0.25),
        ({"verdict_ab": "B", "verdict_ba": "B", "label": 1}, (1, 0), 1),
        ({"verdict_ab": "A", "verdict_ba": "tie", "label": 1}, (0, 0.5), 1),
        ({"slot_ab": "second", "slot_ba": "second"}, (1, 1), math.nan),
        ({"winner_original": "2", "winner_swapped": "2", "label": 2}, (1, 0), 1),
        ({"winner_original": 1, "winner_swapped": None, "label": 1}, (0, math.nan), 0),
        ({"verdict_ab": "b", "verdict_ba": "Tie", "label": "B>A"}, (1, 0.5), 1),
        ({"verdict_ab": "A>B", "verdict_ba": "A=B"}, (0, 0.5), math.nan),
        ({"slot_ab": "FIRST", "slot_ba": "error"}, (0, math.nan), math.nan),
        ({"winner_original": "model_1", "winner_swapped": "model_2"}, (0, 0), math.nan),
        ({"g1_winner": "model_2", "g2_winner": "error"}, (1, math.nan), math.nan),
        ({"games": [{"score": "A>>B"}, {"score": "B>A"}]}, (0, 1), math.nan),
        ({"games": [{"score": "A=B"}, {"score": None}]}, (0.5, math.nan), math.nan),
        ({"games": [None, {"score": "B>>A"}]}, (math.nan, 1), math.nan),
        ({"winner_original": "model_1", "winner_swapped": 2.0, "label": "model_2"}, (0, 0), 1),
        ({"winner_original": 1.0, "winner_swapped": 2.0, "label": 2.0}, (0, 0), 1),
        ({"judgments": [{"decision": "A>B"}, {"decision": "A>B"}], "label": "A>B"}, (0, 0), 0),
    ],
)
def test_all_say_how_likely_the_second_slot_is_better(tmp_path, row, answers, label):
    (pair,) = read(tmp_path / "judgments.jsonl", row)
    assert pair.answers == pytest.approx(answers, nan_ok=True)
    assert pair.label == pytest.approx(label, nan_ok=True)
    assert pair.id == "0"


def test_csv(tmp_path):
    with (tmp_path / "judgments.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["id", "p_ab", "p_ba", "judge"], ["x", "0.25", "", "me"]])
    (pair,) = iter_recorded(tmp_path / "judgments.csv")
    assert pair.id == "x"
    assert pair.answers == pytest.approx((0.25, math.nan), nan_ok=True)
    assert pair.row["judge"] == "me"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no rows"),
        ([{"winner": 1}], "line 1: expected the columns p_ab, p_ba or"),
        ([{"p_ab": 0.1, "p_ba": 0.2}, {"p_ab": 0.1}], "line 2: column 'p_ba' is missing"),
        ([{"games": [{"score": "A>B"}]}], "expected two games, the second with the responses swapped"),
        ([{"p_ab": "x", "p_ba": 0.2}], "line 1: column 'p_ab': got 'x'; expected a number in"),
        ([{"p_ab": True, "p_ba": 0.2}], "got True"),
        ([{"verdict_ab": "C", "verdict_ba": "A"}], "got 'C'; expected A, B or tie"),
        ([{"winner_original": 1, "winner_swapped": 1, "label": 0.5}], "column 'label': got 0.5; expected one of 1, 2"),
    ],
)
def test_a_bad_row_is_named(tmp_path, rows, message):
    with pytest.raises(DataError, match=message):
        read(tmp_path / "judgments.jsonl", *rows)


def test_fastchat_pair_judgments_are_told_apart_by_question_turn_and_models(tmp_path):
    row = {"question_id": 81, "model_1": "alpha", "model_2": "beta", "turn": 1, "judge": ["judge", "pair-v2"]}
    winners = [("model_1", "model_1"), ("model_1", "model_2"), ("tie", "model_2"), ("error", "error")]
    rows = [row | {"question_id": 81 + i, "g1_winner": a, "g2_winner": b} for i, (a, b) in enumerate(winners)]
    pairs = read(tmp_path / "judge_pair.jsonl", *rows)
    assert [pair.id for pair in pairs[:2]] == ["81/1/alpha/beta", "82/1/alpha/beta"]
    assert [pair.answers for pair in pairs[:3]] == [(0, 1), (0, 0), (0.5, 0)]
    assert all(map(math.isnan, pairs[3].answers))


def test_a_model_alone_is_no_id(tmp_path):
    row = {"p_ab": 0.3, "p_ba": 0.9, "model": "alpha"}
    assert [pair.id for pair in read(tmp_path / "a.jsonl", row, row)] == ["0", "1"]
    rows = [row | {"uid": uid, "model": model} for uid, model in (("u1", "alpha"), ("u1", "beta"), (2.0, "beta"))]
    assert [pair.id for pair in read(tmp_path / "b.jsonl", *rows)] == ["u1/alpha", "u1/beta", "2/beta"]
    rows = [row | {"prompt_id": 7}, row | {"prompt_id": None}]
    assert [pair.id for pair in read(tmp_path / "c.jsonl", *rows)] == ["7/alpha", "row 1"]


def test_a_prompt_may_have_several_pairs(tmp_path):
    rows = [{"prompt_id": "q", "p_ab": 0.3, "p_ba": 0.9, "Label": "maths"}] * 3
    assert [pair.id for pair in read(tmp_path / "a.jsonl", *rows)] == ["0", "1", "2"]
    assert len(read_judged(tmp_path / "a.jsonl")) == 3


@pytest.mark.parametrize("ids", [(None, None, None), (1.0, None, 3.0)])
def test_rows_without_an_id_are_named_as_pairs_are(tmp_path, ids):
    pairs = load_pairs([{"id": id, "prompt": "Q", "response_a": "x", "response_b": "y", "label": 1} for id in ids])
    found = read(tmp_path / "a.jsonl", *({"id": id, "p_ab": 0.3, "p_ba": 0.9} for id in ids))
    assert [pair.id for pair in found] == [pair.id for pair in pairs]


def test_votes_of_text_files_have_the_same_ids(tmp_path):
    (tmp_path / "r.csv").write_text("id,p_ab,p_ba\n1.0,0.3,0.6\n2.0,0.4,0.5\n")
    (tmp_path / "v.csv").write_text("id,votes_a,votes_b\n1.0,3,1\n2.0,0,4\n")
    assert [pair.label for pair in read_judged(tmp_path / "r.csv", votes=tmp_path / "v.csv")] == [0.25, 1.0]


@pytest.mark.parametrize("column", ["n_ties", "votes_bothbad"])
def test_counts_of_ties_under_another_name_are_an_error(tmp_path, column):
    judged, votes = tmp_path / "r.csv", tmp_path / "v.csv"
    judged.write_text(f"id,p_ab,p_ba,votes_a,votes_b,{column}\n1,0.3,0.6,1,1,8\n")
    votes.write_text(f"id,votes_a,votes_b,{column}\n1,1,1,8\n")
    expected = f"column {column!r} is beside votes_a and is not read; expected the name votes_tie, "
    for read in (lambda: read_judged(judged), lambda: judged_in_both_orders(judged)):
        with pytest.raises(DataError, match=rf"r\.csv: {expected}"):
            read()
    with pytest.raises(DataError, match=rf"v\.csv: {expected}"):
        read_judged(judged, votes=votes)
    votes.write_text("id,votes_a,votes_b,votes_tie\n1,1,1,8\n")
    assert read_judged(judged, votes=votes)[0].label == 0.5  # the counts beside the judgments are not used


def test_csv_in_any_case_and_with_words_for_null(tmp_path):
    path = tmp_path / "judgments.csv"
    path.write_text("ID,P_AB,P_BA,label\n1.0,nan,0.6,NA\n2.0,0.5,N/A,1\n")
    pairs = list(iter_recorded(path))
    assert [pair.id for pair in pairs] == ["1", "2"]
    for found in (pairs, read_judged(path)):
        assert [str(pair.answers) for pair in found] == ["(nan, 0.6)", "(0.5, nan)"]
    assert pairs[1].label == 1
    path.write_text("pair_id;verdict_ab;verdict_ba\n7.0;A;tie\n")
    assert [(pair.id, pair.answers) for pair in iter_recorded(path)] == [("7", (0, 0.5))]


def test_games_without_the_key_of_the_verdict_are_named(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"pair_id": "p", "judgments": [{"verdict": "A>B"}, {"verdict": "B>A"}]}))
    with pytest.raises(DataError, match=r"line 1: column 'judgments': .*a game with the key decision"):
        list(iter_recorded(path))
