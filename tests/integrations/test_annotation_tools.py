"""Suggestions are valid by the tools' own packages, and what people answer there is read as votes."""

import json
import math

import pytest

from autorater import Pair, load_pairs
from autorater.data.messages import text_or_messages
from autorater.integrations.argilla import QUESTION, suggested_records
from autorater.integrations.label_studio import CONFIG, predicted_tasks

CHAT = text_or_messages([{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Yes?"}], "prompt")
PAIRS = [
    Pair("p1", "Why?", "Because.", "For two reasons.", None),
    Pair("p2", "When?", "Now.", "Then.", None),
    Pair("p3", CHAT, "a", "b", None),
]
PROBABILITIES = [0.8, 0.3, math.nan]


def test_argilla_records():
    rg = pytest.importorskip("argilla")
    from argilla.records._io import GenericIO  # what `dataset.records.to_list` calls

    written = json.loads(json.dumps(suggested_records(PAIRS, PROBABILITIES, agent="runs/grpo")))
    records = [rg.Record.from_dict(record) for record in written]
    for record, p in zip(records[:2], PROBABILITIES, strict=False):
        (suggestion,) = record.suggestions
        assert (suggestion.value, suggestion.score, suggestion.agent) == ("AB"[p > 0.5], max(p, 1 - p), "runs/grpo")
        record.api_model()  # the schema of the server
        assert record.metadata["probability_b"] == p
    assert list(records[2].suggestions) == []

    votes = ["B", "tie", "A"]
    answers = [{QUESTION: [{"value": vote, "status": "submitted", "user_id": "00000000-0000-0000-0000-000000000001"},
                           {"value": "A", "status": "draft", "user_id": "00000000-0000-0000-0000-000000000002"}]}
               for vote in votes]  # fmt: skip
    answered = [rg.Record.from_dict(row | {"responses": given}) for row, given in zip(written, answers, strict=True)]
    pairs = load_pairs(GenericIO.to_list(answered, flatten=True))
    assert [(pair.id, pair.label, pair.n_votes) for pair in pairs] == [("p1", 1, 1), ("p2", 0.5, 1), ("p3", 0, 1)]
    assert pairs[2].prompt == CHAT


def test_label_studio_tasks():
    sdk = pytest.importorskip("label_studio_sdk.label_interface")
    tasks = json.loads(json.dumps(predicted_tasks(PAIRS, PROBABILITIES, model_version="runs/grpo")))
    interface = sdk.LabelInterface(CONFIG)
    interface.validate()
    for task, p in zip(tasks[:2], PROBABILITIES, strict=False):
        assert interface.validate_task({"data": task["data"]})
        (prediction,) = task["predictions"]
        assert interface.validate_prediction(prediction)
        assert prediction["result"][0]["value"] == {"selected": "right" if p > 0.5 else "left"}
        assert prediction["score"] == max(p, 1 - p)
    assert "predictions" not in tasks[2]

    for number, (task, side) in enumerate(zip(tasks, ("right", "left", "left"), strict=True)):
        result = {"from_name": "preference", "to_name": "response_a", "type": "pairwise", "value": {"selected": side}}
        task |= {"id": number, "annotations": [{"result": [result], "was_cancelled": False, "completed_by": 1}]}
        assert interface.validate_annotation(task["annotations"][0])
    assert [pair.label for pair in load_pairs(tasks)] == [1, 0, 0]


def test_a_tie_is_no_preference_for_b():
    (record,), (task,) = suggested_records(PAIRS[:1], [0.5], "m"), predicted_tasks(PAIRS[:1], [0.5], "m")
    assert record["suggestions"][QUESTION]["value"] == "tie"
    assert "predictions" not in task
