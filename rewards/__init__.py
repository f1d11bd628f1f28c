"""Answer format, scoring rules and reward functions. Requires only NumPy.

answer     parses probabilities and distributions from text, and renders them
scoring    scoring rules S(p, y) on arrays: Brier, logarithmic, spherical, Kullback–Leibler, ranked probability
functions  reward functions for trl.GRPOTrainer: parse completions, score answers, log their distribution; the reward
           of an invalid answer
"""

from rewards.answer import (
    CLOSE_TAG,
    OPEN_TAG,
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
    VotesReward,
    brier_reward,
    kl_reward,
    log_reward,
    spherical_reward,
)
