"""The scorer run by Inspect itself: its `eval` on a mock model, and `score` by its registered name."""

import numpy as np
import pytest

pytest.importorskip("inspect_ai")

from inspect_ai import Task
from inspect_ai import eval as inspect_eval
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import ChatMessageUser, ModelOutput, ModelUsage, get_model

from autorater.integrations.inspect_scorer import preferred
from tests.integrations.conftest import LengthJudge, preference

OUTPUTS = ["a", "abc", "unjudgeable"]


@pytest.fixture
def judge(monkeypatch):
    judge = LengthJudge()
    monkeypatch.setattr("autorater.integrations.preferences.open_judge", lambda name: judge)
    return judge


def run(samples, tmp_path, **options):
    outputs = [ModelOutput.from_content("mockllm/model", text) for text in OUTPUTS[: len(samples)]]
    for output in outputs:
        output.usage = ModelUsage()  # else a tokenizer is downloaded to count
    model = get_model("mockllm/model", custom_outputs=outputs)
    task = Task(dataset=MemoryDataset(samples), scorer=preferred("of this test", **options))
    (log,) = inspect_eval(task, model=model, log_dir=str(tmp_path), display="none", max_samples=1)
    return log


def test_inspect_eval_scores_a_mock_model(judge, tmp_path):
    chat = [ChatMessageUser(content="p")]
    log = run([Sample(input=prompt, target="xx") for prompt in ("p", chat, "p")], tmp_path)
    assert log.status == "success", log.error
    scores = [sample.scores["preferred"].value for sample in log.samples]
    expected = [preference("xx", text) for text in OUTPUTS[:2]]
    np.testing.assert_allclose(scores[:2], expected)
    assert np.isnan(scores[2])
    assert "no answer: unparsed" in str(log.samples[2].scores["preferred"])
    found = log.results.scores[0].metrics
    assert found["mean"].value == pytest.approx(np.mean(expected)), "unscored samples are left out"
    assert {texts for batch in judge.batches for texts in batch} == {("p", "xx", text) for text in OUTPUTS}


def test_a_reference_in_the_metadata_and_one_that_is_missing(judge, tmp_path):
    log = run([Sample(input="p", metadata={"best": "xx"})], tmp_path, against="best")
    assert log.samples[0].scores["preferred"].value == pytest.approx(preference("xx", "a"))
    log = run([Sample(input="p", id="s1", metadata={"best": None})], tmp_path, against="best")
    assert log.status == "error"
    assert "sample 's1' has no best" in log.error.message
