"""autorater: LLM judges that say how likely it is that one response is preferred, and mean it.

pairs, loading      a pair of responses with its votes; reading it from files
population          simulated annotators with a known truth
prompts             the judge prompt, as text and as token ids
policy              the language model, loaded or built from scratch
prefix, answers     one forward pass for a prompt with everything behind it; the exact distribution over answers
judges              what gives probabilities
training            warm start, GRPO, calibration while training, tracking
metrics             calibration, agreement, position bias, intervals
evaluation, report  a judge measured on held-out pairs; pictures and pages of it

Data flows one way: pairs → prompts → answers → rewards → update → metrics → report. Importing this package imports no
torch; `Judge` does when it is first touched.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from autorater.loading import DataError, load_pairs
from autorater.pairs import Pair

if TYPE_CHECKING:
    from autorater.judges import Judge

__all__ = ["DataError", "Judge", "Pair", "load_pairs"]


def __getattr__(name: str):
    if name == "Judge":
        return import_module("autorater.judges").Judge
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
