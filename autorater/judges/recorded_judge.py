"""A judge whose judgments are in a file: recorded by another program, or the predictions of an earlier run.

A pair is found by its id, if the row with that id does not show other texts; else by its texts, in either order.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from autorater.data.errors import UserError
from autorater.data.loading import as_pairs
from autorater.data.messages import Text, text_or_messages
from autorater.data.pairs import Pair
from autorater.data.tables import Source
from autorater.judges.judged import read_judged
from autorater.judges.judgments import Judgments, NamedJudge
from autorater.judges.recorded import JudgedPair

_TEXTS = ("prompt", "response_a", "response_b")


class RecordedJudge(NamedJudge):
    """Judgments of a file, as a judge.

    Args:
        path: A file as in `autorater.judges.judged`, such as what `autorater judge` writes.

    Attributes:
        one_order: The file has the judgments of one order only; they then count for the other order too.

    Raises:
        DataError: If the file cannot be read or a row is wrong.
    """

    method = "recorded"

    def __init__(self, path: str | os.PathLike[str]):
        self.path = os.fspath(path)
        judged = read_judged(path, unanswered=True)
        given = [not all(math.isnan(pair.answers[order]) for pair in judged) for order in (0, 1)]
        self.one_order = given.count(True) == 1
        if self.one_order:
            judged = [_mirrored(pair, given.index(True)) for pair in judged]
        self._by_id = {pair.id: pair for pair in judged}
        self._by_texts: dict[tuple[Text, ...], JudgedPair] = {}
        for pair in judged:
            if (texts := _texts(pair)) is not None:
                self._by_texts.setdefault(texts, pair)

    def probabilities(self, pairs: Sequence[Pair] | Source, *, progress: bool = False) -> Judgments:
        """The judgments of N pairs in both orders, with the validity of the file, else 1.

        One without an answer has mean 0.5 and validity 0.

        Raises:
            UserError: If a pair is not in the file.
        """
        pairs = as_pairs(pairs)
        found = [self._judged(pair) for pair in pairs]
        missing = [pair.id for pair, judged in zip(pairs, found, strict=True) if judged is None]
        if missing:
            raise UserError(
                f"{self.path}: {len(missing):,} of {len(pairs):,} pairs are not in it, by id or texts, first "
                f"{missing[0]!r}"
            )
        answers, valid = (
            np.array([getattr(judged, name) for judged in found]).reshape(len(pairs), 2)
            for name in ("answers", "valid")
        )
        unanswered = np.isnan(answers)
        mean = np.where(unanswered, 0.5, answers)
        return Judgments(mean, mean.copy(), np.zeros_like(mean), np.where(unanswered, 0.0, valid))

    def n_found(self, pairs: Sequence[Pair]) -> int:
        """The number of pairs that are in the file."""
        return sum(self._judged(pair) is not None for pair in pairs)

    def _judged(self, pair: Pair) -> JudgedPair | None:
        shown = (pair.prompt, pair.response_a, pair.response_b)
        judged = self._by_id.get(pair.id)
        if judged is not None and _texts(judged) in (None, shown):
            return judged
        if shown in self._by_texts:
            return self._by_texts[shown]
        swapped = self._by_texts.get((shown[0], shown[2], shown[1]))
        return None if swapped is None else replace(swapped, answers=swapped.answers[::-1], valid=swapped.valid[::-1])


def _mirrored(pair: JudgedPair, order: int) -> JudgedPair:
    """The judgment of one order for both of them."""
    p = pair.answers[order]
    return replace(pair, answers=(1 - p, p) if order else (p, 1 - p), valid=(pair.valid[order],) * 2)


def _texts(pair: JudgedPair) -> tuple[Text, ...] | None:
    if any(pair.row.get(name) is None for name in _TEXTS):
        return None
    return tuple(text_or_messages(pair.row[name], name, blank=True) for name in _TEXTS)
