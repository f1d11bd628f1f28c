"""Judges: each gives the probability that the response shown second is preferred.

judgments    the interface of all judges, the base class of those with a name, and the arrays they return
local        `Judge`: a language model on this machine, its answer distribution computed exactly
saved        what is saved with a judge beside its weights
pointwise    `PointwiseJudge`: scores single responses; a pair's probability follows from two scores
methods      judging methods by name: verbalized, self-consistency, letter logits, answer mean; add a new one here
probe        `LinearProbe`: logistic regression on a frozen model's states, one forward pass per response
merging      an adapter merged into its base model
calibrators  recalibrations: curves fitted on votes, applied to a judge's answers
ranking      responses to one prompt ranked by all their pairs: Bradley–Terry strengths
panel        several judges as one: a weighted sum of logits, fitted on votes
endpoint     `EndpointJudge`: a model on an OpenAI-compatible server, with retries and a budget
served       `ServedJudge`: a judge trained here, behind a server, asked as it was measured; `served_pointwise`
client       requests to a server; `replies`: what comes back, `usage`: what they cost, and the budget
cut_prompts  a warning where a server cuts long prompts
recorded     judgments that another program wrote to a file; `recorded_judge` is a judge that reads them
judged       judged pairs, some with votes, from files: those, or predictions of a run
opening      any of these judges, opened by its name; `options` are those of the commands
identity     hashes of judges, prompts and data, by which stored judgments are found

`endpoint`, `recorded` and `opening` import no torch, nor does this package until `Judge` or `LinearProbe` is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from autorater.judges.judgments import Judgments, PairJudge

if TYPE_CHECKING:
    from autorater.judges.local import Judge
    from autorater.judges.probe import LinearProbe

__all__ = ["Judge", "Judgments", "LinearProbe", "PairJudge"]


def __getattr__(name: str):
    if name == "Judge":
        return import_module("autorater.judges.local").Judge
    if name == "LinearProbe":
        return import_module("autorater.judges.probe").LinearProbe
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
