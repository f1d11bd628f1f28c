"""A judge behind a server answers as the local judge does: the server here computes with the same toy model."""

import json

import numpy as np
import pytest
import torch

from autorater.data.errors import UserError
from autorater.data.population import simulate_pairs
from autorater.judges import Judge
from autorater.judges.calibrators import LogitMap
from autorater.judges.client import EndpointError
from autorater.judges.served import ServedJudge, open_format
from autorater.judges.usage import Usage
from autorater.prompts.templates import PromptFormat
from tests.conftest import make_model, make_tokenizer
from tests.judges.test_endpoint import quirky  # noqa: F401  (fixture)


@pytest.fixture(scope="module", params=["split", "merged"])
def local(request, tmp_path_factory):
    tokenizer = make_tokenizer(request.param)
    torch.manual_seed(0)
    judge = Judge(make_model("qwen", len(tokenizer)), tokenizer, PromptFormat("short"), answer_step=0.1)
    judge.recalibration = LogitMap("odd_temperature", 0.5)
    folder = tmp_path_factory.mktemp("judge")
    judge.model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    judge.save_format(folder)
    judge.folder = str(folder)
    return judge


def completions(judge, limit=1000, as_ids=True, takes_ids=True):
    """What a server with the judge's model replies to a body of `/v1/completions`."""

    @torch.no_grad()
    def respond(sent):
        if "prompt" not in sent:
            return 404, {"detail": "Not Found"}
        if sent.get("logprobs", 0) > limit:
            return 400, {"error": {"message": f"at most {limit} logprobs"}}
        choices = []
        for index, ids in enumerate(sent["prompt"]):
            log_probs = judge.model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
            top = log_probs.topk(min(sent.get("logprobs", 1), len(log_probs)))
            pairs = list(zip(top.indices.tolist(), top.values.tolist(), strict=True))
            if takes_ids and "logprob_token_ids" in sent:
                pairs = [pairs[0], *((i, log_probs[i].item()) for i in sent["logprob_token_ids"])]
            named = {f"token_id:{i}" if as_ids else judge.tokenizer.decode([i]): value for i, value in pairs}
            text = judge.tokenizer.decode([int(top.indices[0])])
            choices.append({"index": index, "text": text, "logprobs": {"top_logprobs": [named]}})
        usage = {"prompt_tokens": sum(map(len, sent["prompt"])), "completion_tokens": len(choices)}
        return 200, {"choices": choices[::-1], "usage": usage}

    return respond


def served(judge, server, **options):
    return ServedJudge("m", base_url=f"{server.url}/v1", judge=open_format(judge.folder), **options)


@pytest.mark.parametrize("as_ids", [True, False])
def test_exact_answers_are_those_of_the_local_judge(local, quirky, as_ids):  # noqa: F811
    pairs = simulate_pairs(6, seed=1).pairs
    server = quirky(completions(local, as_ids=as_ids))
    judge = served(local, server)
    found, expected = judge.probabilities(pairs), local.probabilities(pairs)
    np.testing.assert_allclose(found.mean, expected.mean, atol=1e-5)
    np.testing.assert_allclose(found.valid, expected.valid, atol=1e-6)
    assert len(server.seen) == 1 + 12, "one probe, one request a prompt"
    assert judge.usage.prompt_tokens > 0


@pytest.mark.parametrize("as_list", [False, True])  # of several prompts, as older versions reply
def test_log_probabilities_in_the_form_of_llama_cpp(local, quirky, as_list):  # noqa: F811
    respond, pairs = completions(local), simulate_pairs(2, seed=1).pairs

    def as_llama_cpp(sent):
        status, body = respond(sent)
        for choice in body["choices"]:
            (top,) = choice["logprobs"]["top_logprobs"]
            listed = [{"id": int(key.removeprefix("token_id:")), "token": "x", "logprob": top[key]} for key in top]
            choice["logprobs"] = {"content": [{"token": choice["text"], "top_logprobs": listed}]}
        if as_list and len(sent["prompt"]) > 1:
            return status, [{"choices": [choice]} for choice in body["choices"]]
        return status, body

    found, expected = served(local, quirky(as_llama_cpp)).probabilities(pairs), local.probabilities(pairs)
    np.testing.assert_allclose(found.mean, expected.mean, atol=1e-5)
    np.testing.assert_allclose(found.valid, expected.valid, atol=1e-6)


def test_the_most_likely_tokens_alone_are_less_and_it_is_said(local, quirky, caplog):  # noqa: F811
    judge = served(local, quirky(completions(local, takes_ids=False)))
    judge.probabilities(simulate_pairs(1, seed=1).pairs)
    assert "the server gives only the 200 most likely next tokens" in caplog.text
    caplog.clear()
    judge = served(local, quirky(completions(local, limit=20, takes_ids=False)))
    judge.probabilities(simulate_pairs(1, seed=1).pairs)
    assert "the 20 most likely next tokens" in caplog.text
    assert "at most 20 logprobs" in caplog.text


@pytest.mark.parametrize("status", [400, 404, 405, 501])
def test_what_a_server_cannot_do_is_said(local, quirky, caplog, status):  # noqa: F811
    pairs = simulate_pairs(2, seed=1).pairs
    with pytest.raises(UserError, match=r"cannot be read exactly .*--read sampled"):
        served(local, quirky(lambda sent: (status, {"error": "prompt must be a text"}))).probabilities(pairs)

    def chat(sent):
        if "prompt" in sent:
            return status, {"error": "prompt must be a text"}
        message = {"role": "assistant", "content": "0.7</prob_rb_better>"}
        return 200, {"choices": [{"message": message, "finish_reason": "stop"}]}

    server = quirky(chat)
    judgments = served(local, server, read="sampled").probabilities(pairs)
    assert "asked by chat, with its own chat template and the answer tag prefilled" in caplog.text
    np.testing.assert_allclose(judgments.mean, local.recalibration(np.full((2, 2), 0.7)), atol=1e-6)
    last = server.seen[-1][2]
    assert last["messages"][-1] == {"role": "assistant", "content": "<prob_rb_better>"}
    assert (last["continue_final_message"], last["add_generation_prompt"]) == (True, False)
    with pytest.raises(UserError, match="does not continue an assistant turn"):
        served(local, quirky(lambda sent: (400, {"error": "no"})), read="sampled").probabilities(pairs)


def test_a_server_whose_reply_begins_a_new_turn_is_refused(local, quirky):  # noqa: F811
    def chat(sent):
        if "prompt" in sent:
            return 404, {"error": "no such path"}
        message = {"role": "assistant", "content": "<prob_rb_better>0.7</prob_rb_better>"}
        return 200, {"choices": [{"message": message, "finish_reason": "stop"}]}

    server = quirky(chat)
    with pytest.raises(UserError, match=r"continue an assistant turn \(its reply begins anew: '<prob_rb_better>0.7"):
        served(local, server, read="sampled").probabilities(simulate_pairs(9, seed=1).pairs)
    assert len(server.seen) == 3, "no more than the first request"


def test_sampled_answers_are_read_as_a_continuation(local, quirky):  # noqa: F811
    pairs = simulate_pairs(2, seed=1).pairs

    def respond(sent):
        assert isinstance(sent["prompt"][0][0], int)
        return 200, {"choices": [{"index": 0, "text": "0.25</prob_rb_better>", "finish_reason": "stop"}]}

    server = quirky(respond)
    judgments = served(local, server, read="sampled").probabilities(pairs)
    np.testing.assert_allclose(judgments.mean, local.recalibration(np.full((2, 2), 0.25)), atol=1e-6)
    # what a request leaves out vLLM takes from the generation_config of the model, such as a repetition penalty
    assert all((sent["repetition_penalty"], sent["top_p"], sent["top_k"]) == (1, 1, -1) for _, _, sent in server.seen)
    ids = local.encoder.encode(pairs)[0][0].ids
    assert json.dumps(ids) in [json.dumps(sent["prompt"][0]) for _, _, sent in server.seen[1:]]


@pytest.mark.parametrize("by_chat", [True, False])
def test_a_server_that_refuses_options_of_sampling_is_asked_without(local, quirky, by_chat):  # noqa: F811
    def respond(sent):
        if "top_k" in sent or ("prompt" in sent and by_chat):
            return 400, {"error": "unknown field"}
        answer = (
            {"text": "0.25</prob_rb_better>"}
            if "prompt" in sent
            else {"message": {"content": "0.25</prob_rb_better>"}}
        )
        return 200, {"choices": [{"index": 0, "finish_reason": "stop"} | answer]}

    judgments = served(local, quirky(respond), read="sampled").probabilities(simulate_pairs(2, seed=1).pairs)
    assert judgments.answered.all()


def test_reasoning_is_not_read_exactly(local, tmp_path):
    judge = Judge(local.model, local.tokenizer, PromptFormat("full", reasoning=True), answer_step=0.1)
    local.tokenizer.save_pretrained(tmp_path)
    judge.save_format(tmp_path)
    with pytest.raises(UserError, match="requires --read sampled"):
        ServedJudge("m", judge=open_format(str(tmp_path)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"read": "Exact"}, "read is 'Exact'; expected 'exact' or 'sampled'"),
        ({"temperature": 0.7}, "temperature and max_answer_tokens: no effect on exact answers"),
        ({"max_answer_tokens": 9}, "no effect on exact answers"),
        ({"concurrency": 0}, "concurrency = 0"),
    ],
)
def test_options_without_an_effect(local, options, message):
    with pytest.raises(UserError, match=message):
        ServedJudge("m", judge=open_format(local.folder), **options)
    assert ServedJudge("m", judge=open_format(local.folder), temperature=0.7, read="sampled").temperature == 0.7


def test_a_folder_without_a_format_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no autorater.json"):
        open_format(str(tmp_path))


@pytest.mark.parametrize("log_probs", [None, {"content": [{"token": "0", "logprob": -1.0}]}])
def test_a_server_without_log_probabilities(local, quirky, log_probs):  # noqa: F811
    server = quirky(lambda sent: (200, {"choices": [{"index": 0, "text": "0", "logprobs": log_probs}]}))
    with pytest.raises(UserError, match=r"cannot be read exactly .it returns no logprobs"):
        served(local, server).probabilities(simulate_pairs(1, seed=1).pairs)


@pytest.mark.parametrize("read", ["exact", "sampled"])
@pytest.mark.parametrize("status", [429, 503])
def test_a_failure_that_passes_changes_no_way(local, quirky, caplog, read, status):  # noqa: F811
    pairs, respond, failing = simulate_pairs(1, seed=1).pairs, completions(local), iter([True])
    server = quirky(lambda sent: (status, {"error": "busy"}) if next(failing, False) else respond(sent))
    served(local, server, read=read).probabilities(pairs)
    assert not [line for line in caplog.messages if line.startswith("the server")]
    assert {path for path, _, _ in server.seen} == {"/v1/completions"}
    assert read == "sampled" or all("logprob_token_ids" in sent for _, _, sent in server.seen)
    with pytest.raises(EndpointError, match=f"all 1 requests were refused; .*: the server replied {status}: busy"):
        served(local, quirky(lambda sent: (status, {"error": "busy"})), read=read, max_retries=0).probabilities(pairs)


def test_a_budget_that_is_used_up_before_the_first_request(local, quirky):  # noqa: F811
    judge = served(local, quirky(completions(local)), usage=Usage(requests=3, max_requests=3))
    with pytest.raises(EndpointError, match="the budget is used up"):
        judge.probabilities(simulate_pairs(1, seed=1).pairs)


@pytest.mark.parametrize(
    "log_probs", [None, {"top_logprobs": [{"token_id:5": None}]}, {"top_logprobs": [{"token_id:x": -1.0}]}]
)
def test_a_reply_without_log_probabilities_refuses_one_request(local, quirky, log_probs):  # noqa: F811
    respond, pairs = completions(local), simulate_pairs(2, seed=1).pairs
    bad = local.encoder.encode(pairs)[1][0].ids

    def broken(sent):
        status, body = respond(sent)
        if sent["prompt"][0] == bad:
            body["choices"][0]["logprobs"] = log_probs
        return status, body

    judgments = served(local, quirky(broken), max_retries=0).probabilities(pairs)
    assert (judgments.mean != 0.5).tolist() == [[True, True], [False, True]]
    assert judgments.valid[1, 0] == 0
