from contextlib import closing

from autorater.evaluation.judgment_store import JudgmentStore
from autorater.evaluation.requests import add_earlier_usage, answer_record
from autorater.judges.judgments import Answer
from autorater.judges.usage import Usage


def test_the_usage_of_an_earlier_run_is_that_of_its_requests(tmp_path):
    """A pointwise judge sends a request a response, and several pairs have one."""
    usage, answers = Usage(), [Answer("answered", 0.5, requests=n, prompt_tokens=10 * n) for n in (2, 1, 0)]
    with closing(JudgmentStore(tmp_path, 3, lambda record: record["number"], {})) as store:
        for number, answer in enumerate(answers):
            store.append(number, {"number": number} | answer_record(answer))
        add_earlier_usage(usage, store)
    assert (usage.requests, usage.prompt_tokens) == (3, 30)
    assert "requests" not in answer_record(answers[1])
