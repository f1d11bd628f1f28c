"""The projection against CVXPY, its own optimality conditions and finite differences, corner cases included."""

import numpy as np
import pytest
import torch
from harness.cvxpy_projection import CvxpyProjection
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import nnls

from autorater.projection import project_simplex_ball

KINDS = ("random", "inside", "tiny radius", "radius 0", "vertex", "zeros", "ties", "far", "wide ball", "at the centre")


def instances(classes: int, count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points (N, K), centres (N, K) and radii (N,) of all kinds in turn."""
    rng = np.random.default_rng([seed, classes])
    points, centers, radii = [], [], []
    for i in range(count):
        kind = KINDS[i % len(KINDS)]
        center = rng.dirichlet(np.full(classes, rng.choice([0.3, 1.0, 5.0])))
        radius = rng.uniform(0.02, 0.5)
        if kind == "vertex":
            center = np.eye(classes)[rng.integers(classes)]
        elif kind in ("zeros", "ties"):  # votes
            center = rng.multinomial(5, np.ones(classes) / classes) / 5
        point = center + rng.normal(0, rng.choice([0.1, 1.0]), classes)
        if kind == "inside":
            point = center + 0.2 * radius * (rng.dirichlet(np.ones(classes)) - center)
        elif kind == "tiny radius":
            radius = 10.0 ** rng.uniform(-9, -3)
        elif kind == "radius 0":
            radius = 0.0
        elif kind == "ties":
            point = rng.choice([-1.0, 0.0, 0.5, 1.0], classes)
        elif kind == "far":
            point = rng.normal(0, 1e4, classes)
        elif kind == "wide ball":
            radius = 2.0
        elif kind == "at the centre":
            point = center
        points.append(point), centers.append(center), radii.append(radius)
    return np.array(points), np.array(centers), np.array(radii)


@pytest.mark.parametrize("classes", [2, 3, 5, 21, 101])
def test_agrees_with_the_solver_on_400_instances(classes):
    """A solution whose objective is off by at most g is at most √g away, the objective being strongly convex."""
    points, centers, radii = instances(classes, 400, seed=0)
    ours = project_simplex_ball(points, centers, radii)
    tolerance = 1e-8
    solved = CvxpyProjection(classes, tolerance)(*map(torch.from_numpy, (points, centers, radii))).numpy()
    objective = np.square(ours - points).sum(axis=-1)
    gap = 100 * tolerance * (1 + objective)  # the solver's tolerance is on a problem that it has scaled
    assert (np.linalg.norm(ours - solved, axis=-1) <= np.sqrt(gap)).all()
    feasible = np.linalg.norm(solved - centers, axis=-1) <= radii
    assert (objective[feasible] <= np.square(solved - points).sum(axis=-1)[feasible] + gap[feasible]).all()


@pytest.mark.parametrize("classes", [2, 3, 5, 21, 101])
def test_optimality_conditions_hold_to_1e_10(classes):
    """y − x = λ (x − c) + μ − ν with λ, ν ≥ 0, ν only where x = 0 and λ only where the ball is tight."""
    points, centers, radii = instances(classes, 400, seed=1)
    ours = project_simplex_ball(points, centers, radii)
    assert (ours >= 0).all()
    np.testing.assert_allclose(ours.sum(axis=-1), 1, atol=1e-12)
    distance = np.linalg.norm(ours - centers, axis=-1)
    assert (distance <= radii + 1e-12).all()
    for x, y, c, r, d in zip(ours, points, centers, radii, distance, strict=True):
        if r == 0:
            np.testing.assert_allclose(x, c, atol=1e-15)
            continue
        ball = (x - c)[:, None] / r if d >= r - 1e-12 else np.empty((classes, 0))
        ones = np.ones((classes, 1))
        conditions = np.concatenate([ball, ones, -ones, -np.eye(classes)[:, x == 0]], axis=1)
        _, residual = nnls(conditions, y - x)
        rounding = (
            4e-16 / r * np.linalg.norm(y - x)
        )  # x has 16 digits, so the direction x − c has fewer in a tiny ball
        assert residual <= 1e-10 * (1 + np.abs(y).max()) + rounding


def test_gradients_are_those_of_finite_differences():
    """Of points, centre (through a softmax, to stay a distribution) and radius; none of the rows is at a kink."""
    torch.manual_seed(0)
    points = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    logits = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    radius = torch.tensor([0.05, 0.1, 0.2, 0.3, 0.5, 1.4], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda y, z, r: project_simplex_ball(y, z.softmax(dim=-1), r), (points, logits, radius), atol=1e-7
    )


def test_gradients_are_finite_at_every_corner():
    for classes in (2, 5):
        arguments = [torch.tensor(x, requires_grad=True) for x in instances(classes, 100, seed=2)]
        result = project_simplex_ball(*arguments)
        (result * torch.arange(1.0, classes + 1)).sum().backward()
        assert all(x.grad.isfinite().all() for x in arguments)


def test_corner_cases():
    np.testing.assert_array_equal(project_simplex_ball([0.0, 1.0], [1.0, 0.0], 0.0), [1.0, 0.0])
    np.testing.assert_allclose(project_simplex_ball([0.0, 1.0], [1.0, 0.0], 0.1 * 2**0.5), [0.9, 0.1], atol=1e-15)
    np.testing.assert_allclose(project_simplex_ball([0.3, 0.7], [0.5, 0.5], 1.0), [0.3, 0.7], atol=1e-15)
    np.testing.assert_allclose(project_simplex_ball([9.0, 0.0, 0.0], [1 / 3] * 3, np.inf), [1, 0, 0], atol=1e-15)
    np.testing.assert_array_equal(project_simplex_ball([7.0], [1.0], 0.3), [1.0])
    # the ball touches only the middle of the nearest face
    middle = project_simplex_ball([0.5, 0.5, -9.0], [1 / 3] * 3, 6**-0.5)
    np.testing.assert_allclose(middle, [0.5, 0.5, 0.0], atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    arrays(float, (2, 4), elements=st.floats(-3, 3, width=32)),
    arrays(float, 4, elements=st.integers(0, 5)).filter(lambda votes: votes.sum() > 0),
    st.floats(0, 1.5),
    st.permutations(range(4)),
    st.floats(-2, 2),
)
def test_invariances(points, votes, radius, order, shift):
    center = votes / votes.sum()
    x = project_simplex_ball(points, center, radius)
    np.testing.assert_allclose(project_simplex_ball(x, center, radius), x, atol=1e-9)  # projecting twice
    np.testing.assert_allclose(project_simplex_ball(points + shift, center, radius), x, atol=1e-7)
    np.testing.assert_allclose(project_simplex_ball(points[:, order], center[order], radius), x[:, order], atol=1e-9)
    assert np.linalg.norm(x[0] - x[1]) <= np.linalg.norm(points[0] - points[1]) + 1e-9


@pytest.mark.parametrize("size", [1e4, 1e7, 1e16, 1e100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_large_points(size, dtype):
    if size > torch.finfo(dtype).max:
        pytest.skip("no number of this type")
    center = torch.tensor([0.2, 0.3, 0.5], dtype=dtype)
    for points, expected in (([1, 0, -1], [1.0, 0, 0]), ([1, 1, -1], [0.5, 0.5, 0])):
        found = project_simplex_ball(size * torch.tensor(points, dtype=dtype), center, 2.0)
        torch.testing.assert_close(found, torch.tensor(expected, dtype=dtype), atol=1e-6, rtol=0)


def test_read_only_arrays_are_copied(recwarn):
    points, center = np.array([1.0, 0.0]), np.array([0.5, 0.5])
    points.flags.writeable = False
    np.testing.assert_allclose(project_simplex_ball(points, center, 0.0), center)
    assert not len(recwarn)


def test_leading_dimensions_broadcast():
    points = torch.randn(3, 4, 5, dtype=torch.float64)
    center = torch.full((5,), 0.2, dtype=torch.float64)
    radius = torch.rand(4, dtype=torch.float64)
    together = project_simplex_ball(points, center, radius)
    assert together.shape == (3, 4, 5)
    for i in range(3):
        for j in range(4):
            torch.testing.assert_close(together[i, j], project_simplex_ball(points[i, j], center, float(radius[j])))
    torch.testing.assert_close(project_simplex_ball(points, center, radius[:, None].expand(3, 4, 1)), together)
    assert project_simplex_ball(torch.zeros(0, 3), torch.tensor([1.0, 0, 0]), 0.1).shape == (0, 3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtype_of_the_points_is_kept(dtype):
    points, centers, _ = (torch.from_numpy(x).to(dtype) for x in instances(3, 40, seed=3))
    result = project_simplex_ball(points, centers, 0.25)
    assert result.dtype == dtype
    exact = project_simplex_ball(points.double(), centers.double() / centers.double().sum(-1, keepdim=True), 0.25)
    torch.testing.assert_close(result.double(), exact, atol=8 * torch.finfo(dtype).eps, rtol=0)


def test_arrays_in_give_arrays_out():
    arrays_in = [np.array([0.9, 0.1]), np.array([0.5, 0.5]), np.array(0.1)]
    result = project_simplex_ball(*arrays_in)
    assert isinstance(result, np.ndarray)
    mixed = project_simplex_ball(torch.from_numpy(arrays_in[0]), *arrays_in[1:])
    assert torch.is_tensor(mixed)
    np.testing.assert_array_equal(mixed.numpy(), result)
    assert project_simplex_ball(torch.tensor([0.9, 0.1]), [0.5, 0.5], 0.1).dtype == torch.float32


@pytest.mark.parametrize(
    ("points", "center", "radius", "message"),
    [
        ([np.nan, 0.0], [0.5, 0.5], 0.1, "points must be finite, got nan"),
        ([np.inf, 0.0], [0.5, 0.5], 0.1, "points must be finite, got inf"),
        ([0.5, 0.5], [np.nan, 0.5], 0.1, "center must be finite"),
        ([0.5, 0.5], [0.5, 0.5], -0.1, "radius must be >= 0, got -0.1"),
        ([0.5, 0.5], [0.5, 0.5], np.nan, "radius must be >= 0, got nan"),
        ([0.5, 0.5], [0.5, 0.6], 0.1, "the sum of center must be 1, got 1.1"),
        ([0.5, 0.5], [1.5, -0.5], 0.1, "entries of center must be >= 0, got -0.5"),
        ([0.5, 0.5], [0.2, 0.3, 0.5], 0.1, "same K >= 1 classes"),
        ([], [], 0.1, "same K >= 1 classes"),
        (0.5, [1.0], 0.1, "same K >= 1 classes"),
        (np.zeros((2, 2)), [0.5, 0.5], np.ones(3), "leading dimensions do not broadcast"),
    ],
)
def test_invalid_arguments(points, center, radius, message):
    with pytest.raises(ValueError, match=message):
        project_simplex_ball(points, center, radius)
