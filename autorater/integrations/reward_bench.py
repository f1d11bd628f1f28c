"""The judge in RewardBench's generative interface, `rewardbench.generative.run_judge_pair`; imports no rewardbench.

from rewardbench import generative
generative.API_MODEL_LIST += ("endpoint:judge",)
generative.run_judge_pair = RewardBenchJudge(base_url="http://localhost:8000/v1")
runpy.run_path("scripts/run_generative.py", run_name="__main__")    # with --model endpoint:judge

RewardBench asks from several threads; their pairs are judged in batches, with one judge and one budget.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Mapping, Sequence

from autorater.integrations.preferences import ConcurrentPreferences, Preferences, opened, pair_of, verdict


class RewardBenchJudge:
    """Which of two answers wins, by a judge in both orders.

    Args:
        options: Budget and options of the judge, as in `Preferences`.
    """

    def __init__(self, **options: object):
        self.options = options

    def __call__(
        self,
        question: str,
        answer_a: Sequence[Mapping[str, str]],
        answer_b: Sequence[Mapping[str, str]],
        model: str,
        multi_turn: bool = False,
        model_modifier: str | None = None,
    ) -> tuple[str, str, str]:
        """Judges two conversations that have the prompt in common.

        Args:
            question: The user's first message.
            answer_a, answer_b: Messages, from the user's first one to the assistant's answer.
            model: Name of the judge.
            multi_turn: Whether there is more than one turn.
            model_modifier: Given by RewardBench, not used.

        Returns:
            The winner (`A`, `B`, `tie`, or `error` without an answer of the judge), the question, and Pr[B preferred]
            as text, or why there is none.
        """
        prompt = list(answer_a[:-1]) if multi_turn else question
        preferences, loop = opened(_gathered, model, **self.options)
        found = preferences.explained(pair_of(prompt, [answer_a[-1]], [answer_b[-1]]))
        p, reason = asyncio.run_coroutine_threadsafe(found, loop).result()
        if math.isnan(p):
            return "error", question, f"no answer: {reason}"
        return verdict(p), question, f"{p:.4f}"


def _gathered(judge: str, **options: object) -> tuple[ConcurrentPreferences, asyncio.AbstractEventLoop]:
    """A judge, and the loop of a background thread in which the pairs of all threads gather."""
    preferences, loop = ConcurrentPreferences(Preferences(judge, **options)), asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    return preferences, loop
