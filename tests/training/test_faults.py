"""Rewards that fail or are not finite, unparsed answers, prompts that do not fit."""

import json

import numpy as np
import pytest
from datasets import Dataset, IterableDataset

from autorater.data.errors import UserError
from autorater.data.population import simulate_pairs
from autorater.judges import Judge
from autorater.prompts.templates import PromptFormat
from autorater.training.config import JudgeGRPOConfig
from autorater.training.data import training_rows
from autorater.training.faults import TrainingFault
from autorater.training.grpo import grpo_trainer
from autorater.training.ppo import JudgePPOConfig
from rewards import BrierReward, brier_reward
from tests.conftest import make_model, make_tokenizer

OPTIONS = {
    "report_to": "none", "use_cpu": True, "max_steps": 2, "logging_steps": 1, "disable_tqdm": True,
    "per_device_train_batch_size": 4, "save_strategy": "no", "answer_step": 0.25,
}  # fmt: skip
SAMPLED = {"answers": "sampled", "num_generations": 4, "max_completion_length": 8}


@pytest.fixture(scope="module")
def data():
    pairs, tokenizer = simulate_pairs(6, seed=0, n_votes=3).pairs, make_tokenizer("split")
    judge = Judge(make_model("qwen", len(tokenizer)), tokenizer, PromptFormat("compact"), answer_step=0.25)
    return pairs, judge.encoder.encode(pairs), judge


def trainer(data, folder, rewards, answers, **options):
    pairs, prompts, judge = data
    sampled = SAMPLED if answers == "sampled" else {}
    args = JudgeGRPOConfig(output_dir=str(folder), **OPTIONS | sampled | options)
    rows = Dataset.from_list(training_rows(pairs, prompts, args.orders))
    model = make_model("qwen", len(judge.tokenizer))
    return grpo_trainer(model, rewards, args, judge.tree, train_dataset=rows, processing_class=judge.tokenizer)


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


@pytest.mark.filterwarnings("ignore:step 1. no answer of the batch parses")
@pytest.mark.parametrize(
    ("answers", "reward", "message"),
    [
        ("sampled", is_nan_later_on, r"step 2: the reward is_nan_later_on is nan for the completion '.+'; expected"),
        ("sampled", judges_none, r"step 1: 4 of 4 completions got None from every reward"),
        ("exact", NanReward(), r"the reward nan_reward is not finite for some answers"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_bad_values_of_a_reward_end_the_training(data, tmp_path, answers, reward, message):
    with pytest.raises(TrainingFault, match=message):
        trainer(data, tmp_path, reward, answers).train()


@pytest.mark.parametrize(
    ("answers", "reward", "error", "note"),
    [
        ("sampled", fails, ZeroDivisionError, "step 1: in the reward fails"),
        ("sampled", fails_later, ConnectionError, "step 1: in the reward fails_later"),
        ("exact", FailingReward(), KeyError, "in the reward failing_reward"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_an_exception_in_a_reward_keeps_its_type_and_gets_a_note(data, tmp_path, answers, reward, error, note):
    with pytest.raises(error) as raised:
        trainer(data, tmp_path, reward, answers).train()
    assert note in raised.value.__notes__


def test_a_reward_may_return_none_if_another_scores(data, tmp_path):
    rewards = [judges_none, lambda completions, **_: [float(len(c)) for c in completions]]
    both = trainer(data, tmp_path, rewards, "sampled")
    both.train()
    assert both.state.global_step == 2


def test_batches_without_a_parsed_answer_are_counted_and_warned_about_once(data, tmp_path):
    """A random policy generates no answer, so all rewards are equal and the weights do not change."""
    random_policy = trainer(data, tmp_path, brier_reward, "sampled", entropy_coef=0.0, max_steps=3)
    with pytest.warns(RuntimeWarning, match="step 1: no answer of the batch parses") as warned:
        random_policy.train()
    assert len([w for w in warned if "no answer" in str(w.message)]) == 1
    counts = [entry["answers/unparsed_batches"] for entry in random_policy.state.log_history if "reward" in entry]
    assert counts == [1, 2, 3]
    exact = trainer(data, tmp_path, brier_reward, "exact")
    exact.train()
    assert [entry["answers/unparsed_batches"] for entry in exact.state.log_history if "reward" in entry] == [0, 0]
    assert json.dumps(exact.state.log_history)


@pytest.mark.parametrize("answers", ["exact", "sampled"])
@pytest.mark.parametrize("sampling", ["random", "group_by_length"])
def test_too_few_rows_for_a_batch_are_refused(data, tmp_path, answers, sampling):
    few = trainer(
        data, tmp_path, brier_reward, answers, per_device_train_batch_size=28, train_sampling_strategy=sampling
    )
    with pytest.raises(
        UserError, match=r"6 training rows do not fill a batch of all processes and micro-batches, \d+;"
    ):
        few.train()


@pytest.mark.parametrize(("size", "accumulation"), [(1, 1), (1, 3), (3, 1), (5, 2)])
@pytest.mark.parametrize("config", [JudgeGRPOConfig, JudgePPOConfig])
def test_any_batch_size_is_accepted_without_groups(tmp_path, size, accumulation, config):
    ppo = {"orders": "separate"} if config is JudgePPOConfig else {}
    args = config(
        output_dir=str(tmp_path), per_device_train_batch_size=size, gradient_accumulation_steps=accumulation,
        use_cpu=True, report_to="none", **ppo,
    )  # fmt: skip
    default = config.__dataclass_fields__["num_generations"].default
    assert (args.num_generations, args.steps_per_generation) == (default, accumulation)
    assert args.generation_batch_size == size * accumulation


@pytest.mark.filterwarnings("ignore:step 1")
@pytest.mark.parametrize("has_known_columns", [False, True])
@pytest.mark.parametrize("answers", ["exact", "sampled"])
def test_a_streamed_dataset_is_not_read_before_the_training(data, tmp_path, answers, has_known_columns):
    pairs, prompts, judge = data
    args = JudgeGRPOConfig(output_dir=str(tmp_path), **OPTIONS | (SAMPLED if answers == "sampled" else {}))
    rows, reads = training_rows(pairs, prompts, args.orders), []

    def stream():
        reads.append(1)
        yield from rows

    dataset = IterableDataset.from_generator(stream, Dataset.from_list(rows).features if has_known_columns else None)
    model = make_model("qwen", len(judge.tokenizer))
    streaming = grpo_trainer(
        model, brier_reward, args, judge.tree, train_dataset=dataset, processing_class=judge.tokenizer
    )
    assert not reads
    streaming.train()
    assert reads
    assert streaming.state.global_step == args.max_steps


@pytest.mark.parametrize("answers", ["exact", "sampled"])
def test_a_prompt_without_room_for_an_answer_is_refused(data, tmp_path, answers):
    pairs, prompts, judge = data
    longest = max(len(prompt.ids) for both in prompts for prompt in both)
    model = make_model("gpt2", len(judge.tokenizer))
    model.config.n_positions = longest + 4
    args = JudgeGRPOConfig(output_dir=str(tmp_path), **OPTIONS | (SAMPLED if answers == "sampled" else {}))
    rows = Dataset.from_list(training_rows(pairs, prompts, args.orders))
    with pytest.raises(ValueError, match=r"training row \d: (swapped_)?prompt_ids has \d+ tokens; .* room for \d+"):
        grpo_trainer(model, brier_reward, args, judge.tree, train_dataset=rows, processing_class=judge.tokenizer)
