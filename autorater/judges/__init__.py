"""What gives probabilities.

judgments     what every judge says, and what it takes to be one
local         a model on this machine, its answers read as a distribution
verbalized    the number that it says
consistency   the share of several numbers that are drawn from it
letters       its next token, A against B
methods       these by name
wrappers      both orders averaged, recalibrated: around any judge

Importing this package imports no torch; `Judge` does when it is first touched.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from autorater.judges.judgments import Judgments, PairJudge
from autorater.judges.wrappers import Recalibrated, SwapAveraged

if TYPE_CHECKING:
    from autorater.judges.local import Judge

__all__ = ["Judge", "Judgments", "PairJudge", "Recalibrated", "SwapAveraged"]


def __getattr__(name: str):
    if name == "Judge":
        return import_module("autorater.judges.local").Judge
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
