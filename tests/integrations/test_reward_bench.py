"""The judge in place of `rewardbench.generative.run_judge_pair`, with its arguments and results."""

import inspect
import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from autorater.integrations.preferences import ConcurrentPreferences
from autorater.integrations.reward_bench import RewardBenchJudge
from autorater.judges.client import EndpointError
from tests.integrations.conftest import LengthJudge, preference
from tests.judges.test_endpoint import quirky  # noqa: F401  (fixture)


def conversation(*texts):
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


@pytest.fixture
def judge(monkeypatch):
    judge = LengthJudge()
    monkeypatch.setattr("autorater.integrations.preferences.open_judge", lambda name: judge)
    return judge


def test_winners(judge):
    run_judge_pair = RewardBenchJudge()
    for a, b, winner in (("xx", "abc", "B"), ("abc", "xx", "A"), ("a", "a", "tie"), ("a", "unjudgeable", "error")):
        found = run_judge_pair("p", conversation("p", a), conversation("p", b), "of this test", multi_turn=False)
        text = "no answer: unparsed, or the prompt is too long" if winner == "error" else f"{preference(a, b):.4f}"
        assert found == (winner, "p", text)
        assert winner == "error" or not math.isnan(float(found[2]))
    turns = conversation("p", "Yes?", "q", "xx"), conversation("p", "Yes?", "q", "abc")
    assert run_judge_pair("p", *turns, "of this test", multi_turn=True)[0] == "B"
    ((prompt, *answers),) = judge.batches[-1]
    assert [message.content for message in prompt] == ["p", "Yes?", "q"]
    assert answers == ["xx", "abc"]


def test_threads_share_one_judge_and_its_budget(monkeypatch):
    arrived, opened = [], []
    all_arrived = threading.Event()

    class PatientJudge(LengthJudge):
        """The first batch waits for the pairs of all threads, which gather meanwhile."""

        def probabilities(self, pairs, *, progress=False):
            assert all_arrived.wait(timeout=300)
            return super().probabilities(pairs)

    judge, explained = PatientJudge(), ConcurrentPreferences.explained

    async def counted(self, pair):
        arrived.append(pair)
        if len(arrived) == 8:
            all_arrived.set()
        return await explained(self, pair)

    monkeypatch.setattr(ConcurrentPreferences, "explained", counted)

    def open_slowly(name):
        opened.append(name)
        time.sleep(0.05)
        return judge

    monkeypatch.setattr("autorater.integrations.preferences.open_judge", open_slowly)
    run_judge_pair = RewardBenchJudge(max_judgments=16)

    def winner(i):
        return run_judge_pair(f"p{i}", conversation("p", "xx"), conversation("p", "abc"), "of this test")[0]

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(winner, range(8))) == ["B"] * 8
    assert len(opened) == 1
    assert len(judge.batches) <= 2, "that of the first to arrive, and that of all who arrived while it was judged"
    with pytest.raises(EndpointError, match="16 judgments is used up"):
        winner(8)


def test_why_there_is_no_answer(quirky):  # noqa: F811
    server = quirky(lambda sent: (400, {"error": "the content filter says no"}))
    found = RewardBenchJudge(base_url=server.url)("p", conversation("p", "a"), conversation("p", "b"), "endpoint:m")
    assert found == ("error", "p", "no answer: 2 answers: refused: the server replied 400: the content filter says no")


def test_it_takes_the_arguments_of_rewardbench():
    package = find_spec("rewardbench")
    if package is None:
        pytest.skip("no rewardbench")
    # the package itself imports names that transformers 5 no longer has
    spec = spec_from_file_location("generative", Path(package.submodule_search_locations[0], "generative.py"))
    generative = module_from_spec(spec)
    spec.loader.exec_module(generative)
    theirs = list(inspect.signature(generative.run_judge_pair).parameters)
    assert list(inspect.signature(RewardBenchJudge.__call__).parameters)[1:] == theirs
    assert isinstance(generative.API_MODEL_LIST, tuple)
