"""What gives probabilities: a local model (`local`)."""

from autorater.judges.local import Judge, Judgments

__all__ = ["Judge", "Judgments"]
