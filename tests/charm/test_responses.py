import json

import numpy as np
import pytest

from autorater.charm.responses import Response, by_model, load_responses, matchups, responses_of, scores_of
from autorater.data.errors import DataError
from autorater.data.pairs import Pair

ROW = {"prompt": "Tea?", "model": "m-1", "response": "Yes."}


def jsonl(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_responses_are_read(tmp_path):
    path = jsonl(tmp_path / "r.jsonl", ROW, {**ROW, "model": "m-2", "response": "", "score": -1.5, "more": 3})
    assert load_responses(path) == [Response("Tea?", "m-1", "Yes."), Response("Tea?", "m-2", "", -1.5)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"response": None}, "line 2: column 'response': got None; expected text, empty or not"),
        ({"response": True}, "'response': got True"),
        ({"prompt": " "}, "'prompt': got ' '; expected text that is not blank"),
        ({"model": ""}, "'model': got ''"),
        ({"score": "high"}, "'score': got 'high'; expected a finite number"),
        ({"score": float("inf")}, "'score': got inf"),
        ({"response": "\ud800"}, "lone surrogates"),
        ({}, "'response': got 'Yes.'; expected no duplicate of an earlier row by 'm-1'"),
    ],
)
def test_bad_rows_are_refused(tmp_path, changes, message):
    path = jsonl(tmp_path / "r.jsonl", ROW, {**ROW, **changes})
    with pytest.raises(DataError, match=message) as refused:
        load_responses(path)
    assert str(path) in str(refused.value)


def test_bad_files_are_refused(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        load_responses(tmp_path / "r.jsonl")
    (tmp_path / "r.txt").write_text("")
    with pytest.raises(DataError, match=r"expected a name that ends in \.jsonl"):
        load_responses(tmp_path / "r.txt")
    with pytest.raises(DataError, match="no rows"):
        load_responses(jsonl(tmp_path / "r.jsonl"))
    with pytest.raises(DataError, match="line 1: column 'model' is missing"):
        load_responses(jsonl(tmp_path / "r.jsonl", {"prompt": "a"}))


def test_matchups_by_hand():
    pairs = [
        Pair("1", "p", "x", "y", 1.0, model_a="m", model_b="n"),
        Pair("2", "p", "y", "z", 1.0, model_a="n", model_b="o"),
        Pair("3", "q", "u", "v", 1.0, model_a="n", model_b="m"),
    ]
    responses = responses_of(pairs)
    assert [r.text for r in responses] == ["x", "y", "z", "u", "v"]
    scores = {r: float(i) for i, r in enumerate(responses)}
    scored = by_model([*responses, Response("p", "unscored", "x")], scores)
    mine, theirs = scores_of(matchups(scored, "m", "n"), scores)
    assert np.array_equal(mine, [0, 4])
    assert np.array_equal(theirs, [1, 3])
    assert matchups(scored, "o", "m")[0][1].text == "x"
    with pytest.raises(ValueError, match="no responses by 'nobody'; there are responses by m, n, o"):
        matchups(scored, "nobody", "m")
    with pytest.raises(ValueError, match="pair '9' has no model_a"):
        responses_of([Pair("9", "p", "x", "y", 1.0)])
