"""What must not pass in silence: rewards that fail, rewards that are no numbers, prompts that do not fit.

TRL takes NaN from a reward for "not scored" and goes on; here it ends the training with an error that names the
reward, the step and the completion. `None` still means that a reward does not judge a completion, but one has to.
A loss or a gradient that is not finite is looked for in `autorater.training.checkpointing.resumable`.
"""

import functools
import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from transformers import PreTrainedModel
from trl.trainer.utils import is_async_callable

from autorater.prompts.batching import longest_prompt
from rewards.functions import Reward


class TrainingFault(ValueError):
    """The training cannot go on; the message names the step and what is wrong."""


def guarded(reward: Callable, name: str) -> Callable:
    """The same reward function, but what it raises and what is no number becomes a `TrainingFault`.

    Args:
        reward: As `trl.GRPOTrainer` takes it; a model is returned as it is, see `check_rewards`.
        name: What it is called in the message.
    """
    if isinstance(reward, torch.nn.Module):
        return reward

    def failed(error: Exception, columns: dict) -> TrainingFault:
        return TrainingFault(f"{_step(columns)}: the reward {name} failed with {type(error).__name__}: {error}")

    def checked(values: Sequence[float | None], columns: dict) -> Sequence[float | None]:
        for i, value in enumerate(values):
            if value is not None and not math.isfinite(value):
                raise TrainingFault(
                    f"{_step(columns)}: the reward {name} is {float(value)} for the completion "
                    f"{_excerpt(columns['completions'][i])}; a number is wanted, or None where it does not judge"
                )
        return values

    if is_async_callable(reward):

        @functools.wraps(reward)
        async def wait(**columns):
            try:
                values = await reward(**columns)
            except Exception as error:
                raise failed(error, columns) from error
            return checked(values, columns)

        return wait

    @functools.wraps(reward)
    def call(**columns):
        try:
            values = reward(**columns)
        except Exception as error:
            raise failed(error, columns) from error
        return checked(values, columns)

    return call


def finite_values(score: Callable[[Reward, np.ndarray], np.ndarray], reward: Reward, labels: np.ndarray) -> np.ndarray:
    """What a reward pays whole grids of answers; a `TrainingFault` if it raises or pays what is no number."""
    name = getattr(reward, "__name__", type(reward).__name__)
    try:
        values = score(reward, labels)
    except Exception as error:
        raise TrainingFault(f"the reward {name} failed with {type(error).__name__}: {error}") from error
    if not np.isfinite(values).all():
        raise TrainingFault(f"the reward {name} pays some answers no finite number")
    return values


def check_rewards(rewards: torch.Tensor, names: Sequence[str], models: Sequence[bool], step: int) -> None:
    """Looks at the rewards of a batch as TRL puts them together, NaN where a reward function said None.

    Args:
        rewards: Shape (N, F).
        names: Of the F rewards.
        models: Which of them are models; these judge every completion.
        step: Optimizer steps taken.

    Raises:
        TrainingFault: If a model gave NaN, or no reward judged a completion.
    """
    missing = rewards.isnan()
    for name, is_model, of_model in zip(names, models, missing.T, strict=True):
        if is_model and of_model.any():
            raise TrainingFault(f"step {step + 1}: the reward model {name} gave NaN")
    if missing.all(dim=1).any():
        unjudged = int(missing.all(dim=1).sum())
        raise TrainingFault(
            f"step {step + 1}: {unjudged} of {len(rewards)} completions got None from every reward; one has to judge"
        )


def check_lengths(model: PreTrainedModel, prompts: Iterable[Sequence[int]], behind: int, column: str) -> None:
    """Raises ValueError if a model has no room for a prompt with what comes behind it.

    Args:
        model: The policy.
        prompts: Token ids of every training row.
        behind: Tokens of the longest answer.
        column: Where the prompts stand.
    """
    limit = longest_prompt(model, behind)
    for row, ids in enumerate(prompts):
        if len(ids) > limit:
            raise ValueError(
                f"training row {row}: {column} has {len(ids)} tokens, and the model has room for {limit} before an "
                f"answer of {behind}; leave such rows out (`autorater.prompts.batching.drop_long`), cut none"
            )


def _step(columns: dict) -> str:
    return f"step {columns['trainer_state'].global_step + 1}"


def _excerpt(completion: object) -> str:
    text = str(completion)
    return repr(text if len(text) <= 60 else f"{text[:57]}…")
