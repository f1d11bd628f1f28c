import asyncio
import email.utils
import http.server
import itertools
import json
import socket
import threading
import time
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from harness.fake_endpoint import merit

from autorater.data.errors import UserError
from autorater.data.pairs import Pair
from autorater.evaluation.stored_judgments import judge_in_store
from autorater.judges import client as client_module
from autorater.judges.client import EndpointError, retry_after
from autorater.judges.endpoint import EndpointJudge
from autorater.judges.judgments import Answer
from autorater.judges.replies import tokens_in
from autorater.judges.usage import Usage
from autorater.prompts.markers import without_control_tokens
from tests.audit.conftest import serve  # noqa: F401  (fixture)


def test_retry_after(monkeypatch):
    assert retry_after({"retry-after": "1.5"}) == 1.5
    assert retry_after({"retry-after-ms": "250", "retry-after": "9"}) == 0.25
    monkeypatch.setattr(client_module.time, "time", lambda: 1e9)
    date = email.utils.formatdate(1e9 + 30, usegmt=True)
    assert retry_after({"retry-after": date}) == 30
    assert retry_after({"retry-after": email.utils.formatdate(0, usegmt=True)}) == 0
    assert retry_after({"retry-after": "soon"}) is None
    assert retry_after({}) is None
    body = '[{"error": {"code": 429, "details": [{"@type": "…/google.rpc.RetryInfo", "retryDelay": "6.5s"}]}}]'
    assert retry_after({}, body) == 6.5
    assert retry_after({"retry-after": "2"}, body) == 2


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


def test_a_validity_that_the_judge_states_is_kept(tmp_path):
    class Stating(EndpointJudge):
        def ask_pairs(self, requests, receive):
            for key, _, _ in requests:
                receive(key, Answer.stated(0.7, 0.4))

    judge, pairs = Stating("m"), [Pair("0", "Why?", "a", "b", 0.5)]
    for judgments in (judge.probabilities(pairs), judge_in_store(judge, pairs, tmp_path, {})):
        assert judgments.mean.tolist() == [[0.7, 0.7]]
        assert judgments.valid.tolist() == [[0.4, 0.4]]


def test_retry_after_replaces_the_own_pauses(serve, monkeypatch):  # noqa: F811
    monkeypatch.setattr(client_module.random, "uniform", lambda *_: pytest.fail("a pause of its own"))
    server = serve("--status", 429)  # Retry-After: 0.01
    judge = EndpointJudge("m", base_url=server.base_url, max_retries=3, concurrency=1)
    answers = []
    with pytest.raises(
        EndpointError, match=r"all 1 requests were refused; .*: the server replied 429: no \(4 attempts a request\)"
    ):
        judge.ask([(0, "x")], lambda key, answer: answers.append(answer))
    assert answers[0].status == "refused"
    assert "429" in answers[0].error
    assert "4 attempts" in answers[0].error
    judge = EndpointJudge("m", base_url=server.base_url, max_wait=0.001)
    with pytest.raises(EndpointError, match="required a wait"):
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

    monkeypatch.setattr(client_module, "open_client", lambda _: Client())
    judge.ask([(0, "x")], lambda key, answer: None)
    assert sent == [{"model": "m", "messages": [{"role": "user", "content": "x"}], "max_completion_tokens": 9}]


class Quirks(http.server.BaseHTTPRequestHandler):
    """Replies with what the test has set; remembers paths, headers and bodies."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body at once: a body alone waits 40 ms for the client's delayed acknowledgement

    def log_message(self, *_):
        pass

    def do_POST(self):
        sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append((self.path, {name.lower(): value for name, value in self.headers.items()}, sent))
        status, body = self.server.respond(sent)
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def quirky():
    """Starts a server that answers with `respond(body of the request) -> (status, body)`."""
    servers = []

    def start(respond):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quirks)
        server.respond, server.seen = respond, []
        server.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def chat(content="<prob_rb_better>0.7</prob_rb_better>", finish="stop", tokens=(300, 64), **message):
    usage = dict(zip(("prompt_tokens", "completion_tokens"), tokens, strict=True))
    choice = {"message": {"role": "assistant", "content": content, **message}, "finish_reason": finish}
    return {"choices": [choice], "usage": usage}


def ask(server, n=1, path="/v1", **options):
    judge, answers = EndpointJudge("m", base_url=server.url + path, **options), []
    judge.ask(((i, f"message {i}") for i in range(n)), lambda key, answer: answers.append(answer))
    return judge, answers


def test_tokens_of_replies_without_an_answer_count_and_the_budget_holds(quirky):
    server = quirky(lambda sent: (200, chat("", "length")))
    judge, answers = ask(server, 9, usage=Usage(max_tokens=1000), concurrency=8, max_retries=3)
    assert len(server.seen) == judge.usage.requests == 3  # 3 x 364 tokens: at most one reply over the budget
    assert (judge.usage.prompt_tokens, judge.usage.completion_tokens) == (900, 192)
    assert all(answer.status == "refused" and "--max_answer_tokens" in answer.error for answer in answers)


@pytest.mark.parametrize("body", [{"max_tokens": None, "max_completion_tokens": 900}, {"max_tokens": 900}])
def test_the_budget_holds_for_answers_as_long_as_further_fields_allow(quirky, body):
    tokens = itertools.chain([(10, 1)], itertools.repeat((10, 900)))
    server = quirky(lambda sent: (time.sleep(0.1), (200, chat(tokens=next(tokens))))[1])  # requests overlap
    judge, _ = ask(server, 9, usage=Usage(max_tokens=1000), concurrency=8, extra_body=body)
    assert 1000 <= judge.usage.prompt_tokens + judge.usage.completion_tokens < 1000 + 910


def test_retried_replies_count(quirky):
    replies = iter([chat(""), chat()])
    judge, (answer,) = ask(quirky(lambda sent: (200, next(replies))))
    assert (answer.probability, answer.prompt_tokens) == (0.7, 300)
    assert (judge.usage.prompt_tokens, judge.usage.completion_tokens, judge.usage.retries) == (600, 128, 1)


@pytest.mark.parametrize("refused", ["max_tokens", "temperature"])
def test_a_refused_field_is_replaced_once_and_said(quirky, refused, caplog):
    message = {"max_tokens": "use max_completion_tokens instead", "temperature": "temperature 0 is not supported"}

    def respond(sent):
        return (400, {"error": {"message": message[refused]}}) if refused in sent else (200, chat())

    server = quirky(respond)
    _, answers = ask(server, 5, concurrency=1)
    assert [answer.probability for answer in answers] == [0.7] * 5
    assert len(server.seen) == 6
    assert caplog.text.count("the server refuses") == 1
    assert (server.seen[-1][2].get("max_completion_tokens") == 64) is (refused == "max_tokens")
    _, answers = ask(server, extra_body={refused: 0})  # the user's own choice stays
    assert message[refused] in answers[0].error


def test_a_field_that_is_refused_by_its_place_alone(quirky):
    field = {"type": "extra_forbidden", "loc": ["body", "temperature"], "msg": "Extra inputs are not permitted"}
    server = quirky(lambda sent: (422, {"detail": [field]}) if "temperature" in sent else (200, chat()))
    _, (answer,) = ask(server)
    assert answer.probability == 0.7


def test_a_prompt_that_is_too_long_is_refused_alone(quirky, caplog):
    reason = "'max_tokens' or 'max_completion_tokens' is too large: 64. This model's maximum context length is 4096"

    def respond(sent):
        is_long = int(sent["messages"][-1]["content"].split()[-1]) < 25
        return (400, {"error": {"message": reason}}) if is_long else (200, chat())

    server = quirky(respond)
    _, answers = ask(server, 30, concurrency=1)
    assert [answer.probability for answer in answers] == [None] * 25 + [0.7] * 5
    assert all("max_completion_tokens" not in body for *_, body in server.seen)
    assert "the server refuses" not in caplog.text


def test_a_field_that_a_server_requires_is_remembered(quirky):
    server = quirky(
        lambda sent: (
            (400, {"error": {"message": "use max_completion_tokens"}}) if "max_tokens" in sent else (200, chat())
        )
    )
    judge, _ = ask(server)
    judge.ask([(0, "again")], lambda key, answer: None)
    assert ["max_tokens" in body for *_, body in server.seen] == [True, False, False]


def test_a_budget_holds_where_no_tokens_are_reported(quirky, caplog):
    server = quirky(lambda sent: (200, {"choices": chat()["choices"]}))
    judge, _ = ask(server, 20, usage=Usage(max_tokens=200), concurrency=4)
    assert 1 < len(server.seen) < 10
    assert judge.usage.prompt_tokens > 0
    assert caplog.text.count("the server reports no tokens") == 1


def test_a_notebook_has_a_loop_of_its_own(quirky):
    server = quirky(lambda sent: (200, chat()))

    async def cell():
        return ask(server, 3)[1]

    assert [answer.probability for answer in asyncio.run(cell())] == [0.7] * 3


@pytest.mark.parametrize("number", ["NaN", "Infinity"])
def test_numbers_of_tokens_that_are_none(number):
    assert tokens_in(f'{{"usage": {{"prompt_tokens": {number}, "completion_tokens": 3}}}}') == (0, 3)


def test_the_query_of_an_address_and_headers(quirky):
    server = quirky(lambda sent: (200, chat()))
    ask(server, path="/openai/deployments/gpt?api-version=2024-10-21&raw=", headers={"api-key": "k", "X-Team": "a"})
    path, headers, _ = server.seen[0]
    assert path == "/openai/deployments/gpt/chat/completions?api-version=2024-10-21&raw="
    assert (headers["api-key"], headers["x-team"]) == ("k", "a")


def test_an_azure_deployment_gets_the_key_as_api_key(quirky, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    server = quirky(lambda sent: (200, chat()))
    ask(server, path="/openai/deployments/gpt?api-version=1")
    assert server.seen[0][1]["api-key"] == "secret"
    ask(server)
    assert "api-key" not in server.seen[1][1]


def test_prompts_that_the_server_cuts_are_warned_about(quirky, caplog):
    def respond(sent):
        return 200, chat(tokens=(min(len(sent["messages"][0]["content"]), limit), 9))

    limit = 60
    judge = EndpointJudge("m", base_url=quirky(respond).url)
    judge.ask(((i, "x" * (20 + 5 * i)) for i in range(20)), lambda *_: None)
    assert "12 of 20 prompts have exactly the largest number of tokens, 60: the server probably cuts" in caplog.text
    caplog.clear()
    limit = 1000
    judge.ask(((i, "x" * (20 + 5 * i)) for i in range(20)), lambda *_: None)
    assert "the server probably cuts" not in caplog.text


@pytest.mark.parametrize(
    ("status", "error", "message"),
    [
        (
            429,
            {"message": "pay", "type": "insufficient_quota", "code": None},
            "no credit: the server replied 429: pay",
        ),
        (402, {"message": "pay"}, "the account has no credit: the server replied 402: pay"),
        (200, {"message": "pay", "code": "insufficient_quota"}, "the account has no credit: the server replied: pay"),
        (
            400,
            {
                "type": "invalid_request_error",
                "message": "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing.",
            },
            "the account has no credit: the server replied 400: Your credit balance is too low",
        ),
        (
            403,
            "Your team 1-2 has either used all available credits or reached its monthly spending limit.",
            "the account has no credit: the server replied 403: Your team",
        ),
        (
            403,
            "Your newly created team doesn't have any credits or licenses yet. You can purchase those on https://x.",
            "the account has no credit: the server replied 403: Your newly",
        ),
        (200, {"message": "wrong key", "code": 401}, "the key was not accepted: the server replied: wrong key"),
        (200, "Unexpected endpoint or method. (POST /v1/x)", r"no such model or address: .*/v1/chat/completions, "),
    ],
)
def test_an_error_that_meets_every_request_ends_them_all(quirky, status, error, message):
    server = quirky(lambda sent: (status, {"error": error}))
    with pytest.raises(EndpointError, match=message):
        ask(server, 9, concurrency=1, max_retries=1)
    assert len(server.seen) == 1


def test_a_key_that_is_not_set_is_named_as_such(quirky, monkeypatch):
    server = quirky(lambda sent: (401, {"error": {"message": "Missing API key"}}))
    monkeypatch.setenv("OPENAI_API_KEY", "")
    with pytest.raises(EndpointError, match=r"Missing API key \(.*, no key is set in OPENAI_API_KEY\)"):
        ask(server)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    with pytest.raises(EndpointError, match=r"Missing API key \(.*, key from OPENAI_API_KEY\)"):
        ask(server)


def test_no_credit_after_an_answer_may_be_a_rate_limit(quirky):
    """Model Studio reports a rate limit in OpenAI's words for an account without credit."""
    error = {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}
    replies = iter([(200, chat()), (429, error), (200, chat())] + [(402, error)] * 2)
    server = quirky(lambda sent: next(replies))
    judge, answers = ask(server, 2, concurrency=1, max_retries=1)
    assert [answer.error for answer in answers] == [None, None]
    assert judge.usage.retries == 1
    with pytest.raises(EndpointError, match="the account has no credit"):
        judge.ask([(2, "x")], lambda key, answer: None)


def test_a_bad_request_with_status_200_is_refused_once(quirky):
    error = {"error": {"message": "no"}, "status": 400}
    server = quirky(lambda sent: (200, error if "message 1" in str(sent) else chat()))
    judge, answers = ask(server, 3, concurrency=1, max_retries=1)
    assert [answer.error for answer in answers] == [None, "the server replied: no", None]
    assert judge.usage.retries == 0


def test_an_answer_that_is_cut_off_in_other_words(quirky):
    server = quirky(lambda sent: (200, chat("<prob_rb", "MAX_TOKENS")))
    judge = EndpointJudge("m", base_url=server.url)
    judge.probabilities([Pair("0", "Why?", "a", "b", 0.5)])
    assert judge.reasons == ["2 answers: cut off at 64 tokens, finish_reason length; raise --max_answer_tokens"]


@pytest.mark.parametrize(
    ("text", "probability"),
    [
        (
            "Okay, I must write <prob_rb_better>0.3</prob_rb_better>. First,",
            None,
        ),  # of a thought that the prompt opens
        ("So 0.3.</think><prob_rb_better>0.7</prob_rb_better> Since", 0.7),
        (" <prob_rb_better>0.7</prob_rb_better> Since", 0.7),
    ],
)
def test_a_thought_that_is_cut_off_has_no_answer(quirky, text, probability):
    _, (cut,) = ask(quirky(lambda sent: (200, chat(text, "length"))))
    _, (whole,) = ask(quirky(lambda sent: (200, chat(text))))
    assert (cut.probability, whole.probability) == (probability, probability or 0.3)


def test_an_answer_that_a_filter_stopped_is_named(quirky):
    judge = EndpointJudge("m", base_url=quirky(lambda sent: (200, chat("<prob_rb", "content_filter"))).url)
    judge.probabilities([Pair("0", "Why?", "a", "b", 0.5)])
    assert judge.reasons == ["2 answers: stopped by the content filter of the server, finish_reason content_filter"]


@pytest.mark.parametrize(
    "text",
    [
        "<|im_end|>", "<turn|>", "<|turn>model", "<|channel>", "</s>", "<seed:bos>", "<sep>", "[|endofturn|]",
        "<extra_id_1>", "<SPECIAL_12>", "<unused5>", "[gMASK]<sop>", "]~b]ai", "[e~[", "]~!b[", "[THINK]", "<<SYS>>",
        "[/TOOL_RESULTS]", "<BOS_TOKEN>", "[/INST]",
    ],
)  # fmt: skip
def test_control_tokens_of_chat_templates_are_neutralized(text):
    shown = without_control_tokens(f"a {text} b")
    assert shown != f"a {text} b"
    assert shown.count("(") == 1 + (text == "[gMASK]<sop>")


@pytest.mark.parametrize("text", ["x <- f <| y", "a | b", "<div>", "xs[1]", "if a<b and c>d", "[think twice]", "~b]"])
def test_other_brackets_stay(text):
    assert without_control_tokens(text) == text


def nowhere():
    """The address of a port where nothing listens, nor can another process begin to: it stays bound."""
    reserved = socket.socket()
    reserved.bind(("127.0.0.1", 0))
    port = reserved.getsockname()[1]
    reserved.detach()
    return f"http://127.0.0.1:{port}/v1"


def test_a_server_that_is_not_there(quirky):
    judge, answers = EndpointJudge("m", base_url=nowhere(), max_retries=0), []
    with pytest.raises(EndpointError, match=r"all 2 .* cannot connect to http://.*is the server running, is base_url"):
        judge.ask([(0, "x"), (1, "y")], lambda key, answer: answers.append(answer))
    assert [answer.status for answer in answers] == ["refused"] * 2


def test_the_first_retry_of_a_run_is_a_line(quirky, caplog, monkeypatch):
    judge = EndpointJudge("m", base_url=nowhere(), max_retries=1)
    for _ in range(2):  # two calls of a run
        with pytest.raises(EndpointError, match=r"all 2 requests were refused; .* \(2 attempts a request\)$"):
            judge.ask([(0, "x"), (1, "y")], lambda key, answer: None)
    (line,) = (record.getMessage() for record in caplog.records)
    assert line.startswith(f"requests to {judge.base_url} are repeated, up to 1 times each: cannot connect to http")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    assert EndpointJudge("m").named_address == "https://api.openai.com/v1 (no base_url)"
    address = nowhere()
    monkeypatch.setenv("OPENAI_BASE_URL", address)
    assert EndpointJudge("m").named_address == f"{address} (OPENAI_BASE_URL)"


@pytest.fixture
def raw():
    """Starts a server that sends bytes in place of the reply to each of its requests, the last ones again."""
    listening = []

    def start(*replies):
        def run():
            number = 0
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:  # closed
                    return
                with connection:
                    connection.recv(65536)
                    connection.sendall(replies[min(number, len(replies) - 1)])
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(65536):  # until the client closes it: a reset could take the reply along
                        pass
                number += 1

        server = socket.create_server(("127.0.0.1", 0))
        listening.append(server)
        threading.Thread(target=run, daemon=True).start()
        return f"http://127.0.0.1:{server.getsockname()[1]}/v1"

    yield start
    for server in listening:
        server.shutdown(socket.SHUT_RDWR)
        server.close()


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nupstream error\r\n", "chunk size"),
        (b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 9000 + b"\r\nContent-Length: 2\r\n\r\n{}", "more than 8190 bytes"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}", "Content-Length"),
        (b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 2\r\n\r\n{}", "Invalid HTTP header"),
        (b"\x15\x03\x01\x00\x02\x02\x46", "Bad status line"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "Bad status line"),
        ("HTTP/1.1 400 Ungültig\r\nContent-Length: 2\r\n\r\n{}".encode("latin-1"), "surrogates not allowed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", "received 2 of 9 bytes"),
    ],
)
def test_a_reply_that_is_no_http_is_a_broken_connection(raw, reply, reason):
    body = json.dumps(chat()).encode()
    good = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    judge, answers = EndpointJudge("m", base_url=raw(reply, good), concurrency=1), []
    judge.ask([(0, "x")], lambda key, answer: answers.append(answer.probability))
    assert (answers, judge.usage.retries) == ([0.7], 1)
    judge = EndpointJudge("m", base_url=raw(reply), max_retries=0)
    with pytest.raises(EndpointError, match=f"^all 1 requests were refused; .*the connection failed .*{reason}") as e:
        judge.ask([(0, "x")], lambda key, answer: None)
    assert "\n" not in str(e.value)


def test_one_answer_shows_that_the_server_is_there(quirky):
    server = quirky(lambda sent: (403, {"error": "no"}) if "message 1" in str(sent) else (200, chat()))
    assert [answer.probability for answer in ask(server, 3, concurrency=1)[1]] == [0.7, None, 0.7]
    judge, answers = EndpointJudge("m", base_url=server.url), []
    for number in (0, 1):  # a call with one bad prompt, after one with an answer
        judge.ask([(number, f"message {number}")], lambda key, answer: answers.append(answer.probability))
    assert answers == [0.7, None]
    server = quirky(lambda sent: (403, {"error": "no access to this model"}))
    with pytest.raises(EndpointError, match=r"all 3 requests were refused; .*: the server replied 403: no access"):
        ask(server, 3)


@pytest.mark.parametrize("status", [400, 500, 504])
def test_a_deadline_of_a_proxy_is_no_fault_of_a_prompt(quirky, status):
    error = {"error": "Post http://model:8000: context deadline exceeded"}
    server = quirky(lambda sent: (status, error))
    with pytest.raises(EndpointError, match="20 requests in a row were refused"):
        ask(server, 22, concurrency=1, max_retries=0)
    assert len(server.seen) == 20


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize(
    "reason",
    [
        "llama runner process has terminated: error loading model: failed to initialize the context: failed to "
        "allocate compute pp buffers",  # Ollama
        "CUDA error: context is destroyed",
        "the tensor is too large for this device",
    ],
)
def test_a_dead_server_is_noticed_whatever_its_words(quirky, status, reason):
    server = quirky(lambda sent: (status, {"error": reason}))
    with pytest.raises(EndpointError, match="20 requests in a row were refused"):
        ask(server, 22, concurrency=1, max_retries=0)
    assert len(server.seen) == 20


@pytest.mark.parametrize("status", [200, 400, 429, 500])
@pytest.mark.parametrize(
    "reason",
    [
        "Context size has been exceeded.",  # llama.cpp
        "the context window is full",
        "input length and max_tokens exceed context limit",
        "input is too large to process",
        "Request too large for m on tokens per min (TPM): Limit 30, requested 40",  # OpenAI
        "context too long",
        {"message": "Prompt blocked by content policy", "code": "content_policy_violation"},
        "flagged by moderation",
    ],
)
def test_a_run_does_not_end_for_prompts_that_are_too_long_or_filtered(quirky, monkeypatch, status, reason):
    monkeypatch.setattr(client_module, "_FIRST_PAUSE", 0.0)
    server = quirky(lambda sent: (200, chat()) if "message 0" in str(sent) else (status, {"error": reason}))
    answers = ask(server, 22, concurrency=1, max_retries=0)[1]
    assert [answer.probability for answer in answers] == [0.7] + [None] * 21


def test_refusals_in_a_row_are_those_of_all_calls(quirky):
    answering = iter([True, *[False] * 19, True] + [False] * 20)
    server = quirky(lambda sent: (200, chat()) if next(answering) else (400, {"error": "no such option"}))
    judge = EndpointJudge("m", base_url=server.url)
    for _ in range(40):
        judge.ask([(0, "x")], lambda key, answer: None)
    with pytest.raises(
        EndpointError, match=r"20 requests in a row were refused; .*: the server replied 400: no such opti"
    ):
        judge.ask([(0, "x")], lambda key, answer: None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"concurrency": 0}, "concurrency = 0: expected a whole number, 1 or more"),
        ({"concurrency": "4"}, "concurrency = '4'"),
        ({"max_retries": -1}, "max_retries = -1"),
        ({"timeout": 0}, "timeout = 0: expected a number"),
        ({"base_url": "127.0.0.1:80/v1"}, "base_url 127.0.0.1:80/v1: expected an address such as http://"),
        ({"base_url": "http://127.0.0.1:port/v1"}, "expected an address"),
        ({"base_url": "http://.../v1"}, "expected an address"),
        ({"base_url": f"http://{'a' * 64}.com/v1"}, "expected an address"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(UserError, match=message):
        EndpointJudge("m", **options)


def test_keys_and_headers_that_cannot_be_sent(quirky, monkeypatch):
    server = quirky(lambda sent: (200, chat()))
    with pytest.raises(EndpointError, match="header X-Title has the character 'ü'; expected plain ASCII"):
        ask(server, headers={"X-Title": "Prüfung"})
    for key, wrong in (("sk-abc\n", r"'\\n'"), ("“sk-abc”", "'“'")):
        monkeypatch.setenv("OPENAI_API_KEY", key)
        with pytest.raises(EndpointError, match=f"the key in OPENAI_API_KEY has the character {wrong}"):
            ask(server)
    assert not server.seen


SECRETS = {"KEY": "gsk_a/secret+key", "HEADER": "dXNlcjpwYXNz==", "QUERY": "of+the+address=="}


@pytest.fixture
def secret(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRETS["KEY"])
    path = f"/v1?api-version=2024-10-21&subscription-key={SECRETS['QUERY']}"
    return {"path": path, "headers": {"Authorization": f"Basic {SECRETS['HEADER']}"}, "max_retries": 1}


@pytest.mark.parametrize("status", [200, 400, 401, 403, 503])
def test_secrets_that_a_server_repeats_are_in_no_reason(quirky, secret, caplog, monkeypatch, status):
    monkeypatch.setattr(client_module, "_FIRST_PAUSE", 0.01)
    padding = "." * 230  # the reason is cut, but not within a secret
    received = ", ".join([padding, *SECRETS.values(), *secret["headers"].values()])
    server = quirky(lambda sent: (status, json.dumps({"error": {"message": received}}).replace("/", "\\/")))
    answers = []
    judge = EndpointJudge("m", base_url=server.url + secret.pop("path"), **secret)
    try:
        judge.ask([(0, "x")], lambda key, answer: answers.append(answer.error))
    except EndpointError as error:
        answers.append(str(error))
    assert all(f"{padding}, …, …, …, …" in answer for answer in answers)
    shown = "\n".join([*answers, caplog.text, repr(judge)])
    assert not [name for name, value in SECRETS.items() if value[:6] in shown]
    assert status != 401 or "?api-version=2024-10-21&subscription-key=…, key from OPENAI_API_KEY" in shown
    path, headers, _ = server.seen[0]
    assert parse_qs(urlsplit(path).query)["subscription-key"] == ["of the address=="]
    assert headers["authorization"].endswith(SECRETS["HEADER"])


def test_a_query_in_the_form_that_was_sent_is_in_no_reason(quirky, caplog):
    server = quirky(lambda sent: (400, {"error": f"bad request {server.seen[-1][0]}"}))
    judge = EndpointJudge("m", base_url=f"{server.url}/v1?key=abc+def==&a=1", max_retries=0)
    answers = []
    judge.ask([(0, "x")], lambda key, answer: answers.append(answer.error))
    assert "?key=…&a=1" in answers[0]
    assert "abc" not in "".join([*answers, caplog.text])


def test_a_prompt_that_is_no_unicode_is_not_sent_again(quirky, caplog):
    server = quirky(lambda sent: (200, chat()))
    with pytest.raises(EndpointError, match="the request is not text in UTF-8"):
        EndpointJudge("m", base_url=f"{server.url}/v1").ask([(0, "q \ud83d")], lambda *_: None)
    assert not server.seen
    assert "repeated" not in caplog.text


def test_secrets_are_in_no_reason_of_a_broken_connection(secret, raw):
    location = f"ftp://x/?key={SECRETS['KEY'].replace('/', '%2F').replace('+', '%2B')}"
    url = raw(f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode())
    for address, reason in ((url, r"the connection failed \(ftp://x/\?key=…\)"), (nowhere(), "key=…")):
        judge = EndpointJudge("m", base_url=f"{address}?key={SECRETS['KEY']}", max_retries=0)
        with pytest.raises(EndpointError, match=reason) as error:
            judge.ask([(0, "x")], lambda *_: None)
        assert "gsk_" not in str(error.value)


@pytest.mark.parametrize("address", ["http://bob:hunter2@host/v1", "bob:hunter2@host/v1", "https://hunter2@[::1"])
def test_an_address_with_a_password_is_refused(address, monkeypatch):
    with pytest.raises(
        UserError, match=r"^base_url has a user or a password.*--header 'Authorization: Basic"
    ) as error:
        EndpointJudge("m", base_url=address)
    assert "hunter2" not in str(error.value)
    monkeypatch.setenv("OPENAI_BASE_URL", address)
    with pytest.raises(UserError, match=r"^OPENAI_BASE_URL has a user or a password"):
        EndpointJudge("m")
    EndpointJudge("m", base_url="http://host/accounts/@me/v1?to=a@b")


@pytest.mark.parametrize(("path", "route"), [
    ("/v1/chat/completions", "/chat/completions"),
    ("/v1/completions/", "/completions"),
    ("/openai/deployments/gpt-4o/chat/completions?api-version=1", "/chat/completions"),
])  # fmt: skip
def test_the_address_of_a_route_is_refused(path, route, monkeypatch):
    expected = f"http://host{path}: expected the address without {route}, which every request adds"
    with pytest.raises(UserError) as error:
        EndpointJudge("m", base_url=f"http://host{path}")
    assert str(error.value) == f"base_url {expected}"
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://host{path}")
    with pytest.raises(UserError) as error:
        EndpointJudge("m")
    assert str(error.value) == f"OPENAI_BASE_URL {expected}"
    EndpointJudge("m", base_url="http://host/completions/v1")


def test_a_name_that_is_repeated_in_a_query_is_refused():
    with pytest.raises(UserError, match=r"^base_url http://host/v1\?key=…&tag=&tag=b: got tag 2 times; expected it"):
        EndpointJudge("m", base_url="http://host/v1?key=k&tag=&tag=b")


def test_an_empty_address_of_the_environment_is_none(monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    judge = EndpointJudge("m")
    assert judge.named_address == "https://api.openai.com/v1 (no base_url)"
    assert str(client_module.open_client(judge).base_url) == "https://api.openai.com/v1/"
