"""The projection of `autorater.projection` by a general solver, CVXPY with Clarabel, as in arXiv 2505.12301."""

import cvxpy as cp
import torch


class CvxpyProjection:
    """`project_simplex_ball` for tensors, one row at a time and without gradients.

    The problem of K classes is compiled once, with point, centre and radius as its parameters (DPP). The tolerance is
    that of the solver, for feasibility and duality gap.
    """

    def __init__(self, n_classes: int, tolerance: float = 1e-8):
        self._x = cp.Variable(n_classes)
        self._point, self._center = cp.Parameter(n_classes), cp.Parameter(n_classes)
        self._radius = cp.Parameter(nonneg=True)
        self._problem = cp.Problem(
            cp.Minimize(cp.sum_squares(self._x - self._point)),
            [self._x >= 0, cp.sum(self._x) == 1, cp.norm(self._x - self._center) <= self._radius],
        )
        self._options = dict.fromkeys(("tol_feas", "tol_gap_abs", "tol_gap_rel"), tolerance) | {"solver": cp.CLARABEL}

    def __call__(self, points: torch.Tensor, center: torch.Tensor, radius: torch.Tensor | float) -> torch.Tensor:
        """The projections of points around centres, shape (N, K) each; a `RuntimeError` if the solver fails on one."""
        radii = torch.as_tensor(radius, dtype=torch.float64).expand(len(points))
        rows = zip(points.double().cpu().numpy(), center.double().cpu().numpy(), radii.tolist(), strict=True)
        return torch.stack([self._solve(*row) for row in rows]).to(points)

    def _solve(self, point, center, radius: float) -> torch.Tensor:
        self._point.value, self._center.value, self._radius.value = point, center, radius
        self._problem.solve(**self._options)
        if self._x.value is None:
            raise RuntimeError(f"the solver returned no projection ({self._problem.status}) of {point.tolist()}")
        return torch.from_numpy(self._x.value)
