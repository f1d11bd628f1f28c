"""Faults that stop a training: rewards that are not finite, prompts that do not fit.

TRL treats NaN from a reward as "not scored"; here it is an error that names the reward, the step and the completion.
`None` still means that a reward does not score a completion, but at least one reward must. An exception in a reward
function keeps its type and traceback; a note names the reward and the step. Losses and gradients are checked in
`autorater.training.checkpointing.resumable`.
"""

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from datasets.iterable_dataset import IterableColumn
from transformers import PreTrainedModel
from trl.trainer.utils import is_async_callable

from autorater.data.errors import UserError
from autorater.prompts.batching import longest_prompt
from autorater.training.config import JudgeGRPOConfig
from rewards.functions import Reward


class TrainingFault(UserError):
    """Training cannot continue; the message names the step and the fault."""


def guarded(reward: Callable, name: str) -> Callable:
    """The same reward function; a value that is not finite is a `TrainingFault`, an exception gets a note.

    A reward model is returned unchanged; `check_rewards` checks its values.
    """
    if isinstance(reward, torch.nn.Module):
        return reward

    def checked(values: Sequence[float | None], columns: dict) -> Sequence[float | None]:
        for i, value in enumerate(values):
            if value is not None and not math.isfinite(value):
                raise TrainingFault(
                    f"{_step(columns)}: the reward {name} is {float(value)} for the completion "
                    f"{str(columns['completions'][i])[:60]!r}; expected a number, or None if it does not score"
                )
        return values

    if is_async_callable(reward):

        @functools.wraps(reward)
        async def call(**columns):
            with _noted(f"{_step(columns)}: in the reward {name}"):
                return checked(await reward(**columns), columns)

    else:

        @functools.wraps(reward)
        def call(**columns):
            with _noted(f"{_step(columns)}: in the reward {name}"):
                return checked(reward(**columns), columns)

    return call


@contextmanager
def _noted(note: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        error.add_note(note)
        raise


def _step(columns: dict) -> str:
    return f"step {columns['trainer_state'].global_step + 1}"


def finite_values(score: Callable[[Reward, np.ndarray], np.ndarray], reward: Reward, labels: np.ndarray) -> np.ndarray:
    """Rewards of whole grids of answers; a `TrainingFault` if a value is not finite."""
    name = getattr(reward, "__name__", type(reward).__name__)
    with _noted(f"in the reward {name}"):
        values = score(reward, labels)
    if not np.isfinite(values).all():
        raise TrainingFault(f"the reward {name} is not finite for some answers")
    return values


def check_rewards(rewards: torch.Tensor, names: Sequence[str], models: Sequence[bool], step: int) -> None:
    """Raises TrainingFault if a reward model returned NaN, or no reward scored a completion.

    Args:
        rewards: Rewards of a batch as gathered by TRL, NaN where a reward function returned None; shape (N, F).
        names, models: Names of the F rewards, and which of them are models.
        step: Optimizer steps taken.
    """
    missing = rewards.isnan()
    for name, is_model, of_model in zip(names, models, missing.T, strict=True):
        if is_model and of_model.any():
            raise TrainingFault(f"step {step + 1}: the reward model {name} returned NaN")
    unscored = int(missing.all(dim=1).sum())
    if unscored:
        raise TrainingFault(
            f"step {step + 1}: {unscored} of {len(rewards)} completions got None from every reward; expected one score"
        )


def check_batch(n_rows: int, training: JudgeGRPOConfig) -> None:
    """Raises UserError if the training rows do not fill a batch."""
    if n_rows < training.rows_a_batch:
        raise UserError(
            f"{n_rows:,} training rows do not fill a batch of all processes and micro-batches, "
            f"{training.rows_a_batch:,}; lower per_device_train_batch_size or gradient_accumulation_steps"
        )


def check_lengths(model: PreTrainedModel, prompts: Iterable[Sequence[int]], suffix_length: int, column: str) -> None:
    """Raises UserError if a prompt and an answer of `suffix_length` tokens exceed the context of the model.

    The column of a streamed dataset is not checked: all of it would be read before the training, if it ends at all.
    """
    if isinstance(prompts, IterableColumn):
        return
    limit = longest_prompt(model, suffix_length)
    for row, ids in enumerate(prompts):
        if len(ids) > limit:
            raise UserError(
                f"training row {row}: {column} has {len(ids)} tokens; the model has room for {limit} before an answer "
                f"of {suffix_length}; drop such rows (`autorater.prompts.batching.drop_long`)"
            )
