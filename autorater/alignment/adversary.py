"""An adversary for distributions: what the annotators' shares may have been, at worst.

A few votes give shares p̂ that miss the population's distribution. Within what they may have missed, the training is
told the distribution that is furthest from the model's q (arXiv 2505.12301):

    max_p KL(p ‖ q) over {p in the simplex, ‖p − p̂‖ ≤ r}, by steps p ← P(p + η ∇_p KL), ∇_p KL = log(p / q) + 1

P is the projection of `autorater.projection`. The KL is convex in p, so with an exact projection every step of any
size raises it by ‖step‖² / η at least. It is a local search all the same: at a label without a vote the slope is −∞,
so first-order ascent never gives it mass, and an item on which all votes agree (a vertex) stays as it is.

Random perturbations, against which the paper measures robustness, are here too.
"""

from collections.abc import Callable

import numpy as np
import torch

from autorater.projection import project_simplex_ball

_FLOOR = 1e-12  # stands for 0 in the logarithm: log 1e-12 is far enough down to keep an empty label empty

Projection = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | float], torch.Tensor]


def worst_case(
    shares: torch.Tensor,
    log_q: torch.Tensor,
    radius: torch.Tensor | float,
    *,
    steps: int = 5,
    step_size: float = 0.05,
    project: Projection = project_simplex_ball,
    differentiable: bool = False,
) -> torch.Tensor:
    """Distributions near the shares that are far from the model's.

    Args:
        shares: Empirical distributions, shape (…, K).
        log_q: Logarithms of the model's distributions, shape (…, K).
        radius: Of the L2 ball around the shares, ≥ 0; a number or one a distribution, shape (…).
        steps, step_size: Of the projected gradient ascent.
        project: `project_simplex_ball`, or something else with its meaning.
        differentiable: Let gradients flow from the result into `shares`, `log_q` and `radius`. Training does not need
            it: at a maximum the derivative of the loss does not pass through the argument.

    Returns:
        Shape (…, K); KL(result ‖ q) ≥ KL(shares ‖ q).
    """
    with torch.set_grad_enabled(differentiable and torch.is_grad_enabled()):
        p = shares
        for _ in range(steps):
            ascent = p.clamp_min(_FLOOR).log() - log_q  # the + 1 moves nothing within the simplex
            p = project(p + step_size * ascent, shares, radius)
        return p


def random_perturbation(shares: np.ndarray, size: float, seed: int) -> np.ndarray:
    """Distributions at an L2 distance of `size` from the shares in random directions, or nearer at the simplex's rim.

    Args:
        shares: Distributions, shape (N, K).
        size: ≥ 0.
        seed: Of the directions.

    Returns:
        Shape (N, K).
    """
    direction = np.random.default_rng(seed).normal(size=shares.shape)
    direction -= direction.mean(axis=1, keepdims=True)  # uniform on the sphere within the plane of distributions
    direction *= size / np.linalg.norm(direction, axis=1, keepdims=True)
    return project_simplex_ball(shares + direction, shares, size)
