"""Projection onto simplex ∩ ball: the nearest distribution within a given distance of another distribution.

    P(y) = argmin_x ‖x − y‖    with    x ≥ 0,  Σ x = 1,  ‖x − c‖ ≤ r

The centre c is a distribution, so the set is never empty. With a multiplier for the ball, x is the projection onto the
simplex of a point between c and y, x(u) = P_Δ(c + u (y − c)) with u in [0, 1], for the largest u whose x(u) is in the
ball. On a fixed support S of s classes this has a closed form (d = y − c, bars are means over S):

    x_S = 1/s + (c − c̄)_S + u (d − d̄)_S            ‖x − c‖² = u² A + B,    A = ‖(d − d̄)_S‖²
                                                    B = (1 − Σ_S c)² / s + Σ_{not S} c²

As u grows, classes only leave S (the threshold of P_Δ is convex in u), so ‖x − c‖² is an increasing, concave,
piecewise linear function of u². Newton's method from the left therefore never overshoots and reaches the right piece
after at most K steps, usually three. The result is exact up to rounding.

arXiv 2505.12301 solves the problem with CVXPY for every sample, as `benchmarks/harness/cvxpy_projection.py` does.
Deliberately left out: centres outside the simplex (the set may be empty), weighted balls.
"""

import math

import numpy as np
import torch
from numpy.typing import ArrayLike

_CENTER_TOLERANCE = 1e-6  # rounding errors of a centre's entries and sum; in half precision K ulps
_Array = torch.Tensor | ArrayLike


def project_simplex_ball(points: _Array, center: _Array, radius: _Array) -> torch.Tensor | np.ndarray:
    """The nearest points in the probability simplex that are within `radius` of `center`, by L2 distance.

    Gradients flow into all three arguments, for the current support and the active constraints; at a kink they are
    one-sided. At radius 0 the points and the radius get none.

    Args:
        points: Shape (…, K), K ≥ 1, finite; any float dtype, on any device.
        center: Distributions, shape (…, K); leading dimensions broadcast. A centre outside the simplex by rounding
            (1e-6 in an entry or the sum, more in half precision) is replaced by the nearest distribution.
        radius: ≥ 0, a number or of a shape that broadcasts with the leading dimensions, (…) or (…, 1). The ball
            contains the whole simplex from √2 on.

    Returns:
        Shape (…, K): a tensor of the promoted dtype if any argument is a tensor, else an array. Half precision is
        computed in float32.

    Raises:
        ValueError: If a value is NaN, a point or a centre is infinite, a radius is negative, a centre is not a
            distribution, or the shapes do not match.

    Example:
        >>> project_simplex_ball([1.0, 0.5, -0.5], [0.2, 0.3, 0.5], 0.1)
        array([0.26172134, 0.31543033, 0.42284833])
    """
    arguments = (points, center, radius)
    points, center, radius = _tensors(*arguments)
    result = _project(*_checked(points, center, radius)).to(torch.promote_types(points.dtype, center.dtype))
    return result if any(torch.is_tensor(x) for x in arguments) else result.numpy()


def _tensors(*arrays: _Array) -> tuple[torch.Tensor, ...]:
    """Float tensors; numbers and arrays get the device, and numbers the dtype, of the first tensor."""
    like = next((x for x in arrays if torch.is_tensor(x)), None)
    device = None if like is None else like.device

    def tensor(x) -> torch.Tensor:
        if not torch.is_tensor(x):
            # as everywhere in torch, a number beside a tensor does not widen the result, and an array does
            dtype = like.dtype if like is not None and not isinstance(x, np.ndarray) else None
            array = np.require(x, np.float64 if like is None else None, "W")  # torch warns of a read-only array
            x = torch.as_tensor(array, dtype=dtype, device=device)
        return x if x.is_floating_point() else x.to(torch.get_default_dtype())

    return tuple(tensor(x) for x in arrays)


def _checked(points: torch.Tensor, center: torch.Tensor, radius: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Points (…, K), centres (…, K) and radii (…, 1) of one shape and dtype, valid."""
    if points.ndim == 0 or center.ndim == 0 or points.shape[-1] != center.shape[-1] or not points.shape[-1]:
        shapes = f"{tuple(points.shape)} and {tuple(center.shape)}"
        raise ValueError(f"points and center must end in the same K >= 1 classes, got shapes {shapes}")
    if radius.ndim == max(points.ndim, center.ndim) and radius.shape[-1] == 1:
        radius = radius[..., 0]
    try:
        batch = torch.broadcast_shapes(points.shape[:-1], center.shape[:-1], radius.shape)
    except RuntimeError:
        shapes = f"points {tuple(points.shape)}, center {tuple(center.shape)}, radius {tuple(radius.shape)}"
        raise ValueError(f"leading dimensions do not broadcast: {shapes}") from None
    _require("points", points, points.isfinite(), "finite")
    _require("center", center, center.isfinite(), "finite")
    _require("radius", radius, radius >= 0, ">= 0")

    classes = center.shape[-1]
    tolerance = max(_CENTER_TOLERANCE, classes * torch.finfo(center.dtype).eps)
    dtype = torch.promote_types(torch.promote_types(points.dtype, center.dtype), torch.float32)
    points, center, radius = points.to(dtype), center.to(dtype), radius.to(dtype)
    _require("entries of center", center, center >= -tolerance, ">= 0")
    total = center.sum(dim=-1)
    _require("the sum of center", total, (total - 1).abs() <= tolerance, "1")
    center = _on_support(center, _simplex_support(center.detach()))
    radius = radius.clamp_max(math.sqrt(2))  # no two distributions are further apart
    return points.expand(*batch, classes), center.expand(*batch, classes), radius.expand(batch)[..., None]


def _require(name: str, x: torch.Tensor, valid: torch.Tensor, expected: str) -> None:
    if not valid.all():
        raise ValueError(f"{name} must be {expected}, got {x[~valid][0].item():g}")


def _project(points: torch.Tensor, center: torch.Tensor, radius: torch.Tensor) -> torch.Tensor:
    scale, support = _scale_and_support(points.detach(), center.detach(), radius.detach())
    if torch.is_grad_enabled() and any(x.requires_grad for x in (points, center, radius)):
        # Repeated on the final support, with autograd: the same values, and their derivatives.
        slope, offset = _distance_terms(points - center, center, support)
        on_sphere = (scale < 1) & (scale > 0)
        ratio = torch.where(on_sphere, (radius**2 - offset) / torch.where(on_sphere, slope, 1.0), 1.0)
        scale = torch.where(on_sphere & (ratio > 0), ratio.clamp_min(0).sqrt(), scale)
    return _on_support(center + scale * (points - center), support).clamp_min(0)


@torch.no_grad()
def _scale_and_support(points: torch.Tensor, center: torch.Tensor, radius: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """u of every row, shape (…, 1), and the support of x(u), shape (…, K)."""
    direction = points - center
    nearest = _simplex_support(points)
    inside = (_on_support(points, nearest) - center).norm(dim=-1, keepdim=True) <= radius
    # A projection moves no two points apart, so ‖x(u) − c‖ ≤ u ‖d − d̄‖: a start to the left of the root.
    reach = (direction - direction.mean(dim=-1, keepdim=True)).norm(dim=-1, keepdim=True)
    scale = torch.where(inside, 1.0, radius / reach.where(~inside, 1.0)).clamp_max(1)
    support = _simplex_support(center + scale * direction)
    for _ in range(points.shape[-1]):
        slope, offset = _distance_terms(direction, center, support)
        ahead = ((radius**2 - offset) / slope.where(slope > 0, 1.0)).clamp(0, 1).sqrt()
        ahead = torch.where(inside | (slope <= 0), scale, ahead)
        if not (ahead > scale).any():
            break
        scale = torch.maximum(scale, ahead)
        before, support = support, _simplex_support(center + scale * direction)
        if torch.equal(before, support):
            break
    return scale, support


def _distance_terms(direction: torch.Tensor, center: torch.Tensor, support: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """A and B of ‖x(u) − c‖² = u² A + B on a support, shape (…, 1) each."""
    size = support.sum(dim=-1, keepdim=True)
    inner = direction * support
    inner = (inner - inner.sum(dim=-1, keepdim=True) / size) * support
    outside = center * ~support
    missing = outside.sum(dim=-1, keepdim=True)  # 1 − Σ_S c without cancellation
    return inner.square().sum(dim=-1, keepdim=True), missing**2 / size + outside.square().sum(dim=-1, keepdim=True)


def _simplex_support(points: torch.Tensor) -> torch.Tensor:
    """Support of the projection onto the simplex, shape (…, K), bool, never empty.

    It consists of the j largest entries, for the largest j with j · y_(j) + 1 > Σ_{i ≤ j} y_(i) (Held, Wolfe &
    Crowder 1974; Duchi et al. 2008).
    """
    ordered = (points - points.amax(dim=-1, keepdim=True)).sort(dim=-1, descending=True).values
    ranks = torch.arange(1, points.shape[-1] + 1, dtype=points.dtype, device=points.device)
    excess = ordered.cumsum(dim=-1) - 1
    size = (ranks * ordered > excess).sum(dim=-1, keepdim=True)
    threshold = excess.gather(-1, size - 1) / size
    return points - points.amax(dim=-1, keepdim=True) > threshold


def _on_support(points: torch.Tensor, support: torch.Tensor) -> torch.Tensor:
    """Points shifted along the ones vector so that their support sums to 1; 0 outside the support."""
    points = points - points.detach().amax(dim=-1, keepdim=True)  # large numbers would cancel in the sum
    missing = 1 - (points * support).sum(dim=-1, keepdim=True)
    return (points + missing / support.sum(dim=-1, keepdim=True)).where(support, 0.0)
