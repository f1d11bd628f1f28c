"""Reasoning in front of an answer: where it ends, and what is then put behind it.

A judge that reasons writes `…</think>`; the opening answer tag behind it is not left to chance but written for it, and
the answer is read off there (`autorater.models.answers`) instead of being drawn:

    prompt | reasoning </think> | <prob_rb_better> | answer tree

Reasoning that does not end within its tokens has no answer.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from rewards.answer import OPEN_TAG, THINK_CLOSE


@dataclass(frozen=True)
class Reasoning:
    """A completion up to the place where its answer is read.

    Attributes:
        ids: Tokens of the reasoning and, if it ended, of the tags that were put behind it.
        written: How many of them the model wrote, from the front.
        closed: Whether it ended.
    """

    ids: list[int]
    written: int
    closed: bool


def close_reasoning(tokenizer: PreTrainedTokenizerBase, completion_ids: Sequence[int]) -> Reasoning:
    """Cuts a completion behind its first `</think>` and opens the answer there.

    A token that reaches across that place (`><` is one in many vocabularies) is replaced by what of it stands before.
    It then is not the model's own any more, and a policy gradient does not see that it closed the reasoning.

    Args:
        tokenizer: Wrote the completion.
        completion_ids: Tokens of one completion; what comes behind its reasoning is dropped.
    """
    ids = list(completion_ids)
    text = _decode(tokenizer, ids)
    start = text.find(THINK_CLOSE)
    if start < 0:
        return Reasoning(ids, len(ids), closed=False)
    end = start + len(THINK_CLOSE)
    kept = bisect_right(range(len(ids) + 1), end, key=lambda n: len(_decode(tokenizer, ids[:n]))) - 1
    tail = text[len(_decode(tokenizer, ids[:kept])) : end] + OPEN_TAG
    return Reasoning(ids[:kept] + tokenizer(tail, add_special_tokens=False)["input_ids"], kept, closed=True)


def _decode(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
