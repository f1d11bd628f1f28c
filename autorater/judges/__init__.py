"""What gives probabilities: `judgments` is what every judge says, `local` a model on this machine.

Importing this package imports no torch; `Judge` does when it is first touched.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from autorater.judges.judgments import Judgments, PairJudge

if TYPE_CHECKING:
    from autorater.judges.local import Judge

__all__ = ["Judge", "Judgments", "PairJudge"]


def __getattr__(name: str):
    if name == "Judge":
        return import_module("autorater.judges.local").Judge
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
