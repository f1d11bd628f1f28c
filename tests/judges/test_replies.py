import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autorater.judges.replies import (
    error_reason,
    error_status,
    next_tokens_in,
    read_completions,
    read_reply,
    tokens_in,
)

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
    (read_reply('{"choices": [{"error": {"message": "too long", "code": 400}}]}'), "too long", False),
    (reply(None, reasoning_details=[{"type": "reasoning.text", "text": "hm"}]), "in reasoning_details", False),
    (reply([{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]), "all of it in content", False),
    (reply(None, "function_call", function_call={"name": "f"}), "tool call", False),
    (read_reply('{"choices": [{"index": 0, "finish_reason": "length"}]}'), "cut off", False),
    (read_reply('{"choices": [{"message": null, "finish_reason": "content_filter"}]}'), "content filter", False),
])  # fmt: skip
def test_why_there_is_no_answer(found, reason, retry):
    assert reason in found.problem
    assert found.retry is retry


@pytest.mark.parametrize("word", [
    "max_tokens", "MAX_TOKENS", "FINISH_REASON_MAX_TOKENS", "model_length", "max_output_tokens", "LENGTH",
    "model_context_window_exceeded",
])  # fmt: skip
def test_other_words_for_a_cut_off(word):
    found = reply("", word)
    assert found.problem == f"cut off at 64 tokens, finish_reason {word}; raise --max_answer_tokens"
    assert (found.finish_reason, found.retry) == ("length", False)
    assert reply("half an ans", word).finish_reason == "length"


@pytest.mark.parametrize("word", [
    "SAFETY", "RECITATION", "FinishReason.SPII", "content_filter: PROHIBITED_CONTENT", "content-filter", "refusal",
    "blocked", "guardrail_intervened", "sensitive", "CONTENT_FILTERED",
])  # fmt: skip
def test_other_words_for_a_filter(word):
    found = reply(None, word)
    assert found.problem == f"the content filter of the server stopped the answer, finish_reason {word}"
    assert (found.finish_reason, found.retry) == ("content_filter", False)


@pytest.mark.parametrize("word", ["stop", "STOP", "eos", "end_turn", "error", "network_error", "OTHER", "abort", None])
def test_words_that_are_neither(word):
    found = reply("", word)
    assert found.problem == f"the reply is empty, finish_reason {word}"
    assert (found.finish_reason, found.retry) == (word, True)


@pytest.mark.parametrize("kind", ["completion", "output"])
@pytest.mark.parametrize(("reasoning", "is_all"), [(64, True), (70, True), (63, False), (0, False), (None, False)])
def test_reasoning_that_used_up_the_budget(kind, reasoning, is_all):
    usage = {**USAGE, f"{kind}_tokens_details": {"reasoning_tokens": reasoning}}
    choice = {"message": {"content": ""}, "finish_reason": "stop"}
    found = read_reply(json.dumps({"choices": [choice], "usage": usage}))
    only = f"the reply is only reasoning ({reasoning} tokens), finish_reason stop; raise --max_answer_tokens"
    assert found.problem == (only if is_all else "the reply is empty, finish_reason stop")
    assert found.retry is not is_all


@pytest.mark.parametrize("usage", [
    3, {"completion_tokens_details": 3}, {"completion_tokens_details": {"reasoning_tokens": "many"}},
])  # fmt: skip
def test_a_usage_of_another_form_reports_no_reasoning(usage):
    body = {"choices": [{"message": {"content": ""}, "finish_reason": "stop"}], "usage": usage}
    assert read_reply(json.dumps(body)).problem == "the reply is empty, finish_reason stop"


def test_the_visible_text():
    assert reply("0.7").text == "0.7"
    assert reply(None, refusal="I cannot").text == "I cannot"
    assert reply([{"type": "refusal", "refusal": "I "}, {"type": "refusal", "refusal": "cannot"}]).text == "I cannot"
    assert reply([{"type": "refusal", "refusal": "I cannot"}, {"type": "text", "text": "0.7"}]).text == "0.7"
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "0.7"}]
    assert reply(parts).text == "0.7"
    assert reply([{"text": "hm", "thought": True}, {"text": "0."}, {"text": None}, {"text": "7"}]).text == "0.7"
    for choice in ({"delta": {"content": "0.7"}}, {"text": "0.7"}, {"message": None, "text": "0.7"}):
        assert read_reply(json.dumps({"choices": [choice]})).text == "0.7"
    found = reply("half an ans", "length")
    assert (found.text, found.finish_reason, found.problem) == ("half an ans", "length", None)


@pytest.mark.parametrize("usage", [None, 3, {}, {"prompt_tokens": None}, {"prompt_tokens": "many"}])
def test_a_missing_usage_is_no_tokens(usage):
    body = {"choices": [{"message": {"content": "0.7"}}], "usage": usage}
    assert read_reply(json.dumps(body)).text == "0.7"
    assert tokens_in(json.dumps(body)) == (0, 0)


@pytest.mark.parametrize(("usage", "tokens"), [
    ({"input_tokens": 300, "output_tokens": 64}, (300, 64)),
    ({"prompt_tokens": "300", "completion_tokens": "64"}, (300, 64)),
    ({"prompt_tokens": 0, "completion_tokens": None, "input_tokens": 300, "output_tokens": "64"}, (300, 64)),
    ({"prompt_tokens": 10**400, "completion_tokens": -1}, (0, 0)),
    ({"prompt_tokens": 32, "completion_tokens": 9, "total_tokens": 900}, (32, 868)),  # xAI
    ({"prompt_tokens": 32, "total_tokens": 900}, (32, 868)),
    ({"prompt_tokens": 32, "completion_tokens": 9, "total_tokens": 30}, (32, 9)),
    ({"completion_tokens": 9, "total_tokens": 900}, (0, 9)),
])  # fmt: skip
def test_other_forms_of_usage(usage, tokens):
    assert tokens_in(json.dumps({"usage": usage})) == tokens


@pytest.mark.parametrize(("body", "status", "retry"), [
    ({"error": {"message": "REASON", "code": "insufficient_quota"}}, 402, False),
    ({"error": {"message": "REASON", "type": "insufficient_quota", "code": 429}}, 402, False),
    ({"error": {"message": "REASON", "status": 400}}, 400, False),
    ({"error": {"message": "REASON"}, "code": "400"}, 400, False),
    ({"error": "REASON", "status": 400}, 400, False),
    ({"error": {"message": "REASON", "type": "invalid_request_error"}}, 400, False),
    ({"error": {"message": "REASON", "status": "INVALID_ARGUMENT"}}, 400, False),
    ({"error": {"message": "REASON", "type": "invalid_request_error", "code": 401}}, 401, False),
    ({"object": "error", "message": "REASON", "code": 400}, 400, False),
    ({"status": "429", "msg": "REASON", "body": None}, 429, True),
    ({"error": {"message": "REASON", "code": 503}}, 503, True),
    ({"error": "REASON"}, 200, True),
    ({"error": {"message": "REASON", "code": 1113}}, 200, True),
    ({"choices": None, "base_resp": {"status_code": 1004, "status_msg": "REASON"}}, 200, True),
    ({"detail": "REASON"}, 200, True),
])  # fmt: skip
def test_an_error_in_a_reply_with_status_200(body, status, retry):
    for found in (read_reply(json.dumps(body)), read_completions(json.dumps(body), 1)):
        assert (found.problem, found.status, found.retry) == ("the server replied: REASON", status, retry)


def test_an_error_without_a_reason_is_shown_itself():
    assert read_reply('{"error": {"code": 5}}').problem == 'the server replied: {"error": {"code": 5}}'
    assert len(read_reply(json.dumps({"error": "x\n" * 1000})).problem) < 330


@pytest.mark.parametrize("error", [None, "", {}, [], False, {"message": "", "code": None}])
def test_an_empty_error_is_none(error):
    choice = {"message": {"content": "0.7"}, "text": "0.7", "index": 0, "finish_reason": "stop"}
    for body in ({"choices": [choice], "error": error}, {"choices": [choice | {"error": error}]}):
        for found in (read_reply(json.dumps(body)), read_completions(json.dumps(body), 1)):
            assert (found.text, found.problem, found.finish_reason) == ("0.7", None, "stop")


@pytest.mark.parametrize("value", ["[" * 900 + "]" * 900, '{"error": ' * 900 + "{}" + "}" * 900, "1" + "0" * 400])
def test_nesting_and_numbers_beyond_what_python_takes(value):
    bodies = [value, *(f'{{"choices": [], "{name}": {value}}}' for name in ("x", "error", "code", "usage"))]
    choice = {"index": 0, "message": {}, "text": "", "x": "VALUE"}
    for log_probs in ({"top_logprobs": [{"a": "VALUE"}]}, {"content": [{"top_logprobs": ["VALUE"]}]}):
        body = {"choices": [choice | {"logprobs": log_probs}]}
        bodies.append(json.dumps(body).replace('"VALUE"', value))
    for body in bodies:
        assert read_reply(body).problem
        assert read_completions(body, 1, log_probs=True).problem
        assert error_reason(body)
        assert error_status(body, 429) == 429


def test_the_time_for_a_page_does_not_grow_with_the_square_of_its_length():
    start = time.process_time()
    assert error_reason("<title>" * 50_000).startswith("<title>")
    assert time.process_time() - start < 20, "milliseconds, or minutes"


def test_the_status_of_an_error():
    assert error_status('{"error": {"type": "insufficient_quota", "code": null}}', 429) == 402
    assert error_status('{"error": {"code": 400}}', 503) == 503
    assert error_status('{"error": {"code": 402}}', 403) == 402
    assert error_status('{"error": {"code": 402}}', 503) == 503  # that of a server behind it
    limit = {"code": 429, "message": "You exceeded your current quota, see billing", "status": "RESOURCE_EXHAUSTED"}
    assert error_status(json.dumps({"error": limit}), 429) == 429  # Gemini
    assert error_status("busy", 429) == 429


def test_an_error_in_a_choice_of_completions():
    choices = [{"index": 0, "text": "0"}, {"index": 1, "text": "", "error": {"message": "gone", "code": 502}}]
    found = read_completions(json.dumps({"choices": choices}), 2)
    assert (found.problem, found.status, found.retry) == ("the server replied: gone", 502, True)


def test_a_list_of_completions():
    """Older llama.cpp replies so to several prompts."""
    usage = {"prompt_tokens": 30, "completion_tokens": 1}
    bodies = [{"choices": [{"index": i, "text": str(i)}], "usage": usage} for i in (1, 0, 2)]
    found = read_completions(json.dumps(bodies), 3)
    assert (found.problem, [choice["text"] for choice in found.choices]) == (None, ["0", "1", "2"])
    assert (found.prompt_tokens, found.completion_tokens) == (90, 3)
    assert read_completions(json.dumps(bodies), 2).problem == "3 completions for 2 prompts"
    failed = read_completions(json.dumps([*bodies, {"error": {"message": "gone", "code": 502}}]), 4)
    assert (failed.problem, failed.retry) == ("the server replied: gone", True)
    assert read_completions("[]", 1).problem.startswith("the reply is no completion")


def test_next_tokens_in_the_form_of_chat():
    top = [{"token": "a", "logprob": -1.0}, {"token": "a", "logprob": -2.0}, {"id": 7, "token": "b", "logprob": -3.0}]
    content = [{"token": "a", "logprob": -1.0, "top_logprobs": top}]
    assert next_tokens_in({"logprobs": {"content": content}}) == {"a": -1.0, "token_id:7": -3.0}
    for log_probs in (None, {}, {"content": []}, {"content": [{"token": "a"}]}, {"top_logprobs": [None]}):
        assert next_tokens_in({"logprobs": log_probs}) is None


@pytest.mark.parametrize("raw", [
    "too many images", '{"error": {"message": "too many images", "code": null}}', {"message": "too many images"},
])  # fmt: skip
def test_the_reason_of_the_provider(raw):
    error = {"message": "Provider returned error", "code": 400, "metadata": {"raw": raw, "provider_name": "x"}}
    assert error_reason(json.dumps({"error": error})) == "Provider returned error: too many images"
    assert read_reply(json.dumps({"error": error})).problem.endswith("Provider returned error: too many images")


@pytest.mark.parametrize("body", [
    {"error": {"message": "REASON", "code": "x"}},
    {"object": "error", "message": "REASON", "type": "BadRequestError", "param": None, "code": 400},
    {"detail": "REASON"},
    {"detail": [{"type": "missing", "loc": [], "msg": "REASON"}]},
    {"error": "REASON", "error_type": "validation"},
    {"error": True, "message": "REASON"},
    {"error": "invalid_request", "error_description": "REASON"},
    {"type": "error", "error": {"type": "invalid_request_error", "message": "REASON"}},
    [{"error": {"code": 400, "message": "REASON", "status": "INVALID_ARGUMENT"}}],
    {"object": "error", "message": {"detail": [{"msg": "REASON"}]}, "type": "invalid_request_error"},
    {"title": "Invalid", "errors": {"max_tokens": ["REASON"]}},
    {"status": 400, "errors": ["REASON"]},
    {"code": 400, "param": None, "problems": [{"message": "REASON"}]},
    "REASON",
])  # fmt: skip
def test_the_reason_in_an_error_body_of_any_shape(body):
    assert error_reason(json.dumps(body)) == "REASON"


@pytest.mark.parametrize("body", [
    {"message": "GENERAL", "errors": {"max_tokens": ["REASON"]}},  # Laravel
    {"message": "GENERAL", "errors": [{"message": "REASON"}]},  # GitHub
    {"error": {"message": "GENERAL", "details": [{"@type": "x", "fieldViolations": [{"description": "REASON"}]}]}},
    {"error": {"code": "BadRequest", "message": "GENERAL", "innererror": {"message": "REASON"}}},  # Azure
    {"error": {"message": "GENERAL", "details": "REASON"}},
    {"error": "GENERAL", "reason": "REASON"},
    {"error": {"message": "GENERAL", "param": {"error": "REASON"}}},  # Vercel
    {"error": {"message": "GENERAL", "param": [{"errors": [[{"message": "REASON", "path": ["x"]}]]}]}},  # Vercel
    {"error": {"message": "GENERAL", "cause": {"name": "x", "message": "REASON"}}},
    {"error": {"message": "GENERAL", "details": [{"message": "GENERAL: REASON", "reason": "REASON"}]}},
])  # fmt: skip
def test_a_general_reason_with_a_more_specific_one(body):
    assert error_reason(json.dumps(body)) == "GENERAL: REASON"


def test_the_name_of_a_field_is_no_reason():
    error = {"message": "REASON", "type": "invalid_request_error", "param": "max_tokens", "code": None}
    assert error_reason(json.dumps({"error": error})) == "REASON"


@pytest.mark.parametrize("key", ["errors", "details", "detail", "innererror", "reason", "param", "cause"])
def test_the_time_for_a_reason_does_not_double_with_its_depth(key):
    body = "REASON"
    for _ in range(60):
        body = {key: [body]}
    start = time.process_time()
    assert error_reason(json.dumps(body)) == "REASON"
    assert error_reason(json.dumps(body).replace("REASON", "")).startswith("{")
    assert time.process_time() - start < 20, "milliseconds, or years"


def test_the_reason_names_the_field_that_is_wrong():
    """As FastAPI does, by itself and in Mistral's error."""
    fields = [
        {"type": "extra_forbidden", "loc": ["body", "tools", 0, "x"], "msg": "Extra inputs are not permitted"},
        {"type": "missing", "loc": ["body", "model"], "msg": "Field required"},
    ]
    expected = "body.tools.0.x: Extra inputs are not permitted; body.model: Field required"
    for body in ({"detail": fields}, {"object": "Error", "detail": fields}, {"message": {"detail": fields}}):
        assert error_reason(json.dumps(body)) == expected


def test_a_body_that_is_no_json():
    assert error_reason("404\n page not found") == "404 page not found"
    assert error_reason("") == "no reason"
    assert (
        error_reason("<html>\n<head><title>502 Bad\nGateway</title></head><body>…</body></html>") == "502 Bad Gateway"
    )


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


@pytest.mark.parametrize(
    ("top", "reason"),
    [
        ({"0": 0.9, "1": 0.1}, "log-probabilities are up to 0.9; expected none above 0"),
        ({"0": -0.01, "1": -0.02}, "add up to 1.97"),
    ],
)
def test_numbers_that_are_no_log_probabilities(top, reason):
    body = {"choices": [{"index": 0, "text": "0", "logprobs": {"top_logprobs": [top]}}]}
    reply = read_completions(json.dumps(body), 1, log_probs=True)
    assert reason in reply.problem
    assert not reply.retry


def test_rounded_log_probabilities_are_read():
    body = {"choices": [{"index": 0, "text": "0", "logprobs": {"top_logprobs": [{"0": 1e-3, "1": -9999.0}]}}]}
    assert read_completions(json.dumps(body), 1, log_probs=True).problem is None
