"""A scorer for Inspect (`inspect_ai`): how likely the output is preferred over the target.

inspect eval task.py --model MODEL                              # with scorer=preferred("runs/grpo") in the task
inspect score LOG --scorer autorater/preferred -S judge=runs/grpo
"""

from __future__ import annotations

import functools
import math

from inspect_ai.scorer import Score, Scorer, Target, mean, scorer, stderr
from inspect_ai.solver import TaskState

from autorater.data.errors import UserError
from autorater.integrations.preferences import ConcurrentPreferences, Preferences, pair_of

_TARGET = "target"


@scorer(metrics=[mean(), stderr()])
def preferred(judge: str, against: str = _TARGET, **options: object) -> Scorer:
    """Scores a sample by Pr[its output preferred over a reference response], both orders averaged.

    Samples that wait together are judged as one batch; the judge is opened with the first. A sample without an answer
    of the judge is unscored, so the metrics leave it out.

    Args:
        judge: Name of a judge.
        against: `target`, or the name of the sample's metadata that has the reference response.
        options: Budget and options of the judge, as in `Preferences`.

    Raises:
        UserError: As in `Preferences`, or if a sample has no reference.
    """

    @functools.cache
    def opened() -> ConcurrentPreferences:
        return ConcurrentPreferences(Preferences(judge, **options))

    async def score(state: TaskState, target: Target) -> Score:
        reference = target.text if against == _TARGET else state.metadata.get(against)
        if not reference:
            raise UserError(f"sample {state.sample_id!r} has no {against} with a reference response")
        prompt = state.input
        if not isinstance(prompt, str):
            prompt = [{"role": message.role, "content": message.text} for message in prompt]
        output = state.output.completion
        p, reason = await opened().explained(pair_of(prompt, reference, output))
        if math.isnan(p):
            return Score.unscored(answer=output, reason=f"the judge has no answer: {reason}")
        return Score(value=p, answer=output, explanation=f"preferred over the {against} with probability {p:.2f}")

    return score
