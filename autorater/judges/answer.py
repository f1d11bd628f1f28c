"""What came of one question to a judge. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """What came of a question.

    Attributes:
        status: `answered`, `unparsed` (it holds no probability) or `refused` (there is none).
        probability: Pr[the response shown second is better], in [0, 1]; None unless answered.
        text: What was said; None if refused, or if the probability was read without words.
        valid: Probability that an answer can be read at all, in [0, 1], where the judge tells.
        error: Why it was refused; None otherwise.
        finish_reason: Why the text ended, as a server puts it.
        prompt_tokens, completion_tokens: As a server counts them; 0 where it does not.
    """

    status: str
    probability: float | None = None
    text: str | None = None
    valid: float | None = None
    error: str | None = None
    finish_reason: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
