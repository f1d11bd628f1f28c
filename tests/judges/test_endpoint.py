import email.utils
import time

import numpy as np
import pytest
from harness.fake_endpoint import merit

from autorater.data.errors import UserError
from autorater.data.pairs import Pair
from autorater.judges.endpoint import EndpointJudge, Usage, _parse_reply, retry_after
from tests.audit.conftest import serve  # noqa: F401  (fixture)


def test_retry_after():
    assert retry_after({"retry-after": "1.5"}) == 1.5
    assert retry_after({"retry-after-ms": "250", "retry-after": "9"}) == 0.25
    date = email.utils.formatdate(time.time() + 30, usegmt=True)
    assert retry_after({"retry-after": date}) == pytest.approx(30, abs=2)
    assert retry_after({"retry-after": email.utils.formatdate(0, usegmt=True)}) == 0
    assert retry_after({"retry-after": "soon"}) is None
    assert retry_after({}) is None


@pytest.mark.parametrize("reply", [
    "", "{", "[]", "3", "null", '{"choices": []}', '{"choices": [{}]}', '{"choices": [{"message": "hi"}]}',
    '{"choices": [{"message": {"content": ""}}]}', '{"choices": [{"message": {"content": [1]}}]}',
    '{"choices": [{"message": {"content": "x"}}], "usage": 3}', '{"result": "x"}',
])  # fmt: skip
def test_a_reply_that_is_no_chat_completion_is_retried(reply):
    with pytest.raises(Exception, match="the reply is") as caught:
        _parse_reply(reply)
    assert caught.value.retry


def test_what_is_one_is_parse_reply():
    reply = '{"choices": [{"message": {"content": "<think>hm</think><prob_rb_better>.7</prob_rb_better>"}}]}'
    assert (_parse_reply(reply).status, _parse_reply(reply).probability) == ("answered", 0.7)
    refusal = _parse_reply(
        '{"choices": [{"message": {"content": null, "refusal": "I cannot"}, "finish_reason": "stop"}]}'
    )
    assert (refusal.status, refusal.text) == ("unparsed", "I cannot")


def test_it_is_a_judge_of_pairs(serve):  # noqa: F811
    judge = EndpointJudge("m", base_url=serve("--shift", 0.5).base_url)
    pairs = [Pair(str(i), "Why?", f"a{i}", f"b{i}", 0.5) for i in range(7)]
    pairs.append(Pair("7", "unreadable", "a", "b", 0.5))
    judgments = judge.probabilities(pairs)
    expected = [1 / (1 + np.exp(merit(p.response_a) - merit(p.response_b) - 0.5)) for p in pairs[:7]]
    np.testing.assert_allclose(judgments.p_ab[:7], expected, atol=0.0051)
    assert judgments.valid.tolist() == [[1, 1]] * 7 + [[0, 0]]
    assert judgments.mean[7].tolist() == [0.5, 0.5]
    assert judge.usage.requests == 16


def test_retry_after_replaces_the_own_pauses(serve):  # noqa: F811
    server = serve("--status", 429)  # Retry-After: 0.01
    judge = EndpointJudge("m", base_url=server.base_url, max_retries=3, concurrency=1)
    answers = []
    start = time.monotonic()
    judge.ask([(0, "x")], lambda key, answer: answers.append(answer))
    assert time.monotonic() - start < 2, "its own pauses would take seconds"
    assert answers[0].status == "refused"
    assert "429" in answers[0].error
    assert "4 times" in answers[0].error
    judge = EndpointJudge("m", base_url=server.base_url, max_wait=0.001)
    judge.ask([(0, "x")], lambda key, answer: answers.append(answer))
    assert "required a wait" in answers[1].error


def test_the_budget_holds(serve):  # noqa: F811
    server = serve()
    judge = EndpointJudge("m", base_url=server.base_url, usage=Usage(max_requests=5), concurrency=3)
    with pytest.raises(UserError, match="the budget covers 5 of 8 requests"):
        judge.probabilities([Pair(str(i), "Why?", f"a{i}", f"b{i}", 0.5) for i in range(4)])
    assert server.stats()["requests"] == 5


def test_extra_body_replaces_and_removes_fields(serve, monkeypatch):  # noqa: F811
    judge = EndpointJudge(
        "m", base_url=serve().base_url, temperature=None, extra_body={"max_tokens": None, "max_completion_tokens": 9}
    )
    sent = []

    class Client:
        async def post(self, path, cast_to, body):
            sent.append(body)
            return '{"choices": [{"message": {"content": "<prob_rb_better>1</prob_rb_better>"}}]}'

        async def __aenter__(self):
            return self

        async def __aexit__(self, *_):
            pass

    monkeypatch.setattr(judge, "_client", Client)
    judge.ask([(0, "x")], lambda key, answer: None)
    assert sent == [{"model": "m", "messages": [{"role": "user", "content": "x"}], "max_completion_tokens": 9}]
