"""Judging methods: the ways to get a probability out of one model, by name and behind one interface, `PairJudge`.

    verbalized                   the number that greedy decoding writes
    verbalized_reasoning         the same, behind reasoning
    self_consistency             the share of N sampled answers on one side
    self_consistency_reasoning   the same, each behind a reasoning of its own
    letter_logits                the next token, A against B
    answer_mean                  the mean of the exact distribution over answers, as `Judge` reads it

What is put on top of any of them is in `wrappers`: swap averaging and recalibration.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import replace

from autorater.judges.consistency import SelfConsistency
from autorater.judges.judgments import PairJudge
from autorater.judges.letters import LetterLogits
from autorater.judges.local import Judge
from autorater.judges.verbalized import Verbalized

_METHODS: dict[str, Callable[[Judge, int, int], PairJudge]] = {
    "verbalized": lambda judge, n, seed: Verbalized(_asked(judge, reasoning=False)),
    "verbalized_reasoning": lambda judge, n, seed: Verbalized(_asked(judge, reasoning=True)),
    "self_consistency": lambda judge, n, seed: SelfConsistency(_asked(judge, reasoning=False), n, seed),
    "self_consistency_reasoning": lambda judge, n, seed: SelfConsistency(_asked(judge, reasoning=True), n, seed),
    "letter_logits": lambda judge, n, seed: LetterLogits(judge),
    "answer_mean": lambda judge, n, seed: _unmapped(judge),
}
METHODS = tuple(_METHODS)


def judging_method(name: str, judge: Judge, *, n_samples: int = 10, seed: int = 0) -> PairJudge:
    """A method on a model.

    Args:
        name: One of `METHODS`.
        judge: The model, and how it is asked where the method leaves that open. Its recalibration is not applied:
            methods are compared as they are, with recalibrations put on top of them.
        n_samples: Answers that self-consistency draws for a prompt.
        seed: Draws them.

    Raises:
        ValueError: If there is no such method, or this model cannot be asked in this way; the message says why.
    """
    if name not in _METHODS:
        raise ValueError(f"unknown judging method {name!r}; expected one of {', '.join(METHODS)}")
    return _METHODS[name](judge, n_samples, seed)


def _asked(judge: Judge, *, reasoning: bool) -> Judge:
    """The same model, asked for reasoning or not."""
    if judge.encoder.format.reasoning == reasoning:
        return _unmapped(judge)
    return Judge(
        judge.model,
        judge.tokenizer,
        replace(judge.encoder.format, reasoning=reasoning),
        judge.tree.step,
        max_batch_tokens=judge.max_batch_tokens,
    )


def _unmapped(judge: Judge) -> Judge:
    unmapped = copy(judge)
    unmapped.recalibration = None
    return unmapped
