"""Projection onto simplex ∩ ball: the nearest distribution that is within a distance of a given one.

    P(y) = argmin_x ‖x − y‖    with    x ≥ 0,  Σ x = 1,  ‖x − c‖ ≤ r

c is itself a distribution, so the set is never empty. With a multiplier for the ball, x is the projection onto the
simplex alone of a point between c and y, x(u) = P_Δ(c + u (y − c)) with u in [0, 1], and the largest u whose x(u) is
in the ball is wanted. On a fixed support S of s classes that is a closed form (d = y − c, bars are means over S):

    x_S = 1/s + (c − c̄)_S + u (d − d̄)_S            ‖x − c‖² = u² A + B,    A = ‖(d − d̄)_S‖²
                                                    B = (1 − Σ_S c)² / s + Σ_{not S} c²

As u grows classes only leave S (the threshold of P_Δ is convex in u), hence ‖x − c‖² is an increasing, concave,
piecewise linear function of u². Newton's method from the left climbs it without overshooting and ends on the right
piece after at most K steps, usually three: exact up to rounding, no tolerance to choose.

The paper that wants it (arXiv 2505.12301) calls a solver for every sample; `CvxpyProjection` does so too, as an option
and for comparison. Deliberately left out: centres outside the simplex (the set may be empty), weighted balls.
"""

import math

import numpy as np
import torch
from numpy.typing import ArrayLike

_CENTER_TOLERANCE = 1e-6  # rounding of a centre's entries and sum that is corrected; in half precision K ulps


def project_simplex_ball(
    points: torch.Tensor | ArrayLike, center: torch.Tensor | ArrayLike, radius: torch.Tensor | ArrayLike
) -> torch.Tensor | np.ndarray:
    """The nearest points in the probability simplex that are within `radius` of `center`, by L2 distance.

    Gradients flow into all three arguments: those of the present support and of the constraints that are active, which
    at a kink is one of the one-sided ones. At radius 0 the points and the radius get none.

    Args:
        points: What to project, shape (…, K), K ≥ 1, finite; any float dtype, on any device.
        center: Distributions, shape (…, K); leading dimensions broadcast. A centre that misses the simplex by rounding
            (1e-6 an entry or in the sum, more in half precision) is taken to be the nearest distribution.
        radius: ≥ 0, a number or of a shape that broadcasts with the leading dimensions, (…) or (…, 1). Above √2 it
            does not matter: only the simplex is left.

    Returns:
        Shape (…, K): a tensor of the promoted dtype where any argument is a tensor, else an array. Half precision is
        computed in float32.

    Raises:
        ValueError: If something is NaN, a point or a centre is infinite, a radius is negative, a centre is not a
            distribution, or the shapes do not fit.

    Example:
        >>> project_simplex_ball([1.0, 0.5, -0.5], [0.2, 0.3, 0.5], 0.1)
        array([0.26172134, 0.31543033, 0.42284833])
    """
    given = (points, center, radius)
    points, center, radius = _tensors(*given)
    result = _project(*_checked(points, center, radius)).to(torch.promote_types(points.dtype, center.dtype))
    return result if any(torch.is_tensor(x) for x in given) else result.numpy()


class CvxpyProjection:
    """The same projection by a general solver (CVXPY with Clarabel), one row at a time; it has no gradients.

    The problem is compiled once, with point, centre and radius as its parameters (DPP).

    Args:
        n_classes: K.
        tolerance: Of the solver: feasibility and duality gap.

    Raises:
        ImportError: If cvxpy is not installed.
    """

    def __init__(self, n_classes: int, tolerance: float = 1e-8):
        import cvxpy as cp

        self._x = cp.Variable(n_classes)
        self._point, self._center = cp.Parameter(n_classes), cp.Parameter(n_classes)
        self._radius = cp.Parameter(nonneg=True)
        self._problem = cp.Problem(
            cp.Minimize(cp.sum_squares(self._x - self._point)),
            [self._x >= 0, cp.sum(self._x) == 1, cp.norm(self._x - self._center) <= self._radius],
        )
        self._options = {
            "solver": cp.CLARABEL,
            "tol_feas": tolerance,
            "tol_gap_abs": tolerance,
            "tol_gap_rel": tolerance,
        }

    def __call__(self, points: torch.Tensor, center: torch.Tensor, radius: torch.Tensor | float) -> torch.Tensor:
        """As `project_simplex_ball`, for tensors; the result is detached.

        Raises:
            RuntimeError: If the solver does not find the solution of a row.
        """
        points, center, radius = _tensors(points, center, radius)
        rows = [x.detach().double().cpu() for x in _checked(points, center, radius)]
        flat = [rows[0].reshape(-1, rows[0].shape[-1]), rows[1].reshape(-1, rows[1].shape[-1]), rows[2].reshape(-1)]
        solved = torch.stack([self._solve(*row) for row in zip(*flat, strict=True)])
        return solved.reshape(rows[0].shape).to(points)

    def _solve(self, point: torch.Tensor, center: torch.Tensor, radius: torch.Tensor) -> torch.Tensor:
        self._point.value, self._center.value = point.numpy(), center.numpy()
        self._radius.value = float(radius)
        self._problem.solve(**self._options)
        if self._x.value is None:
            raise RuntimeError(f"the solver found no projection ({self._problem.status}) of {point.tolist()}")
        return torch.from_numpy(self._x.value)


def _tensors(points, center, radius) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Float tensors on one device; numbers and arrays follow the tensors among the arguments."""
    like = next((x for x in (points, center, radius) if torch.is_tensor(x)), None)
    device = None if like is None else like.device

    def tensor(x) -> torch.Tensor:
        if not torch.is_tensor(x):
            # beside a tensor a plain number does not widen the result, as everywhere in torch; an array does
            dtype = like.dtype if like is not None and not isinstance(x, np.ndarray) else None
            x = torch.as_tensor(np.asarray(x, dtype=np.float64 if like is None else None), dtype=dtype, device=device)
        return x if x.is_floating_point() else x.to(torch.get_default_dtype())

    return tensor(points), tensor(center), tensor(radius)


def _checked(
    points: torch.Tensor, center: torch.Tensor, radius: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Points (…, K), centres (…, K) and radii (…, 1) of one shape and dtype, valid."""
    if points.ndim == 0 or center.ndim == 0 or points.shape[-1] != center.shape[-1] or not points.shape[-1]:
        raise ValueError(
            f"points and center must end in the same K >= 1 classes, got shapes {tuple(points.shape)} "
            f"and {tuple(center.shape)}"
        )
    if radius.ndim == max(points.ndim, center.ndim) and radius.shape[-1] == 1:
        radius = radius[..., 0]
    try:
        batch = torch.broadcast_shapes(points.shape[:-1], center.shape[:-1], radius.shape)
    except RuntimeError:
        raise ValueError(
            f"leading dimensions do not fit: points {tuple(points.shape)}, center {tuple(center.shape)}, "
            f"radius {tuple(radius.shape)}"
        ) from None
    for name, x in (("points", points), ("center", center)):
        if not x.isfinite().all():
            raise ValueError(f"{name} must be finite, got {_first(x, ~x.isfinite())}")
    if not (radius >= 0).all():
        raise ValueError(f"radius must be >= 0, got {_first(radius, ~(radius >= 0))}")

    classes = center.shape[-1]
    tolerance = max(_CENTER_TOLERANCE, classes * torch.finfo(center.dtype).eps)
    dtype = torch.promote_types(torch.promote_types(points.dtype, center.dtype), torch.float32)
    points, center, radius = points.to(dtype), center.to(dtype), radius.to(dtype)
    if (center < -tolerance).any():
        raise ValueError(f"center must be a distribution, got an entry of {center.min().item():g}")
    total = center.sum(dim=-1)
    if ((total - 1).abs() > tolerance).any():
        raise ValueError(
            f"center must be a distribution, got one that adds up to {_first(total, (total - 1).abs() > tolerance)}"
        )
    center = _on_support(center, _simplex_support(center.detach()))
    radius = radius.clamp_max(math.sqrt(2))  # no two distributions are further apart
    return points.expand(*batch, classes), center.expand(*batch, classes), radius.expand(batch)[..., None]


def _first(x: torch.Tensor, bad: torch.Tensor) -> str:
    return f"{x[bad][0].item():g}"


def _project(points: torch.Tensor, center: torch.Tensor, radius: torch.Tensor) -> torch.Tensor:
    scale, support = _scale_and_support(points.detach(), center.detach(), radius.detach())
    if not (torch.is_grad_enabled() and any(x.requires_grad for x in (points, center, radius))):
        return _on_support(center + scale * (points - center), support).clamp_min(0)
    # Once more on the support that was found, now for autograd: the same numbers, and their derivatives.
    slope, offset = _distance_terms(points - center, center, support)
    on_sphere = (scale < 1) & (scale > 0)
    ratio = torch.where(on_sphere, (radius**2 - offset) / torch.where(on_sphere, slope, 1.0), 1.0)
    scale = torch.where(on_sphere & (ratio > 0), ratio.clamp_min(0).sqrt(), scale)
    return _on_support(center + scale * (points - center), support).clamp_min(0)


@torch.no_grad()
def _scale_and_support(
    points: torch.Tensor, center: torch.Tensor, radius: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """u of every row, shape (…, 1), and the support of x(u), shape (…, K)."""
    direction = points - center
    nearest = _simplex_support(points)
    inside = (_on_support(points, nearest) - center).norm(dim=-1, keepdim=True) <= radius
    # A projection moves no two points apart, so ‖x(u) − c‖ ≤ u ‖d − d̄‖: a start on the left of the root.
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


def _distance_terms(
    direction: torch.Tensor, center: torch.Tensor, support: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """A and B of ‖x(u) − c‖² = u² A + B on a support, shape (…, 1) each."""
    size = support.sum(dim=-1, keepdim=True)
    inner = direction * support
    inner = (inner - inner.sum(dim=-1, keepdim=True) / size) * support
    outside = center * ~support
    missing = outside.sum(dim=-1, keepdim=True)  # 1 − Σ_S c without cancellation
    return inner.square().sum(dim=-1, keepdim=True), missing**2 / size + outside.square().sum(dim=-1, keepdim=True)


def _simplex_support(points: torch.Tensor) -> torch.Tensor:
    """Classes that have mass in the projection onto the simplex alone, shape (…, K), bool; never none.

    Sorted downwards, the j largest entries are it for the largest j with j · y_(j) + 1 > Σ_{i ≤ j} y_(i) (Held,
    Wolfe & Crowder 1974; Duchi et al. 2008).
    """
    ordered = (points - points.amax(dim=-1, keepdim=True)).sort(dim=-1, descending=True).values
    ranks = torch.arange(1, points.shape[-1] + 1, dtype=points.dtype, device=points.device)
    excess = ordered.cumsum(dim=-1) - 1
    size = (ranks * ordered > excess).sum(dim=-1, keepdim=True)
    threshold = excess.gather(-1, size - 1) / size
    return points - points.amax(dim=-1, keepdim=True) > threshold


def _on_support(points: torch.Tensor, support: torch.Tensor) -> torch.Tensor:
    """Points moved along the ones vector until their support adds up to 1, nothing elsewhere."""
    missing = 1 - (points * support).sum(dim=-1, keepdim=True)
    return (points + missing / support.sum(dim=-1, keepdim=True)).where(support, 0.0)
