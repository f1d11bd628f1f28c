"""autorater: LLM judges that state the probability that one of two responses is preferred, trained to be calibrated.

data        pairs and items with their votes, files, simulated annotators
prompts     judge prompts as text and as token ids
models      language models: loading, tiny ones from scratch, shared prefixes, exact distributions over answers
judges      a probability for every pair, from a model, a server or recorded judgments; judging methods, calibrators
metrics     scores, calibration, agreement, position bias, confidence intervals
evaluation  a judge measured on held-out pairs; judging methods compared
report      plots, HTML pages, tables, model cards; decisions: win rates from few votes, which judgments may stand
training    warm start, GRPO, RLOO, PPO, SFT; checkpoints and tracking
audit       position bias and other probes of any judge
alignment   judges that match a distribution over labels
charm       reward models calibrated by Elo ratings
integrations  the judge as a reward (TRL, verl) and in tools: Inspect, alpaca_eval, promptfoo, Argilla, Label Studio
projection  the nearest distribution within a given distance of another
progress    progress bars of judging, reading and scoring
cli         arguments, logging and exit status of the scripts

Data flows in one direction: pairs → prompts → answers → rewards → update → metrics → report. The package `rewards`
scores the answers. Importing this package requires no torch; `Judge` imports it when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from autorater.data.errors import DataError
from autorater.data.loading import load_pairs
from autorater.data.pairs import Pair

if TYPE_CHECKING:
    from autorater.judges import Judge

__all__ = ["DataError", "Judge", "Pair", "load_pairs"]


def __getattr__(name: str):
    if name == "Judge":
        return import_module("autorater.judges").Judge
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
