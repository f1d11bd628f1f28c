"""Where a judge is wrong: calibration by topic, and the worst pairs.

Topics are compared on the response that the judge prefers, since averaged over both orders, the mean answer and the
mean vote of response B are 1/2 for every symmetric judge, right or wrong.
"""

from dataclasses import dataclass

import numpy as np

from autorater.data.pairs import Pair
from autorater.evaluation.judge import Evaluation
from autorater.metrics.agreement import verdicts
from autorater.metrics.scores import brier_scores


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
    """A pair with a large error. Every number is Pr[B is preferred]; `answer` is averaged over both orders."""

    pair: Pair
    answer: float
    answer_ab: float
    answer_ba: float
    answer_before: float


def topic_rows(evaluation: Evaluation, max_topics: int = 30) -> list[TopicRow]:
    """Calibration by topic of the two orders averaged, the largest gap first; pairs without a topic are left out.

    With more than `max_topics` topics, or fewer than two, the result is empty.
    """
    topics = np.array([pair.topic or "" for pair in evaluation.pairs], dtype=object)
    distinct = sorted(set(topics) - {""})
    if not 2 <= len(distinct) <= max_topics:
        return []
    answers, labels = evaluation.judgments.p_sym, evaluation.labels[: len(topics)]
    sides = verdicts(answers)  # 1: prefers B, −1: prefers A, 0: tie
    columns = 0.5 + sides * (answers - 0.5), 0.5 + sides * (labels - 0.5), brier_scores(answers, labels)
    members = [(topic, topics == topic) for topic in distinct]
    rows = [TopicRow(topic, int(here.sum()), *(float(c[here].mean()) for c in columns)) for topic, here in members]
    return sorted(rows, key=lambda row: -abs(row.gap))


def worst_pairs(before: Evaluation, after: Evaluation, n: int = 10) -> list[WorstPair]:
    """The n pairs with the largest |p_sym − p*| after training, worst first; |p_sym − label| if p* is unknown."""
    judgments, target = after.judgments, after.labels if after.truth is None else after.truth
    errors = np.abs(judgments.p_sym - target[: len(after.pairs)])
    shown = np.argsort(-errors, kind="stable")[:n]
    columns = judgments.p_sym, judgments.p_ab, 1 - judgments.p_ba, before.judgments.p_sym
    return [WorstPair(after.pairs[i], *(float(column[i]) for column in columns)) for i in shown]
