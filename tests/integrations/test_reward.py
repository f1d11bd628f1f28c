import asyncio
import math
import pickle
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from autorater.data.errors import DataError, UserError
from autorater.data.pairs import Pair
from autorater.integrations import AsyncJudgeReward, JudgeReward
from autorater.integrations.preferences import Preferences
from autorater.judges import Judge
from autorater.judges.client import EndpointError
from autorater.judges.pointwise import PointwiseJudge
from autorater.prompts.templates import PromptFormat
from tests.audit.conftest import serve  # noqa: F401  (fixture)
from tests.conftest import make_model, make_tokenizer
from tests.integrations.conftest import LengthJudge, preference
from tests.judges.test_endpoint import nowhere


def test_against_a_reference_both_orders_in_one_batch():
    judge = LengthJudge()
    reward = JudgeReward(judge, against="chosen")
    found = reward(["p", "p", "q"], ["a", "abc", "a"], chosen=["xx", "xx", "a"], completion_ids=[[1]] * 3)
    np.testing.assert_allclose(found, [preference("xx", "a"), preference("xx", "abc"), 0.5])
    assert [len(batch) for batch in judge.batches] == [2], "the equal texts are not judged"
    assert reward.preferences.n_judgments == 4
    assert reward.__name__ == "judge_reward"


@given(st.lists(st.text("ab", min_size=1, max_size=6), min_size=2, max_size=6), st.randoms())
def test_in_a_group_the_mean_against_the_others(completions, random):
    reward = JudgeReward(LengthJudge())
    found = reward(["p"] * len(completions), completions)
    for i, completion in enumerate(completions):
        others = [preference(c, completion) for j, c in enumerate(completions) if j != i]
        assert found[i] == pytest.approx(np.mean(others))
    assert np.mean(found) == pytest.approx(0.5)
    order = random.sample(range(len(completions)), len(completions))
    again = reward(["p"] * len(completions), [completions[i] for i in order])
    np.testing.assert_allclose(again, [found[i] for i in order])


def test_groups_are_told_by_prompt_and_duplicates_are_judged_once():
    judge = LengthJudge()
    prompts = [[{"role": "user", "content": p}] for p in "ppqqp"]
    completions = [[{"role": "assistant", "content": c}] for c in ("a", "abc", "a", "abcd", "a")]
    found = JudgeReward(judge)(prompts, completions)
    assert judge.batches == [[("p", "a", "abc"), ("q", "a", "abcd")]], "a single message is its content"
    low, high = preference("abc", "a"), preference("a", "abc")
    np.testing.assert_allclose(
        found, [(low + 0.5) / 2, high, preference("abcd", "a"), preference("a", "abcd"), (low + 0.5) / 2]
    )


def test_plain_and_conversational_forms_are_the_same():
    plain = JudgeReward(LengthJudge(), "best")(["p", "p"], ["a", "abc"], best=["xx", "xx"])
    messages = JudgeReward(LengthJudge(), "best")(
        [[{"role": "user", "content": "p"}]] * 2,
        [[{"role": "assistant", "content": c}] for c in ("a", "abc")],
        best=["xx", [{"role": "assistant", "content": "xx"}]],
    )
    assert plain == messages


def user(content):
    return {"role": "user", "content": content}


def assistant(content):
    return {"role": "assistant", "content": content}


SYSTEM = {"role": "system", "content": "Be brief."}


@pytest.mark.parametrize(
    ("prompt", "chosen", "reference"),
    [
        ("Why? ", [user(" Why?"), assistant("xx")], "xx"),
        ("Why?", [SYSTEM, user("Why?"), assistant("xx")], "xx"),
        ([user("Why?")], [user("Why?"), assistant("xx")], "xx"),
        ([SYSTEM, user("Why?")], [user("Why?"), assistant("xx")], "xx"),
        ([user("Hi"), assistant("Hi."), user("Hi")], [user("Hi"), assistant("Hi."), user("Hi"), assistant("x")], "x"),
        ([assistant("Hi."), user("Why?")], [assistant("Hi."), user("Why?"), assistant("xx")], "xx"),
        ("Why?", [assistant("x"), user("Why?")], (("assistant", "x"), ("user", "Why?"))),
    ],
)
def test_the_prompt_is_cut_from_a_reference_that_begins_with_it(prompt, chosen, reference):
    judge = LengthJudge()
    JudgeReward(judge, "chosen")([prompt], ["abc"], chosen=[chosen])
    assert judge.batches[0][0][1:] == (reference, "abc")


@pytest.mark.parametrize("chosen", [[user("Who?"), assistant("I.")], [user("Why?")], [SYSTEM], [user("x")]])
def test_a_reference_that_begins_with_another_prompt_is_an_error(chosen):
    expected = r"row 0 of the batch: column 'chosen': got \[\{'role'.*expected the answer alone, or the prompt and the"
    with pytest.raises(DataError, match=expected):
        JudgeReward(LengthJudge(), "chosen")(["Why?"], ["abc"], chosen=[chosen])


def test_logits_are_clipped():
    reward = JudgeReward(LengthJudge(), "best", value="logit", clip=0.2)
    found = reward(["p"] * 3, ["a" * 90, "", "ab"], best=["xx"] * 3)
    p = preference("xx", "")
    assert found == pytest.approx([math.log(4), math.log(p / (1 - p)), 0])
    for options in ({"clip": 0.1}, {"value": "logit", "clip": 0.5}, {"value": "odds"}):
        with pytest.raises(UserError):
            JudgeReward(LengthJudge(), **options)


def test_without_an_answer_the_reward_is_none(caplog):
    logged = {}
    reward = JudgeReward(LengthJudge())
    found = reward(["p"] * 3, ["a", "unjudgeable", "abc"], log_metric=logged.__setitem__)
    assert found[1] is None
    np.testing.assert_allclose([found[0], found[2]], [preference("abc", "a"), preference("a", "abc")])
    assert logged == {"judge_reward/unanswered": pytest.approx(1 / 3)}
    assert "1 of 3 completions have no answer" in caplog.text


def test_errors_say_what_to_do():
    reward = JudgeReward(LengthJudge())
    with pytest.raises(UserError, match=r"completion 2 is the only one of its prompt.*num_generations"):
        reward(["p", "p", "q"], ["a", "b", "c"])
    with pytest.raises(UserError, match=r"no column 'chosen'.*the dataset has: answer"):
        JudgeReward(LengthJudge(), "chosen")(["p"], ["a"], answer=["b"], trainer_state=object())
    with pytest.raises(DataError, match=r"row 1 of the batch: column 'chosen': got None"):
        JudgeReward(LengthJudge(), "chosen")(["p", "p"], ["a", "b"], chosen=["x", None])
    with pytest.raises(DataError, match="'prompt'"):
        reward([" ", " "], ["a", "b"])
    with pytest.raises(UserError, match="max_requests: only for a judge that is named endpoint"):
        JudgeReward(LengthJudge(), max_requests=1)
    with pytest.raises(UserError, match="base_url: no effect"):
        JudgeReward(LengthJudge(), base_url="http://x/v1")


def test_criteria_and_references_are_those_of_the_prompt(serve):  # noqa: F811
    rows = {"prompts": ["p", "p"], "completions": ["a", "b"]}
    for columns in ({"reference": [""] * 2}, {"criteria": [""] * 2}, {"reference": [float("nan")] * 2}):
        assert JudgeReward(LengthJudge())(**rows, **columns) == JudgeReward(LengthJudge())(**rows)
    with pytest.raises(DataError, match=r"column 'criteria': got \['x'\]; expected text"):
        JudgeReward(LengthJudge())(**rows, criteria=[["x"]] * 2)
    reward = JudgeReward("endpoint:m", base_url=serve().base_url)
    assert reward(**rows, reference=[42] * 2) == reward(**rows), "its template shows no reference"


def test_pairs_of_two_groups_are_two_pairs():
    judge = LengthJudge()
    pairs = [Pair(str(i), "p", "a", "abc", None, group=group) for i, group in enumerate(("women", "men", "men"))]
    Preferences(judge).of([*pairs, pairs[0].swapped()])
    assert len(judge.batches[0]) == 2


@pytest.mark.parametrize("against", ["group", "best"])
def test_a_judge_that_shows_the_group_of_annotators_gets_it(tmp_path, against):
    template = tmp_path / "by_group.txt"
    template.write_text("As {group}: {prompt} {response_a} {response_b}")

    class ByGroup(LengthJudge):
        prompt_format = PromptFormat(str(template))

        def probabilities(self, pairs, *, progress=False):
            self.shown = [self.prompt_format.values(pair)[0] for pair in pairs]
            return super().probabilities(pairs)

    judge = ByGroup()
    rows = {"prompts": ["p"] * 4, "completions": ["a", "abc"] * 2, "best": ["xx"] * 4}
    JudgeReward(judge, against)(**rows, group=["women", "women", 60, 60])
    assert set(judge.shown) == {"women", "60"}
    with pytest.raises(UserError, match=r"has no group.*expected a value in the column group"):
        JudgeReward(judge, against)(**rows)
    says_nothing = JudgeReward(LengthJudge(), against)
    assert says_nothing(**rows, group=[{"any": 1}, 1, 2, 3]) == says_nothing(**rows)


def test_a_server_that_is_not_there_ends_the_training():
    reward = JudgeReward("endpoint:m", "best", base_url=nowhere(), max_retries=0)
    with pytest.raises(EndpointError, match="is the server running"):
        reward(["p"] * 2, ["a", "b"], best=["c", "d"])


def test_a_recorded_judge_has_no_other_pairs(tmp_path):
    (tmp_path / "judged.jsonl").write_text('{"p_ab": 0.9, "p_ba": 0.1}\n')
    with pytest.raises(UserError, match="1 of 1 pairs are not in it"):
        JudgeReward(f"recorded:{tmp_path / 'judged.jsonl'}", "best")(["never seen"], ["a"], best=["b"])


def test_the_budget_of_judgments_stops_before_it_is_exceeded():
    judge = LengthJudge()
    reward = JudgeReward(judge, max_judgments=5)
    reward(["p", "p"], ["a", "b"])
    with pytest.raises(EndpointError, match="5 judgments is used up: 2 are made and 6 more"):
        reward(["p"] * 3, ["a", "b", "c"])
    assert len(judge.batches) == 1
    assert reward.preferences.n_judgments == 2


def test_the_budget_holds_for_several_threads():
    class SlowJudge(LengthJudge):
        def probabilities(self, pairs, *, progress=False):
            time.sleep(0.02)
            return super().probabilities(pairs)

    reward = JudgeReward(SlowJudge(), "best", max_judgments=6)

    def is_judged(i):
        try:
            return bool(reward([f"p{i}"], ["a"], best=["b"]))
        except EndpointError:
            return False

    with ThreadPoolExecutor(6) as threads:
        assert sum(threads.map(is_judged, range(6))) == 3
    assert reward.preferences.n_judgments == 6


def test_budgets_of_an_endpoint(serve):  # noqa: F811
    server = serve()
    options = {"base_url": server.base_url, "price_in": 1000, "price_out": 1000, "max_cost": 0.5, "concurrency": 1}
    reward = JudgeReward("endpoint:m", **options)  # 107 tokens, so 0.107 USD, a reply
    found = reward(["p", "p"], ["a", "b"])
    assert found[0] + found[1] == pytest.approx(1)
    with pytest.raises(EndpointError, match="the budget covers 3 of 6 requests"):
        reward(["p"] * 3, ["c", "d", "e"])
    assert reward.preferences.judge.usage.cost == pytest.approx(5 * 0.107)
    with pytest.raises(UserError, match="price_in or price_out"):
        JudgeReward("endpoint:m", max_cost=1.0, base_url=server.base_url)


def test_the_asynchronous_reward_gives_the_same(serve):  # noqa: F811
    from trl.trainer.utils import get_callable_name, is_async_callable

    reward = AsyncJudgeReward("endpoint:m", base_url=serve().base_url, name="preferred")
    assert is_async_callable(reward)
    assert get_callable_name(reward) == "preferred"
    found = asyncio.run(reward(prompts=["p", "p"], completions=["a", "b"]))
    assert found == JudgeReward(reward.preferences.judge)(prompts=["p", "p"], completions=["a", "b"])


@pytest.fixture(scope="module")
def local():
    tokenizer = make_tokenizer()
    return Judge(make_model("qwen", len(tokenizer)), tokenizer, PromptFormat("short"), answer_step=0.1)


def test_a_local_judge_is_picklable_and_leaves_out_what_is_too_long(local):
    reward = pickle.loads(pickle.dumps(JudgeReward(local, "best")))
    best = ["That one!"] * 2
    with torch.no_grad():
        found = reward(["Why?"] * 2, ["This one.", "long " * 2000], best=best)
    expected = local.probabilities([{"prompt": "Why?", "response_a": best[0], "response_b": "This one."}]).p_sym
    assert found == [pytest.approx(expected[0]), None]


def test_a_pointwise_judge():
    tokenizer = make_tokenizer()
    judge = PointwiseJudge(make_model("qwen", len(tokenizer)), tokenizer, scale=3.0)
    answers = ["This one.", "That one!", "No."]
    found = JudgeReward(judge)(["Why?"] * 3, answers)
    scores = judge.scores("Why?", answers)
    wins = 1 / (1 + np.exp(-3 * np.subtract.outer(scores, scores)))
    np.testing.assert_allclose(found, (wins.sum(axis=1) - 0.5) / 2, atol=1e-6)


def test_trl_trains_with_it(local, tmp_path):
    """Three steps of GRPO, one completion of each group without an answer."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    tokenizer = make_tokenizer()
    rewards = [JudgeReward(local), AsyncJudgeReward(LengthJudge(), "best", name="length")]
    trainer = GRPOTrainer(
        model=make_model("qwen", len(tokenizer)),
        processing_class=tokenizer,
        reward_funcs=rewards,
        args=GRPOConfig(
            str(tmp_path),
            per_device_train_batch_size=8,
            num_generations=4,
            max_completion_length=6,
            max_steps=2,
            logging_steps=1,
            report_to="none",
            use_cpu=True,
            bf16=False,
            save_strategy="no",
        ),
        train_dataset=Dataset.from_dict({"prompt": ["Why?", "Which is better?"] * 8, "best": ["This one."] * 16}),
    )
    trainer.train()
    log = trainer.state.log_history[0]
    assert log["rewards/judge_reward/mean"] == pytest.approx(0.5), "every win in a group is a loss of another"
    assert 0 < log["rewards/length/mean"] < 1
    assert log["judge_reward/unanswered"] == 0
