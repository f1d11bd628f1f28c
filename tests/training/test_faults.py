"""Rewards that fail or are no number, answers that none can read, prompts without room: said, or counted."""

import json

import numpy as np
import pytest
from datasets import Dataset

from autorater.data.population import simulate_pairs
from autorater.judges import Judge
from autorater.prompts.templates import PromptFormat
from autorater.training.config import JudgeGRPOConfig
from autorater.training.faults import TrainingFault
from autorater.training.grpo import JudgeGRPOTrainer, training_rows
from rewards import BrierReward, brier_reward
from tests.conftest import make_model, make_tokenizer

OPTIONS = {
    "report_to": "none", "use_cpu": True, "max_steps": 2, "logging_steps": 1, "disable_tqdm": True,
    "per_device_train_batch_size": 4, "num_generations": 4, "save_strategy": "no", "answer_step": 0.25,
    "max_completion_length": 8,
}  # fmt: skip


@pytest.fixture(scope="module")
def data():
    pairs, tokenizer = simulate_pairs(6, seed=0, n_votes=3).pairs, make_tokenizer("split")
    judge = Judge(make_model("qwen", len(tokenizer)), tokenizer, PromptFormat("compact"), answer_step=0.25)
    return pairs, judge.encoder.encode(pairs), judge


def trainer(data, folder, rewards, **options):
    pairs, prompts, judge = data
    args = JudgeGRPOConfig(output_dir=str(folder), **OPTIONS | options)
    rows = Dataset.from_list(training_rows(pairs, prompts, args.orders))
    model = make_model("qwen", len(judge.tokenizer))
    return JudgeGRPOTrainer(model, rewards, args, judge.tree, train_dataset=rows, processing_class=judge.tokenizer)


def fails(completions, **columns):
    raise ZeroDivisionError("division by zero")


async def fails_later(completions, **columns):
    raise ConnectionError("no route to host")


def is_nan_later_on(completions, trainer_state, **columns):
    return [float("nan") if trainer_state.global_step == 1 else 0.5] * len(completions)


def judges_none(completions, **columns):
    return [None] * len(completions)


class NanReward(BrierReward):
    __name__ = "nan_reward"

    def score(self, p, y):
        return np.where(np.broadcast_to(p, np.broadcast_shapes(np.shape(p), np.shape(y))) == 0.5, np.nan, 0.5)


class FailingReward(BrierReward):
    __name__ = "failing_reward"

    def score(self, p, y):
        raise KeyError("label")


@pytest.mark.filterwarnings("ignore:step 1. not one answer")
@pytest.mark.parametrize(
    ("answers", "reward", "message"),
    [
        ("sampled", fails, r"step 1: the reward fails failed with ZeroDivisionError: division by zero"),
        ("sampled", fails_later, r"step 1: the reward fails_later failed with ConnectionError: no route"),
        ("sampled", is_nan_later_on, r"step 2: the reward is_nan_later_on is nan for the completion '.+'; a number"),
        ("sampled", judges_none, r"step 1: 4 of 4 completions got None from every reward"),
        ("exact", NanReward(), r"the reward nan_reward pays some answers no finite number"),
        ("exact", FailingReward(), r"the reward failing_reward failed with KeyError: 'label'"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_bad_reward_ends_the_training_and_is_named(data, tmp_path, answers, reward, message):
    with pytest.raises(TrainingFault, match=message):
        trainer(data, tmp_path, reward, answers=answers).train()


def test_none_of_one_reward_is_no_fault_beside_another(data, tmp_path):
    both = trainer(data, tmp_path, [judges_none, lambda completions, **_: [float(len(c)) for c in completions]],
                   answers="sampled")  # fmt: skip
    both.train()
    assert both.state.global_step == 2


def test_batches_that_none_can_read_are_counted_and_said_once(data, tmp_path):
    """A random policy writes no answer: nothing is better than anything, and the weights stay where they are."""
    blind = trainer(data, tmp_path, brier_reward, answers="sampled", entropy_coef=0.0, max_steps=3)
    with pytest.warns(RuntimeWarning, match="step 1: not one answer of the batch can be read") as said:
        blind.train()
    assert len([w for w in said if "not one answer" in str(w.message)]) == 1
    counts = [entry["answers/unread_batches"] for entry in blind.state.log_history if "reward" in entry]
    assert counts == [1, 2, 3]
    exact = trainer(data, tmp_path, brier_reward, answers="exact")
    exact.train()
    assert [entry["answers/unread_batches"] for entry in exact.state.log_history if "reward" in entry] == [0, 0]
    assert json.dumps(exact.state.log_history)


@pytest.mark.parametrize("answers", ["exact", "sampled"])
def test_a_prompt_without_room_for_an_answer_is_refused(data, tmp_path, answers):
    pairs, prompts, judge = data
    longest = max(len(prompt.ids) for both in prompts for prompt in both)
    model = make_model("gpt2", len(judge.tokenizer))
    model.config.n_positions = longest + 4
    args = JudgeGRPOConfig(output_dir=str(tmp_path), **OPTIONS | {"answers": answers})
    rows = Dataset.from_list(training_rows(pairs, prompts, args.orders))
    with pytest.raises(ValueError, match=r"training row \d: (swapped_)?prompt_ids has \d+ tokens, .* room for \d+"):
        JudgeGRPOTrainer(model, brier_reward, args, judge.tree, train_dataset=rows, processing_class=judge.tokenizer)
