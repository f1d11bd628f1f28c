"""`compute_score` called as verl's reward loop does: by keywords, one coroutine a sample, kwargs of the config."""

import asyncio
import inspect
from functools import partial

import pytest

from autorater.data.errors import DataError, UserError
from autorater.integrations import verl
from autorater.judges.client import EndpointError
from tests.audit.conftest import serve  # noqa: F401  (fixture)
from tests.integrations.conftest import LengthJudge, preference


def score_all(kwargs, samples):
    score = partial(verl.compute_score, **kwargs)
    assert inspect.iscoroutinefunction(score), "verl calls others in a thread"

    async def all_samples():
        found = (
            score(data_source="d", solution_str=y, ground_truth=r, extra_info={"question": x, "num_turns": None})
            for x, y, r in samples
        )
        return await asyncio.gather(*found)

    return asyncio.run(all_samples())


def test_samples_that_wait_together_are_one_batch(monkeypatch):
    judge = LengthJudge()
    monkeypatch.setattr("autorater.integrations.preferences.open_judge", lambda name: judge)
    kwargs = {"judge": "of this test"}
    samples = [("p", "a", "xx"), ("p", "abc", "xx"), ("p", "unjudgeable", "xx")]
    found = score_all(kwargs, samples)
    expected = [preference("xx", y) for _, y, _ in samples[:2]]
    assert [row["score"] for row in found] == pytest.approx([*expected, 0.5])
    assert [row["judged"] for row in found] == [1, 1, 0]
    assert score_all(kwargs, samples) == found, "in another event loop"
    assert [len(batch) for batch in judge.batches] == [3, 3]


def test_the_prompt_is_cut_from_a_reference_that_begins_with_it(monkeypatch):
    judge = LengthJudge()
    monkeypatch.setattr("autorater.integrations.preferences.open_judge", lambda name: judge)
    asked, answered = {"role": "user", "content": "p"}, {"role": "assistant", "content": "xx"}
    score_all({"judge": "of this test"}, [("p", "a", [asked, answered])])
    assert judge.batches == [[("p", "xx", "a")]]
    with pytest.raises(DataError, match=r"column 'ground_truth': got .* expected the answer alone"):
        score_all({"judge": "of this test"}, [("q", "a", [asked, answered])])


def test_a_judge_on_the_server_that_verl_runs(serve):  # noqa: F811
    address = serve().base_url.removeprefix("http://").removesuffix("/v1")
    kwargs = {"judge": "endpoint:m", "reward_router_address": address, "reward_model_tokenizer": None}
    (found,) = score_all(kwargs | {"value": "logit", "max_requests": 2}, [("p", "a", "xx")])
    assert found["score"] != 0
    with pytest.raises(EndpointError, match="the budget covers 0 of 2 requests"):
        score_all(kwargs | {"value": "logit", "max_requests": 2}, [("p", "a", "xx")])


def test_a_missing_prompt_is_named():
    with pytest.raises(UserError, match=r"no 'query' with the prompt; it has .*question"):
        score_all({"judge": "endpoint:m", "prompt_key": "query"}, [("p", "a", "xx")])
