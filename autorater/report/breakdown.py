"""Where a judge is wrong: calibration by topic, and the worst pairs.

Topics are compared on the response that the judge prefers, since averaged over both orders, the mean answer and the
mean vote of response B are 1/2 for every symmetric judge, right or wrong.
"""

import numpy as np

from autorater.evaluation.judge import Evaluation
from autorater.metrics.agreement import verdicts
from autorater.metrics.scores import brier_scores

_MAX_TOPICS = 30
_N_WORST = 10


def topic_rows(evaluation: Evaluation) -> list[dict]:
    """Calibration by topic of the two orders averaged, the largest gap first; pairs without a topic are left out.

    A row has the `topic`, `n_pairs`, `brier`, the means `answer` and `vote` for the response that the judge prefers,
    and their difference `gap`, above 0 if it is overconfident; means are weighted by the pairs' weights. With more
    than 30 topics, or fewer than two, there is no row; topics of weight 0 do not count.
    """
    topics = np.array([pair.topic or "" for pair in evaluation.pairs], dtype=object)
    weights = np.ones(topics.size) if evaluation.weights is None else evaluation.weights[: topics.size]
    distinct = sorted(set(topics[weights > 0]) - {""})
    if not 2 <= len(distinct) <= _MAX_TOPICS:
        return []
    answers, labels = evaluation.judgments.p_sym, evaluation.labels[: topics.size]
    sides = verdicts(answers)  # 1: prefers B, −1: prefers A, 0: tie
    columns = {
        "answer": 0.5 + sides * (answers - 0.5),
        "vote": 0.5 + sides * (labels - 0.5),
        "brier": brier_scores(answers, labels),
    }
    rows = []
    for topic in distinct:
        here = topics == topic
        means = {name: float(np.average(column[here], weights=weights[here])) for name, column in columns.items()}
        rows.append({"topic": topic, "n_pairs": int(here.sum()), "gap": means["answer"] - means["vote"], **means})
    return sorted(rows, key=lambda row: -abs(row["gap"]))


def worst_pairs(before: Evaluation, after: Evaluation) -> list[dict]:
    """The ten pairs with the largest |p_sym − p*| after training, worst first; |p_sym − label| if p* is unknown.

    A row has the `pair` and Pr[B preferred] as `answer`, averaged over both orders, `answer_ab`, `answer_ba` and
    `answer_before`.
    """
    judgments, target = after.judgments, after.labels if after.truth is None else after.truth
    errors = np.abs(judgments.p_sym - target[: len(after.pairs)])
    columns = {
        "answer": judgments.p_sym,
        "answer_ab": judgments.p_ab,
        "answer_ba": 1 - judgments.p_ba,
        "answer_before": before.judgments.p_sym,
    }
    shown = np.argsort(-errors, kind="stable")[:_N_WORST]
    return [{"pair": after.pairs[i]} | {name: float(c[i]) for name, c in columns.items()} for i in shown]
