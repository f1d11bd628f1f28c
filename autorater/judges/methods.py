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

from copy import copy
from dataclasses import replace

from autorater.judges.consistency import SelfConsistency
from autorater.judges.judgments import PairJudge
from autorater.judges.letters import LetterLogits
from autorater.judges.local import Judge
from autorater.judges.verbalized import Verbalized

METHODS = (
    "verbalized",
    "verbalized_reasoning",
    "self_consistency",
    "self_consistency_reasoning",
    "letter_logits",
    "answer_mean",
)


def judging_method(
    name: str, judge: Judge, *, n_samples: int = 10, max_reasoning_tokens: int = 512, seed: int = 0
) -> PairJudge:
    """A method on a model.

    Args:
        name: One of `METHODS`.
        judge: The model, and how it is asked where the method leaves that open. Its recalibration is not applied:
            methods are compared as they are, with recalibrations put on top of them.
        n_samples: Answers that self-consistency draws for a prompt.
        max_reasoning_tokens: Longest reasoning, of a judge that was not asked for any; it keeps its own otherwise.
        seed: Draws them.

    Raises:
        ValueError: If there is no such method, or this model cannot be asked in this way; the message says why.
    """
    if name not in METHODS:
        raise ValueError(f"unknown judging method {name!r}; expected one of {', '.join(METHODS)}")
    judge = copy(judge)
    judge.recalibration = None
    if name == "letter_logits":
        return LetterLogits(judge)
    if name == "answer_mean":
        return judge
    wanted = name.endswith("_reasoning")
    if judge.encoder.format.reasoning != wanted:
        asked = replace(judge.encoder.format, reasoning=wanted)
        judge = Judge(
            judge.model,
            judge.tokenizer,
            asked,
            judge.tree.step,
            max_reasoning_tokens,
            max_batch_tokens=judge.max_batch_tokens,
        )
    return Verbalized(judge) if name.startswith("verbalized") else SelfConsistency(judge, n_samples, seed)
