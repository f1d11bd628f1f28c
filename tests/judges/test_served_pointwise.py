"""A pointwise judge behind a server answers as the local one does, and reads every response once."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from autorater.data.errors import UserError
from autorater.data.population import simulate_pairs
from autorater.judges.calibrators import LogitMap
from autorater.judges.client import EndpointError
from autorater.judges.judgments import Answer
from autorater.judges.pointwise import PointwiseJudge
from autorater.judges.served_pointwise import ServedPointwiseJudge, served_judge
from autorater.judges.usage import Usage
from autorater.prompts.templates import AS_IT_IS
from tests.conftest import make_model, make_tokenizer
from tests.judges.test_endpoint import quirky  # noqa: F401  (fixture)
from tests.judges.test_served import completions


@pytest.fixture(scope="module", params=["split", "merged"])
def local(request, tmp_path_factory):
    tokenizer = make_tokenizer(request.param)
    torch.manual_seed(0)
    judge = PointwiseJudge(make_model("qwen", len(tokenizer)), tokenizer, scale=3.0)
    judge.recalibration = LogitMap("odd_temperature", 0.5)
    folder = tmp_path_factory.mktemp("judge")
    tokenizer.save_pretrained(folder)
    judge.save_format(folder)
    judge.folder = str(folder)
    return judge


def served(judge, server, **options):
    return served_judge("m", judge.folder, base_url=f"{server.url}/v1", **options)


@pytest.fixture
def pairs():
    found = simulate_pairs(4, seed=1).pairs
    return [*found, replace(found[0], id="again", response_b=found[0].response_a), found[1]]


def test_exact_scores_are_those_of_the_local_judge(local, quirky, pairs):  # noqa: F811
    server = quirky(completions(local))
    judge = served(local, server)
    assert isinstance(judge, ServedPointwiseJudge)
    found, expected = judge.probabilities(pairs), local.probabilities(pairs)
    np.testing.assert_allclose(found.mean, expected.mean, atol=1e-5)
    np.testing.assert_allclose(found.valid, expected.valid, atol=1e-6)
    np.testing.assert_allclose(found.mean.sum(axis=1), 1, atol=1e-6)
    distinct = {(pair.prompt, text) for pair in pairs for text in (pair.response_a, pair.response_b)}
    assert len(server.seen) == 1 + len(distinct) == 1 + judge.n_requests(pairs), "one probe, one request a response"
    assert len(server.seen[1][2]["prompt"]) == judge.prompts_per_request
    judge.probabilities(pairs)
    assert len(server.seen) == 1 + len(distinct), "what was read is not read again"


def test_requests_and_their_tokens_count_once(local, quirky, pairs):  # noqa: F811
    server = quirky(completions(local))
    judge, answers = served(local, server), {}
    judge.ask_pairs(((i, pair, AS_IT_IS) for i, pair in enumerate(pairs)), answers.__setitem__)
    assert sum(answer.requests for answer in answers.values()) == len(server.seen) - 1 == judge.n_requests(pairs)
    probe = len(local.encoder.encode(pairs[:1])[0][0].ids)
    assert sum(answer.prompt_tokens for answer in answers.values()) == judge.usage.prompt_tokens - probe
    assert sorted(answers) == list(range(len(pairs)))


def test_a_refused_response_refuses_its_pairs(local, quirky, pairs):  # noqa: F811
    respond = completions(local)
    bad = local.encoder.encode(pairs[2:3])[0][1].ids

    def refusing(sent):
        refused = sent["prompt"][0][: len(bad)] == bad
        return (400, {"error": {"message": "too long"}}) if refused else respond(sent)

    answers: dict[int, Answer] = {}
    judge = served(local, quirky(refusing))
    judge.ask_pairs(((i, pair, AS_IT_IS) for i, pair in enumerate(pairs)), answers.__setitem__)
    assert [answers[i].status for i in range(len(pairs))] == ["answered"] * 2 + ["refused"] + ["answered"] * 3
    assert "too long" in answers[2].error


def test_a_budget(local, quirky, pairs):  # noqa: F811
    judge = served(local, quirky(completions(local)), usage=Usage(max_requests=4), concurrency=1)
    with pytest.raises(EndpointError, match="the budget covers 2 of 12 requests"):
        judge.probabilities(pairs)


def test_it_is_not_sampled(local):
    with pytest.raises(UserError, match="leave out --read sampled"):
        served_judge("m", local.folder, read="sampled")
