"""Probabilities for pairs that another program brings: any judge, both orders, a budget, every pair judged once.

Deliberately left out: storage. `autorater judge` resumes a stopped run; a program that calls a judge does not.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import dropwhile
from operator import attrgetter
from typing import TypeVar

import numpy as np

from autorater.data.errors import UserError
from autorater.data.fields import bad_value, category_in, given_in, name_in
from autorater.data.messages import Conversation, Message, Text, as_json, text_or_messages
from autorater.data.pairs import Pair
from autorater.judges.client import EndpointError
from autorater.judges.judgments import PairJudge
from autorater.judges.opening import open_judge
from autorater.judges.options import ENDPOINT
from autorater.judges.usage import Usage

_WINDOW = 0.02  # seconds in which concurrent calls are gathered
_key_of = attrgetter("prompt", "response_a", "response_b", "criteria", "reference", "group")  # what a judge sees
_opened: dict[tuple[Callable, str], object] = {}
_opening = threading.Lock()
T = TypeVar("T")


class Preferences:
    """A judge with a budget, for pairs that may repeat. Calls of several threads are served one after the other.

    Args:
        judge: A judge, or its name: a folder, a Hub name, `endpoint:MODEL` or `recorded:FILE`.
        max_judgments: No pair is judged beyond this many judgments; a pair judged in both orders is two.
        max_requests, max_tokens: Budget of a judge named `endpoint:MODEL`, as in `Usage`.
        max_cost: The same in USD, with `price_in` and `price_out` in USD for a million tokens.
        options: Options of `open_judge`, such as `base_url` and `judge_format`, if `judge` is a name.

    Attributes:
        judge: The judge.
        n_judgments: Judgments so far.

    Raises:
        UserError: As `open_judge`, or if an option has no effect.
    """

    def __init__(
        self,
        judge: PairJudge | str,
        *,
        max_judgments: int | None = None,
        max_requests: int | None = None,
        max_tokens: int | None = None,
        max_cost: float | None = None,
        price_in: float | None = None,
        price_out: float | None = None,
        **options: object,
    ):
        budget = {"max_requests": max_requests, "max_tokens": max_tokens, "max_cost": max_cost}
        budget |= {"price_in": price_in, "price_out": price_out}
        budget = {name: value for name, value in budget.items() if value is not None}
        named = isinstance(judge, str)
        if budget and not (named and judge.startswith(ENDPOINT)):
            raise UserError(f"{', '.join(budget)}: only for a judge that is named endpoint:MODEL; use max_judgments")
        if options and not named:
            raise UserError(f"{', '.join(options)}: no effect on a judge that is open already")
        if budget:
            options["usage"] = Usage(**budget)
        self.judge = open_judge(judge, **options) if named else judge
        self.max_judgments, self.n_judgments = max_judgments, 0
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state, _lock=threading.Lock())

    def of(self, pairs: Sequence[Pair]) -> np.ndarray:
        """Pr[B preferred] of N pairs, both orders averaged, in [0, 1], shape (N,).

        NaN where an order has no answer: it was unparsed or refused, or the prompt is too long for a local judge. A
        pair that occurs again, in either order, is judged once; two equal responses get 0.5 without a judgment.

        Raises:
            EndpointError: If the budget does not cover all pairs, or no request can succeed.
        """
        return self.explained(pairs)[0]

    def explained(self, pairs: Sequence[Pair]) -> tuple[np.ndarray, str]:
        """As `of`, and why most of the pairs without an answer have none; empty if all have one."""
        keys = [_key_of(pair) for pair in pairs]
        rows: dict[tuple, int] = {}  # of the distinct pairs
        distinct = []
        for key, pair in zip(keys, pairs, strict=True):
            if pair.response_a != pair.response_b and not {key, _swapped(key)} & rows.keys():
                rows[key] = len(distinct)
                # no id of a row that a recorded judge has
                distinct.append(replace(pair, id=f"pair {len(distinct)} of this call"))
        with self._lock:
            judged, reason = self._judged(distinct)
        found = np.full(len(pairs), 0.5)
        for i, key in enumerate(keys):
            if key in rows:
                found[i] = judged[rows[key]]
            elif _swapped(key) in rows:
                found[i] = 1 - judged[rows[_swapped(key)]]
        return found, reason

    def _judged(self, pairs: list[Pair]) -> tuple[np.ndarray, str]:
        n = 2 * len(pairs)
        if self.max_judgments is not None and self.n_judgments + n > self.max_judgments:
            raise EndpointError(
                f"the budget of {self.max_judgments:,} judgments is used up: {self.n_judgments:,} are made and {n:,} "
                "more are required; raise max_judgments"
            )
        probabilities, reasons = np.full(len(pairs), np.nan), ()
        fitting = getattr(self.judge, "fitting", None)
        rows = np.arange(len(pairs)) if fitting is None else np.flatnonzero(fitting(pairs))
        if len(rows):
            judgments = self.judge.probabilities([pairs[i] for i in rows])
            probabilities[rows] = np.where(judgments.answered, judgments.p_sym, np.nan)
            reasons = getattr(self.judge, "reasons", ())
        self.n_judgments += 2 * len(rows)
        missing = np.isnan(probabilities).any()
        return probabilities, next(iter(reasons), "unparsed, or the prompt is too long") if missing else ""


class ConcurrentPreferences:
    """`Preferences` for programs that ask for one pair at a time from many coroutines: they are judged in batches.

    While one batch is judged in a thread, the next one gathers. For coroutines of one event loop.
    """

    def __init__(self, preferences: Preferences):
        self.preferences = preferences
        self._waiting: list[tuple[Pair, asyncio.Future[tuple[float, str]]]] = []
        self._worker: asyncio.Task | None = None

    async def of(self, pair: Pair) -> float:
        """Pr[B preferred] of a pair; NaN and errors as in `Preferences.of`."""
        return (await self.explained(pair))[0]

    async def explained(self, pair: Pair) -> tuple[float, str]:
        """As `of`, and why most pairs of its batch without an answer have none."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((pair, future))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._judge())
        return await future

    async def _judge(self) -> None:
        while self._waiting:
            await asyncio.sleep(_WINDOW)
            batch, self._waiting = self._waiting, []
            try:
                found, reason = await asyncio.to_thread(self.preferences.explained, [pair for pair, _ in batch])
            except Exception as error:  # handed to every caller of the batch
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
            else:
                for (_, future), probability in zip(batch, found.tolist(), strict=True):
                    if not future.done():
                        future.set_result((probability, reason))


def verdict(probability: float) -> str:
    """`B` or `A`, the likelier response for Pr[B preferred]; `tie` for exactly 0.5."""
    return "tie" if probability == 0.5 else "B" if probability > 0.5 else "A"


def opened(kind: Callable[..., T], judge: str, **options: object) -> T:
    """`kind(judge, **options)`, such as `Preferences`, made once in this process for equal arguments."""
    key = kind, json.dumps([judge, options], sort_keys=True, default=str)
    with _opening:
        if key not in _opened:
            _opened[key] = kind(judge, **options)
        return _opened[key]


def pair_of(
    prompt: object,
    response_a: object,
    response_b: object,
    *,
    criteria: object = None,
    reference: object = None,
    group: object = None,
    names: tuple[str, str] = ("response_a", "response_b"),
) -> Pair:
    """An unlabelled pair of texts or chat messages, as other programs give them; see `Pair`.

    Of a conversation that begins with the prompt, the response is what follows it. `criteria`, `reference` and `group`
    are read as `load_pairs` reads them; `names` are those of the responses in an error.

    Raises:
        DataError: If one is neither, the prompt is blank (a response may be), or the messages of a response begin
            neither with the prompt nor with the assistant.
    """
    prompt = _text(prompt, "prompt")
    texts = (_response(text, prompt, name) for text, name in zip((response_a, response_b), names, strict=True))
    slots = {"criteria": criteria, "reference": reference, "group": group}
    reference = given_in(slots, "reference")
    shown = {
        "criteria": name_in(slots, "criteria"),
        "reference": None if reference is None else _text(reference, "reference"),
        "group": category_in(slots, "group"),
    }
    return Pair("0", prompt, *texts, None, **shown)


def _response(value: object, prompt: Text, name: str) -> Text:
    text = text_or_messages(value, name, blank=True)
    if isinstance(text, str):
        return text
    asked, turns = _turns(prompt), _turns(text)
    answer = turns[len(asked) :] if turns[: len(asked)] == asked else turns
    if not answer or answer[0].role != "assistant":
        raise bad_value(name, as_json(text), "the answer alone, or the prompt and the answer")
    return _text(text[-len(answer) :], name, blank=True)


def _turns(text: Text) -> Conversation:
    """The messages without the system's at their beginning, which data often leaves out, and without outer blanks."""
    messages = (Message("user", text),) if isinstance(text, str) else text
    turns = dropwhile(lambda message: message.role in ("system", "developer"), messages)
    return tuple(Message(message.role, message.content.strip()) for message in turns)


def _text(value: object, name: str, *, blank: bool = False) -> Text:
    """Messages of which only one is shown are the same text as its content, see `autorater.prompts.markers.turns`."""
    text = text_or_messages(value, name, blank=blank)
    if not isinstance(text, str) and len(text) == 1 and text[0].role in ("user", "assistant"):
        return text[0].content
    return text


def _swapped(key: tuple) -> tuple:
    prompt, a, b, *others = key
    return (prompt, b, a, *others)
