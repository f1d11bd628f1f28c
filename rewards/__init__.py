"""Answer format, scoring rules and reward functions. Requires only NumPy.

    answer.py      parses probabilities and distributions from text, and renders them
    scoring.py     scoring rules S(p, y) on arrays: Brier, logarithmic, spherical, Kullback–Leibler, ranked probability
    functions.py   reward functions for trl.GRPOTrainer: parse completions, score answers, log their distribution

Deliberately left out: models, prompts, data files.
"""

from rewards.answer import (
    CLASS_CLOSE_TAG,
    CLASS_OPEN_TAG,
    CLOSE_TAG,
    OPEN_TAG,
    THINK_CLOSE,
    THINK_OPEN,
    completion_text,
    is_prefilled,
    parse_distribution,
    parse_probability,
    render_answer,
)
from rewards.functions import (
    BrierReward,
    KLReward,
    LogReward,
    RankedProbabilityReward,
    Reward,
    SphericalReward,
    brier_reward,
    kl_reward,
    log_reward,
    spherical_reward,
)

__all__ = [
    "CLASS_CLOSE_TAG",
    "CLASS_OPEN_TAG",
    "CLOSE_TAG",
    "OPEN_TAG",
    "THINK_CLOSE",
    "THINK_OPEN",
    "BrierReward",
    "KLReward",
    "LogReward",
    "RankedProbabilityReward",
    "Reward",
    "SphericalReward",
    "brier_reward",
    "completion_text",
    "is_prefilled",
    "kl_reward",
    "log_reward",
    "parse_distribution",
    "parse_probability",
    "render_answer",
    "spherical_reward",
]
