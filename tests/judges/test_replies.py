import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autorater.judges.replies import error_reason, read_reply, tokens_in

USAGE = {"prompt_tokens": 300, "completion_tokens": 64}


def reply(content, finish="stop", **message):
    choice = {"message": {"role": "assistant", "content": content, **message}, "finish_reason": finish}
    return read_reply(json.dumps({"choices": [choice], "usage": USAGE}))


@pytest.mark.parametrize("text", [
    "", "{", "[]", "3", "null", '{"choices": []}', '{"choices": [{}]}', '{"choices": [{"message": "hi"}]}',
    '{"choices": [{"message": {"content": [1]}}]}', '{"choices": [{"message": {"content": 5}}]}', '{"result": "x"}',
])  # fmt: skip
def test_what_is_no_chat_completion_is_retried(text):
    found = read_reply(text)
    assert found.problem.startswith("the reply is no chat completion")
    assert found.retry


@pytest.mark.parametrize(("found", "reason", "retry"), [
    (reply(""), "the reply is empty, finish_reason stop", True),
    (reply("", "length"), "cut off at 64 tokens, finish_reason length; raise --max_answer_tokens", False),
    (reply(None, "content_filter"), "content_filter", False),
    (reply(None, reasoning_content="B is better"), "only reasoning (all of it in reasoning_content)", False),
    (reply(None, "length", reasoning="hm"), "cut off at 64 tokens (all of it in reasoning)", False),
    (reply(None, "tool_calls", tool_calls=[{"id": "1"}]), "tool call", False),
    (read_reply('{"error": {"message": "Insufficient credits", "code": 402}}'), "Insufficient credits", False),
    (read_reply('{"error": {"message": "upstream is busy", "code": 502}}'), "upstream is busy", True),
    (read_reply('{"choices": [{"message": {}, "error": {"message": "gone", "code": 502}}]}'), "gone", True),
    (read_reply('{"choices": [], "prompt_filter_results": [{"violence": {"filtered": true}}]}'), "filter", False),
])  # fmt: skip
def test_why_there_is_no_answer(found, reason, retry):
    assert reason in found.problem
    assert found.retry is retry


def test_the_visible_text():
    assert reply("0.7").text == "0.7"
    assert reply(None, refusal="I cannot").text == "I cannot"
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "0.7"}]
    assert reply(parts).text == "0.7"
    found = reply("half an ans", "length")
    assert (found.text, found.finish_reason, found.problem) == ("half an ans", "length", None)


@pytest.mark.parametrize("usage", [None, 3, {}, {"prompt_tokens": None}, {"prompt_tokens": "many"}])
def test_a_missing_usage_is_no_tokens(usage):
    body = {"choices": [{"message": {"content": "0.7"}}], "usage": usage}
    assert read_reply(json.dumps(body)).text == "0.7"
    assert tokens_in(json.dumps(body)) == (0, 0)


@pytest.mark.parametrize("body", [
    {"error": {"message": "REASON", "code": "x"}},
    {"object": "error", "message": "REASON", "type": "BadRequestError", "param": None, "code": 400},
    {"detail": "REASON"},
    {"detail": [{"type": "missing", "loc": ["body", "x"], "msg": "REASON"}]},
    {"error": "REASON", "error_type": "validation"},
    {"error": True, "message": "REASON"},
    {"error": "invalid_request", "error_description": "REASON"},
    {"type": "error", "error": {"type": "invalid_request_error", "message": "REASON"}},
    [{"error": {"code": 400, "message": "REASON", "status": "INVALID_ARGUMENT"}}],
    {"object": "error", "message": {"detail": [{"msg": "REASON"}]}, "type": "invalid_request_error"},
    {"title": "Invalid", "errors": {"max_tokens": ["REASON"]}},
    {"status": 400, "errors": ["REASON"]},
    "REASON",
])  # fmt: skip
def test_the_reason_in_an_error_body_of_any_shape(body):
    assert error_reason(json.dumps(body)) == "REASON"


def test_a_body_that_is_no_json():
    assert error_reason("404\n page not found") == "404 page not found"
    assert error_reason("") == "no reason"


KEYS = st.sampled_from(["choices", "message", "content", "error", "usage", "code", "x"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "message", "content", "error", "usage", "code", "x"]), inner, max_size=4
        )
    ),
)


@given(json_values)
def test_no_reply_raises(body):
    found = read_reply(json.dumps(body))
    assert found.text or found.problem
    assert error_reason(json.dumps(body))
