"""The reward functions, called as a trainer calls them."""

import copy
import math
import pickle
import subprocess
import sys
from collections import defaultdict

import numpy as np
import pytest

import rewards
from rewards import (
    BrierReward,
    KLReward,
    LogReward,
    RankedProbabilityReward,
    SphericalReward,
    VotesReward,
    brier_reward,
    kl_reward,
    log_reward,
    spherical_reward,
)

ALL = [brier_reward, log_reward, spherical_reward, kl_reward, RankedProbabilityReward(3)]


def message(text: str) -> list[dict]:
    return [{"role": "assistant", "content": text}]


def answered(value: str) -> str:
    return f"<think>…</think><prob_rb_better>{value}</prob_rb_better>"


@pytest.mark.parametrize(
    ("reward", "expected"),
    [
        (brier_reward, [0.96, 0.36, 0.91, 0.0]),
        (log_reward, [math.log(0.8), math.log(0.2), (math.log(0.8) + math.log(0.2)) / 2, math.log(1e-3)]),
        (spherical_reward, [4 / 17**0.5, 1 / 17**0.5, 2.5 / 17**0.5, 0.0]),
        (kl_reward, [math.log(0.8), math.log(0.2), math.log(2 * 0.8**0.5 * 0.2**0.5), math.log(1e-3)]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
@pytest.mark.parametrize("wrap", [str, message])
def test_rewards_of_a_batch(reward, expected, wrap):
    completions = [wrap(answered("0.8"))] * 3 + [wrap("B is better")]
    scores = reward(
        prompts=["?"] * 4,
        completions=completions,
        label=[1, 0, 0.5, 1.0],
        completion_ids=[[1]] * 4,
        topic=["code"] * 4,
        trainer_state=None,
        environments=None,
    )
    assert all(type(score) is float for score in scores)
    assert scores == pytest.approx(expected, abs=1e-15)


def test_the_call_and_the_score_agree():
    values, labels = [0.0, 0.25, 1.0], [1.0, 0.5, 0.0]
    for reward in ALL[:4]:
        scores = reward(completions=[answered(str(value)) for value in values], label=labels)
        assert scores == reward.score(values, labels).tolist()
        assert reward(completions=["?"] * 3, label=labels) == reward.invalid_score(labels).tolist()


def test_ordered_classes():
    reward = RankedProbabilityReward(3)
    answer = "<class_probabilities>0.2 0.3 0.5</class_probabilities>"
    labels = [2, 0.0, [1, 1, 2], (0.25, 0.25, 0.5), np.array([0, 0, 5]), 2]
    scores = reward(completions=[answer] * 5 + [answered("0.5")], label=labels)
    assert scores == pytest.approx([0.855, 0.555, 0.99875, 0.99875, 0.855, 0.0], abs=1e-12)


def test_prefilling_is_detected_per_row():
    plain = "Which is better?"
    prompts = [plain, f"{plain} <prob_rb_better>", message(" <prob_rb_better>\n"), f"{plain} <class_probabilities>"]
    assert brier_reward(prompts=prompts, completions=["1</prob_rb_better>"] * 4, label=[1] * 4) == [0.0, 1.0, 1.0, 0.0]
    continued = ["0 0 1</class_probabilities>"] * 4
    assert RankedProbabilityReward(3)(prompts=prompts, completions=continued, label=[2] * 4) == [0.0, 0.0, 0.0, 1.0]


def test_without_prompts_nothing_is_prefilled():
    assert brier_reward(completions=[answered("1"), "1</prob_rb_better>"], label=[1, 1]) == [1.0, 0.0]


@pytest.mark.parametrize("reward", ALL, ids=repr)
def test_an_empty_batch(reward):
    assert reward(prompts=[], completions=[], label=[]) == []


@pytest.mark.parametrize(
    "label", [None, math.nan, math.inf, -0.01, 1.01, 2, "0.5", "", [0.5], np.array([0.1, 0.2]), 1j, {}]
)
@pytest.mark.parametrize("reward", ALL[:4], ids=repr)
def test_invalid_label(reward, label):
    with pytest.raises(ValueError, match="row 1, column 'label'") as caught:
        reward(completions=[answered("0.5")] * 2, label=[1, label])
    assert repr(label) in str(caught.value)


@pytest.mark.parametrize(
    "label",
    [None, math.nan, 3, -1, 0.5, "1", [1, 1], [0, 0, 0], [1, -1, 1], [1, None, 0], [math.inf, 0, 0], [[1, 0, 0]]],
)
def test_invalid_class(label):
    with pytest.raises(ValueError, match="row 0, column 'label'") as caught:
        RankedProbabilityReward(3)(completions=["?"], label=[label])
    assert repr(label) in str(caught.value)


@pytest.mark.parametrize("value", [True, np.float32(0.5), np.int64(1), np.array(0.5)])
def test_labels_of_other_number_types(value):
    assert brier_reward(completions=[answered("0.5")], label=[value]) == [1 - (0.5 - float(value)) ** 2]


@pytest.mark.parametrize("reward", ALL, ids=repr)
def test_a_missing_column_is_named(reward):
    with pytest.raises(ValueError, match=f"{reward.__name__} requires a 'label' column"):
        reward(prompts=["?"], completions=["!"], solution=[1])


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="2 completions and 1 values of 'label'"):
        brier_reward(completions=["?", "?"], label=[1])
    with pytest.raises(ValueError, match="2 completions and 1 prompts"):
        brier_reward(prompts=["?"], completions=["?", "?"], label=[1, 1])


@pytest.mark.parametrize("epsilon", [0.0, 0.5, -1e-3, 1.0, math.nan])
@pytest.mark.parametrize("reward_class", [LogReward, KLReward])
def test_epsilon_is_checked(reward_class, epsilon):
    with pytest.raises(ValueError, match="epsilon"):
        reward_class(epsilon=epsilon)


def test_the_number_of_classes_is_checked():
    with pytest.raises(ValueError, match="n_classes"):
        RankedProbabilityReward(1)


class Log:
    def __init__(self):
        self.metrics, self.columns = {}, defaultdict(list)

    def metric(self, name, value):
        self.metrics[name] = value

    def extra(self, name, values):
        self.columns[name].extend(values)


def test_logged_values():
    log = Log()
    completions = [answered(value) for value in ("0", "0.0", "1", "0.5")] + ["?"]
    brier_reward(completions=completions, label=[0] * 5, log_metric=log.metric, log_extra=log.extra)
    assert log.metrics == {
        "answers/parse_rate": 0.8,
        "answers/distinct_answers": 3.0,
        "answers/parsed_reward": pytest.approx((1 + 1 + 0 + 0.75) / 4),
        "answers/fraction_at_0": 0.4,
        "answers/fraction_at_1": 0.2,
    }
    assert log.columns == {"brier_reward/answer": [0.0, 0.0, 1.0, 0.5, None], "brier_reward/label": [0.0] * 5}


def test_ordered_classes_have_no_fraction_at_0():
    log = Log()
    RankedProbabilityReward(2)(
        completions=["<class_probabilities>0 1</class_probabilities>"], label=[1], log_metric=log.metric
    )
    assert log.metrics == {"answers/parse_rate": 1.0, "answers/distinct_answers": 1.0, "answers/parsed_reward": 1.0}


@pytest.mark.parametrize("reward", [*ALL, LogReward(0.01), KLReward(0.02)], ids=repr)
@pytest.mark.parametrize("through", [lambda x: pickle.loads(pickle.dumps(x)), copy.deepcopy], ids=["pickle", "copy"])
def test_copies_are_equal(reward, through):
    twin = through(reward)
    assert twin == reward
    assert twin.__name__ == reward.__name__
    text = answered("0.999") + "<class_probabilities>0.2 0.3 0.5</class_probabilities>"
    assert twin(completions=[text], label=[0]) == reward(completions=[text], label=[0])


def test_names():
    assert [reward.__name__ for reward in ALL] == [
        "brier_reward",
        "log_reward",
        "spherical_reward",
        "kl_reward",
        "ranked_probability_reward",
    ]
    assert all(getattr(rewards, reward.__name__) is reward for reward in ALL[:4])
    assert (BrierReward.__name__, SphericalReward.__name__) == ("BrierReward", "SphericalReward")


def test_rewards_need_no_torch():
    code = (
        "import sys, rewards\n"
        "heavy = {'torch', 'transformers', 'trl', 'datasets', 'autorater', 'scipy', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_reward_over_votes_is_the_mean_over_votes():
    completions = [answered("0.75"), answered("nothing")]
    over_votes = VotesReward(brier_reward)(completions=completions, label=[0.75, 0.5])
    single = [brier_reward(completions=completions, label=[y, y]) for y in (0, 1)]
    assert over_votes == pytest.approx([single[0][0] / 4 + single[1][0] * 3 / 4, 0.0])
    assert VotesReward(brier_reward).__name__ == "brier_reward"
