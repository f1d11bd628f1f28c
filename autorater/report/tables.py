"""The tables of a report other than the metrics: calibration by topic, the worst pairs, the settings.

Topics are compared on the response that the judge prefers: over both orders the mean answer and the mean vote are 1/2
for every symmetric judge, right or wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from autorater.data.pairs import Pair
from autorater.metrics.agreement import verdicts
from autorater.metrics.scores import brier_scores

if TYPE_CHECKING:
    from autorater.evaluation.judge import Evaluation

_SECRET_ENDINGS = ("token", "key", "secret", "password")


@dataclass(frozen=True)
class TopicRow:
    """Calibration on the pairs of one topic; `answer` and `vote` are means for the response the judge prefers."""

    topic: str
    n_pairs: int
    answer: float
    vote: float
    brier: float

    @property
    def gap(self) -> float:
        """Mean answer − mean vote; above 0 the judge is overconfident."""
        return self.answer - self.vote


@dataclass(frozen=True)
class WorstPair:
    """A pair on which the averaged answer is far off. Every probability is that of response B being preferred."""

    pair: Pair
    answer: float
    answer_ab: float
    answer_ba: float
    answer_before: float

    @property
    def texts(self) -> tuple[tuple[str, str], ...]:
        """Its texts by name."""
        pair = self.pair
        return ("Prompt", pair.prompt), ("Response A", pair.response_a), ("Response B", pair.response_b)


def topic_rows(evaluation: Evaluation, max_topics: int = 30) -> list[TopicRow]:
    """Calibration by topic of the two orders averaged, the largest gap first.

    Args:
        evaluation: N pairs; those without a topic are left out.
        max_topics: With more topics than this, or fewer than two, there are no rows.
    """
    topics = np.array([pair.topic or "" for pair in evaluation.pairs], dtype=object)
    distinct = sorted(set(topics) - {""})
    if not 2 <= len(distinct) <= max_topics:
        return []
    answers = evaluation.judgments.p_sym
    labels = np.array([pair.label for pair in evaluation.pairs])
    sides = verdicts(answers)  # 1: prefers B, −1: prefers A, 0: neither, which is 1/2 against 1/2
    preferred, votes, brier = (
        0.5 + sides * (answers - 0.5),
        0.5 + sides * (labels - 0.5),
        brier_scores(answers, labels),
    )
    rows = []
    for topic in distinct:
        here = topics == topic
        means = (float(column[here].mean()) for column in (preferred, votes, brier))
        rows.append(TopicRow(topic, int(here.sum()), *means))
    return sorted(rows, key=lambda row: -abs(row.gap))


def worst_pairs(before: Evaluation, after: Evaluation, n: int = 10) -> list[WorstPair]:
    """The pairs with the largest |p_sym − p*| after training, the worst first; |p_sym − label| where p* is unknown."""
    answers = after.judgments.p_sym
    target = after.labels if after.truth is None else after.truth
    errors = np.abs(answers - target[: len(answers)])
    return [
        WorstPair(
            pair=after.pairs[i],
            answer=float(answers[i]),
            answer_ab=float(after.judgments.p_ab[i]),
            answer_ba=float(1 - after.judgments.p_ba[i]),
            answer_before=float(before.judgments.p_sym[i]),
        )
        for i in np.argsort(-errors, kind="stable")[:n]
    ]


def settings_rows(settings: Mapping[str, object]) -> list[tuple[str, str]]:
    """Names and values as text. A report is made to be passed on: values of tokens, keys and passwords are hidden."""
    return [
        (str(name), "(hidden)" if value and str(name).lower().endswith(_SECRET_ENDINGS) else str(value))
        for name, value in settings.items()
    ]
