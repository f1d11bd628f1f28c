"""Tasks for Label Studio with what the judge would choose, for a project with `<Pairwise>`; imports no Label Studio.

    Path("tasks.json").write_text(json.dumps(predicted_tasks(pairs, p, model_version="runs/grpo")))

`CONFIG` is the labelling interface. Exported annotations come back as votes by `load_pairs("export.json")`: completed
annotations count, predictions never do (`autorater.data.layouts.exports`). `<Pairwise>` has no tie.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from numpy.typing import ArrayLike

from autorater.data.messages import plain_text
from autorater.data.pairs import Pair

CONFIG = """<View>
  <Text name="prompt" value="$prompt"/>
  <Pairwise name="preference" toName="response_a,response_b"/>
  <Text name="response_a" value="$response_a"/>
  <Text name="response_b" value="$response_b"/>
</View>"""


def predicted_tasks(pairs: Sequence[Pair], probabilities: ArrayLike, model_version: str) -> list[dict[str, object]]:
    """Tasks of N pairs, with a prediction where one response is likelier; `<Pairwise>` has no tie for exactly 0.5.

    Args:
        probabilities: Pr[B preferred], in [0, 1], shape (N,), `p_sym` of a judge's `probabilities(pairs)`; NaN where
            these are not `answered`.
        model_version: Name of the judge, shown beside the prediction.

    Returns:
        Tasks as JSON values; the prediction is the likelier response (`left` is A), with its probability as the score.
    """
    tasks = []
    for pair, p in zip(pairs, (float(p) for p in probabilities), strict=True):
        texts = {name: plain_text(getattr(pair, name)) for name in ("prompt", "response_a", "response_b")}
        task: dict[str, object] = {"data": {"pair_id": pair.id} | texts}
        if not (math.isnan(p) or p == 0.5):
            result = {
                "from_name": "preference",
                "to_name": "response_a",
                "type": "pairwise",
                "value": {"selected": "right" if p > 0.5 else "left"},
            }
            score = {"model_version": model_version, "score": max(p, 1 - p)}
            task["predictions"] = [score | {"result": [result]}]
        tasks.append(task)
    return tasks
