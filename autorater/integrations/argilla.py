"""Suggestions for Argilla: pairs with the answer of the judge, for people to confirm or correct; imports no argilla.

    dataset.records.log([rg.Record.from_dict(record) for record in suggested_records(pairs, p, agent="runs/grpo")])

Their answers come back as votes by `load_pairs(dataset.records.to_list(flatten=True))`: submitted answers count,
drafts and suggestions do not (`autorater.data.layouts.exports`). Without `flatten`, Argilla 2.8 leaves out the status,
and drafts would count. The dataset has the text fields `prompt`, `response_a`, `response_b` (chat fields for
conversations), and a label question with the labels A, tie and B.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from numpy.typing import ArrayLike

from autorater.data.messages import as_json
from autorater.data.pairs import Pair
from autorater.integrations.preferences import verdict

QUESTION = "preference"


def suggested_records(
    pairs: Sequence[Pair], probabilities: ArrayLike, agent: str, question: str = QUESTION
) -> list[dict[str, object]]:
    """Records of N pairs, as mappings for `argilla.Record.from_dict`.

    Args:
        probabilities: Pr[B preferred], in [0, 1], shape (N,), `p_sym` of a judge's `probabilities(pairs)`; NaN where
            these are not `answered`.
        agent: Name of the judge, shown beside the suggestion.
        question: Name of the label question.

    Returns:
        Records whose suggestion is the likelier response, with its probability as the score; a tie for exactly 0.5.
        `probability_b` is in the metadata, so that the least certain pairs can be voted on first.
    """
    records = []
    for pair, p in zip(pairs, (float(p) for p in probabilities), strict=True):
        fields = {name: as_json(getattr(pair, name)) for name in ("prompt", "response_a", "response_b")}
        record: dict[str, object] = {"id": pair.id, "fields": fields}
        if not math.isnan(p):
            value = {"value": verdict(p), "score": max(p, 1 - p), "agent": agent, "type": "model"}
            record |= {"suggestions": {question: value}, "metadata": {"probability_b": p}}
        records.append(record)
    return records
