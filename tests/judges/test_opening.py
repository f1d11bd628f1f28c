"""A judge is opened by its name; options without an effect on it are refused; a recorded file is a judge."""

import json
from dataclasses import replace

import numpy as np
import pytest

from autorater.data.errors import UserError
from autorater.data.loading import as_pairs
from autorater.judges.endpoint import EndpointJudge
from autorater.judges.opening import open_judge

ROWS = [
    {"id": "x", "prompt": "Why?", "response_a": "a", "response_b": "b"},
    {"id": "y", "prompt": "How?", "response_a": "c", "response_b": "d"},
]


def write(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)))
    return f"recorded:{path}"


def test_an_endpoint_and_its_options():
    judge = open_judge("endpoint:m", base_url="http://localhost/v1", system_prompt="Be fair.", prompt_template="full")
    assert isinstance(judge, EndpointJudge)
    assert (judge.model, judge.prompt_format.system_prompt) == ("m", "Be fair.")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("endpoint:m", {"device": "cpu"}, "device: no effect on the judge endpoint:m"),
        ("endpoint:m", {"judge_format": "x", "criteria": "c"}, "criteria: no effect on the judge endpoint:m with"),
        ("endpoint:m", {"read": "sampled"}, "read: no effect on the judge endpoint:m without judge_format"),
        ("runs/x", {"read": "sampled"}, "read: no effect on the judge runs/x"),
        ("recorded:x", {"read": "exact"}, "read: no effect on the judge recorded:x"),
        (
            "endpoint:m",
            {"base_ur": "http://x"},
            "unknown option base_ur for the judge endpoint:m; did you mean base_url",
        ),
        ("endpoint:m", {"prompt_format": None}, "unknown option prompt_format"),
        ("recorded:x", {"base_url": "http://x"}, "base_url: no effect on the judge recorded:x"),
        ("recorded:x", {"criteria": "c"}, "criteria: no effect"),
        ("runs/x", {"timeout": 3.0}, "timeout: no effect on the judge runs/x"),
        ("recorded:nowhere.jsonl", {}, "nowhere.jsonl: no such file"),
    ],
)
def test_options_without_an_effect(name, options, message):
    with pytest.raises(UserError, match=message):
        open_judge(name, **options)


def test_recorded_judgments_are_found_by_id_or_by_texts(tmp_path):
    pairs = as_pairs(ROWS)
    by_id = [{"id": "y", "p_ab": 0.2, "p_ba": 0.7}, {"id": "x", "p_ab": 0.9, "p_ba": None}]
    judgments = open_judge(write(tmp_path / "a.jsonl", by_id)).probabilities(pairs)
    np.testing.assert_allclose(judgments.mean, [[0.9, 0.5], [0.2, 0.7]])
    np.testing.assert_allclose(judgments.valid, [[1, 0], [1, 1]])
    by_texts = [row | judged | {"id": str(i)} for i, (row, judged) in enumerate(zip(ROWS, by_id[::-1], strict=True))]
    judge = open_judge(write(tmp_path / "b.jsonl", by_texts))
    np.testing.assert_allclose(judge.probabilities(pairs).mean, judgments.mean)
    swapped = [replace(pair.swapped(), id="0") for pair in pairs]  # an id of another pair
    np.testing.assert_allclose(judge.probabilities(swapped).mean, judgments.mean[:, ::-1])
    with pytest.raises(UserError, match=r"b\.jsonl: 1 of 3 pairs are not in it, by id or texts, first 'z'"):
        judge.probabilities([*pairs, replace(pairs[0], id="z", response_a="other")])


def test_predictions_of_a_run_and_of_one_order_are_a_judge(tmp_path):
    predictions = [
        {"id": "x", "order": "ab", "probability": 0.25, "valid": 0.9},
        {"id": "x", "order": "ba", "probability": 0.5, "valid": "yes"},
        {"id": "y", "order": "ab", "probability": None},
        {"id": "y", "order": "ba", "probability": 0.75},
    ]
    judge = open_judge(write(tmp_path / "a.jsonl", predictions))
    assert not judge.one_order
    np.testing.assert_allclose(judge.probabilities(ROWS).mean, [[0.25, 0.5], [0.5, 0.75]])
    np.testing.assert_allclose(judge.probabilities(ROWS).valid, [[0.9, 1], [0, 1]])
    judge = open_judge(write(tmp_path / "b.jsonl", [{"id": "x", "probability": 0.25}]))
    assert judge.one_order
    np.testing.assert_allclose(judge.probabilities(ROWS[:1]).mean, [[0.25, 0.75]])
    judge = open_judge(write(tmp_path / "c.jsonl", [{"id": "x", "order": "ba", "probability": 0.25, "valid": 0.5}]))
    assert judge.one_order
    assert judge.probabilities(ROWS[:1]).valid.tolist() == [[0.5, 0.5]]
    np.testing.assert_allclose(judge.probabilities(ROWS[:1]).mean, [[0.75, 0.25]])
