"""The judge as a reward function of TRL's `GRPOTrainer`, and of any program with the same call.

    against a column   r_i = Pr[completion i preferred over the reference response of its row]
    against the group  r_i = mean over j ≠ i of Pr[completion i preferred over completion j of the same prompt]

Every pair is judged in both orders and the orders are averaged, so a bias for a position cancels out. `value="logit"`
gives log r / (1 − r), with r clipped to [clip, 1 − clip]. A group of K completions costs K (K − 1) judgments, against
a column it costs 2 K.

TRL may split a group over processes. So the prompts and completions of all are gathered, and every process judges the
pairs with a completion of its own; a pair of two processes is judged by both.

A completion without an answer of the judge (unparsed, refused, too long) gets None: TRL leaves it out of the mean of
its group, and its advantage is 0. Deliberately left out: mixing with other rewards, which TRL does (`reward_weights`).
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np

from autorater.data.errors import UserError, located
from autorater.integrations.preferences import Preferences, pair_of
from autorater.judges.judgments import PairJudge
from autorater.models.shares import gathered_rows
from autorater.prompts.templates import PromptFormat

GROUP = "group"
logger = logging.getLogger(__name__)


class _Row(NamedTuple):
    prompt: object
    completion: object
    slots: Mapping[str, object]  # for the judge's prompt
    reference: object  # the response to compare with; None for the group


class JudgeReward:
    """How likely a completion is preferred, by a judge.

    Args:
        judge: A judge, or its name: a folder, a Hub name or `endpoint:MODEL`.
        against: `group`, or the column of the dataset with a reference response for every row: a text or messages,
            which may begin with the prompt.
        value: `probability`, in [0, 1], or its `logit`.
        clip: Logits are those of probabilities in [clip, 1 − clip], in (0, 0.5); by default 0.01.
        name: Name of the reward in TRL's logs.
        options: Budget and options of the judge as in `Preferences`: `max_judgments`; for a judge that is named those
            of `open_judge` (`base_url`, `judge_format`, `device`, …), for endpoints `max_requests`, `max_tokens` and
            `max_cost` too. Every process of a distributed training has a judge and a budget of its own; against the
            group all processes must call the reward equally often, as TRL does.

    Raises:
        UserError: If an argument is wrong or has no effect.

    Example:
        >>> reward = JudgeReward("endpoint:judge", against="chosen", base_url="http://localhost:8000/v1")
        >>> reward(prompts=["Why?"], completions=["Because."], chosen=["For two reasons: …"])
        [0.31]
    """

    def __init__(
        self,
        judge: PairJudge | str,
        against: str = GROUP,
        *,
        value: Literal["probability", "logit"] = "probability",
        clip: float | None = None,
        name: str = "judge_reward",
        **options: object,
    ):
        if value not in ("probability", "logit"):
            raise UserError(f"value is {value!r}; expected 'probability' or 'logit'")
        if clip is not None and (value != "logit" or not 0 < clip < 0.5):
            raise UserError(f"clip = {clip}: expected a number between 0 and 0.5, with value='logit'")
        self.preferences = Preferences(judge, **options)
        self.against, self.value, self.clip = against, value, 0.01 if clip is None else clip
        self.__name__ = name

    def __call__(
        self,
        prompts: Sequence,
        completions: Sequence,
        log_metric: Callable[[str, float], None] | None = None,
        **columns: Sequence,
    ) -> list[float | None]:
        """The rewards of N completions, None without an answer of the judge.

        Args:
            prompts, completions: N texts or N lists of chat messages.
            log_metric: Given by TRL; gets the share of completions without an answer.
            columns: The columns of the dataset, N values each; `criteria`, `reference` and `group` (of annotators)
                fill those slots of the judge's prompt.

        Raises:
            DataError: If a prompt is blank, a value is neither a text nor messages, or a reference begins with other
                messages than the prompt's.
            EndpointError: If the budget is used up, or no request can succeed; nothing of the batch is returned.
            UserError: If the column is missing, or a prompt has one completion only.
        """
        return self._rewards(self._rows(prompts, completions, columns), log_metric)

    def _rows(self, prompts: Sequence, completions: Sequence, columns: Mapping) -> tuple[list[_Row], range]:
        """The rows of the batch, against the group those of all processes, and which of them are of this process."""
        if self.against != GROUP and self.against not in columns:
            known = ", ".join(sorted(name for name, values in columns.items() if isinstance(values, list)))
            raise UserError(f"no column {self.against!r} with reference responses; the dataset has: {known}")
        names = self._slots(columns)
        slots = [{name: columns[name][i] for name in names} for i in range(len(prompts))]
        references = [None] * len(prompts) if self.against == GROUP else columns[self.against]
        rows = list(map(_Row._make, zip(prompts, completions, slots, references, strict=True)))
        return gathered_rows(rows) if self.against == GROUP else (rows, range(len(rows)))

    def _rewards(self, rows: tuple[list[_Row], range], log_metric: Callable | None) -> list[float | None]:
        found = self._in_groups(*rows) if self.against == GROUP else self._against_column(rows[0])
        failed = int(np.isnan(found).sum())
        if failed:
            logger.warning(f"{failed} of {len(found)} completions have no answer of the judge; their reward is None")
        if log_metric is not None:
            log_metric(f"{self.__name__}/unanswered", failed / max(1, len(found)))
        return [None if math.isnan(p) else self.valued(p) for p in found.tolist()]

    def _slots(self, columns: dict) -> list[str]:
        """Columns for slots of the judge's prompt; criteria and references if the judge does not say."""
        format = getattr(self.preferences.judge, "prompt_format", None)
        slots = ("criteria", "reference") if format is None else format.slots
        against = None if self.against == GROUP else self.against  # a column `group` is that of annotators
        return [name for name in PromptFormat.optional if name in slots and name in columns and name != against]

    def _against_column(self, rows: list[_Row]) -> np.ndarray:
        pairs = []
        for i, row in enumerate(rows):
            with located(f"row {i} of the batch"):
                names = self.against, "completion"
                pairs.append(pair_of(row.prompt, row.reference, row.completion, names=names, **row.slots))
        return self.preferences.of(pairs)

    def _in_groups(self, rows: list[_Row], own: range) -> np.ndarray:
        groups = defaultdict(list)
        for i, row in enumerate(rows):
            groups[json.dumps([row.prompt, row.slots], default=str)].append(i)
        if alone := [members[0] for members in groups.values() if len(members) == 1]:
            raise UserError(
                f"completion {alone[0]} is the only one of its prompt in the batch of {len(rows)}; comparison in a "
                "group requires two or more. Use num_generations of at least 2, or against=COLUMN"
            )
        both = [pair for members in groups.values() for pair in combinations(members, 2)]
        both = [(i, j) for i, j in both if i in own or j in own]
        wins = self.preferences.of(
            [pair_of(rows[i].prompt, rows[i].completion, rows[j].completion, **rows[i].slots) for i, j in both]
        )
        total, count = np.zeros((2, len(rows)))
        for (i, j), p in zip(both, wins.tolist(), strict=True):
            if not math.isnan(p):
                total[[i, j]] += 1 - p, p
                count[[i, j]] += 1
        means = np.divide(total, count, out=np.full(len(rows), np.nan), where=count > 0)
        return means[own.start : own.stop]

    def valued(self, p: float) -> float:
        """The reward of a probability."""
        if self.value == "probability":
            return p
        p = min(max(p, self.clip), 1 - self.clip)
        return math.log(p / (1 - p))


class AsyncJudgeReward(JudgeReward):
    """`JudgeReward` as a coroutine, which TRL runs beside other asynchronous rewards; the same arguments."""

    async def __call__(
        self,
        prompts: Sequence,
        completions: Sequence,
        log_metric: Callable[[str, float], None] | None = None,
        **columns: Sequence,
    ) -> list[float | None]:
        rows = self._rows(prompts, completions, columns)  # here: threads would gather in an order of their own
        return await asyncio.to_thread(self._rewards, rows, log_metric)
