"""The ground floor: the answer format, the scoring rules, and the rewards made of both. Needs numpy, nothing more.

    answer.py      text -> probability or distribution, and back; what counts as an answer and what does not
    scoring.py     S(p, y) on arrays: Brier, logarithmic, spherical, Kullback–Leibler, ranked probability
    functions.py   reward functions for trl.GRPOTrainer: read the completion, score it, log how answers spread

Left out on purpose: models, prompts, data files. A worker that only scores imports this and stays light.
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
