"""An adversary for distributions: the worst of the distributions that the vote shares are compatible with.

The shares p̂ of a few votes differ from the population's distribution. Within a ball around p̂, the training uses the
distribution that is farthest from the model's q (arXiv 2505.12301):

    max_p KL(p ‖ q) over {p in the simplex, ‖p − p̂‖ ≤ r}, by steps p ← P(p + η ∇_p KL), ∇_p KL = log(p / q) + 1

P is the projection of `autorater.projection`. The KL is convex in p, so with an exact projection every step raises it
by at least ‖step‖² / η. It is a local search: at a label without a vote the slope is −∞, so first-order ascent never
gives it mass, and an item on which all votes agree (a vertex) does not change.

Random perturbations, against which the paper measures robustness, are here too.
"""

import numpy as np
import torch

from autorater.projection import project_simplex_ball

_LOWEST = -1e4  # replaces the slope −∞ of an empty label: below any other one, whatever the model's q


@torch.no_grad()  # at a maximum the derivative of the loss does not depend on the argument
def worst_case(
    shares: torch.Tensor,
    log_q: torch.Tensor,
    radius: torch.Tensor | float,
    *,
    steps: int = 5,
    step_size: float = 0.05,
) -> torch.Tensor:
    """Distributions near the shares that are far from the model's.

    Args:
        shares: Empirical distributions, shape (…, K).
        log_q: Logarithms of the model's distributions, shape (…, K).
        radius: Radius of the L2 ball around the shares, ≥ 0; one number, or one per distribution, shape (…).
        steps, step_size: Of the projected gradient ascent.

    Returns:
        Shape (…, K); KL(result ‖ q) ≥ KL(shares ‖ q).
    """
    p = shares
    for _ in range(steps):
        ascent = (p.clamp_min(0).log() - log_q).clamp_min(_LOWEST)  # the + 1 has no effect within the simplex
        p = project_simplex_ball(p + step_size * ascent, shares, radius)
    return p


def random_perturbation(shares: np.ndarray, size: float, seed: int) -> np.ndarray:
    """Distributions at an L2 distance of `size` ≥ 0 from the shares, shape (N, K), in random directions.

    At the boundary of the simplex they are nearer.
    """
    direction = np.random.default_rng(seed).normal(size=shares.shape)
    direction -= direction.mean(axis=1, keepdims=True)  # uniform on the sphere within the plane of distributions
    direction *= size / np.linalg.norm(direction, axis=1, keepdims=True)
    return project_simplex_ball(shares + direction, shares, size)
