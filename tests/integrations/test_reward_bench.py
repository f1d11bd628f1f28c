"""The judge in place of `rewardbench.generative.run_judge_pair`, with its arguments and results."""

import inspect
import math
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from autorater.integrations.reward_bench import RewardBenchJudge
from tests.integrations.conftest import LengthJudge, preference


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
        text = "no answer" if winner == "error" else f"{preference(a, b):.4f}"
        assert found == (winner, "p", text)
        assert winner == "error" or not math.isnan(float(found[2]))
    turns = conversation("p", "Yes?", "q", "xx"), conversation("p", "Yes?", "q", "abc")
    assert run_judge_pair("p", *turns, "of this test", multi_turn=True)[0] == "B"
    ((prompt, *answers),) = judge.batches[-1]
    assert [message.content for message in prompt] == ["p", "Yes?", "q"]
    assert answers == ["xx", "abc"]


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
