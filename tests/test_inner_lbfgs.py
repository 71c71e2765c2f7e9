"""L-BFGS against the dense BFGS matrix, and where its history is no help."""

import autograd.numpy as anp
import numpy as np
import pytest
from oracles import scenes
from oracles.losses import Diagonal
from oracles.scenes import EPS, LAMS

from implicit_grad import LBFGS, ArgumentError, Autodiff, BilevelProblem, Newton, ScipyMinimize, Status

EVERY_LAM = pytest.mark.parametrize("lam", LAMS, ids="{:.3g}".format)


def _dense_inverse(steps, changes, scale):
    """B from the last pairs by the full BFGS update, oldest first."""
    eye = np.eye(steps[0].size) if steps else 1.0
    B = scale * eye
    for s, y in zip(steps, changes, strict=True):
        rho = 1 / (s @ y)
        B = (eye - rho * np.outer(s, y)) @ B @ (eye - rho * np.outer(y, s)) + rho * np.outer(s, s)
    return B


@pytest.mark.parametrize("history", [1, 3, 20])
@pytest.mark.parametrize("make", [scenes.ridge, scenes.softmax], ids=["ridge", "softmax"])
@EVERY_LAM
def test_every_step_is_along_the_dense_direction(make, lam, history):
    scene = make(lam)
    points = LBFGS(8, history, record=True)(scene.problem, scene.theta).path.points
    gradients = scene.problem.stationarity(points, scene.theta)
    steps, changes = list(np.diff(points, axis=0)), list(np.diff(gradients, axis=0))
    for k in range(8):
        if np.linalg.norm(steps[k]) <= 1e-6 * np.linalg.norm(points[k]):
            break  # pairs of rounding errors decide from here on
        recent = slice(max(0, k - history), k)
        scale = (
            1 / (scene.curvature + lam)
            if k == 0
            else steps[k - 1] @ changes[k - 1] / (changes[k - 1] @ changes[k - 1])
        )
        direction = (
            -_dense_inverse(steps[recent], changes[recent], scale) @ gradients[k] if k else -scale * gradients[0]
        )
        t = steps[k] @ direction / (direction @ direction)
        assert np.linalg.norm(steps[k] - t * direction) <= 1e-6 * np.linalg.norm(direction)
        assert 0 < t <= 1 + 1e-6


@EVERY_LAM
@pytest.mark.parametrize("make", [scenes.ridge, scenes.softmax], ids=["ridge", "softmax"])
def test_reaches_the_rounding_floor_where_scipy_stops_at_that_of_G(make, lam):
    scene = make(lam)
    ours = LBFGS(2000)(scene.problem, scene.theta)
    theirs = ScipyMinimize("L-BFGS-B")(scene.problem, scene.theta)
    assert ours.status is Status.CONVERGED
    assert ours.residual_norm < 0.1 * theirs.residual_norm
    star = Newton()(scene.problem, scene.theta).value
    assert np.linalg.norm(ours.value - star) <= 64 * 9 * scene.condition * EPS * (
        np.linalg.norm(star) + np.linalg.norm(scene.theta)
    )


def test_no_products_are_asked_for():
    scene = scenes.softmax(0.37)
    assert LBFGS(100, rtol=1e-10)(scene.problem, scene.theta).cost.hvps == 0


def test_without_a_bound_the_first_length_is_found():
    """One product along ∇G, whatever λ: 1/λ would be 10³⁰⁰ times too long."""
    theta = np.array([0.3, -0.8])
    for lam in (1e-300, 1e-12, 1.0):
        problem = BilevelProblem(Diagonal(np.array([1e4, 1.0]), 1.0), Diagonal(np.ones(2)), lam)
        run = LBFGS(60, rtol=1e-10)(problem, theta)
        assert run.status is Status.CONVERGED
        star = (1 + lam * theta) / (np.array([1e4, 1.0]) + lam)
        assert np.linalg.norm(run.value - star) <= 1e-9


def test_pairs_of_negative_curvature_are_left_out():
    """The well of a network from a point where G is not convex: every step is downhill all the same."""
    scene = scenes.network(0.01, (3,), "tanh", 0)
    run = LBFGS(300, rtol=1e-9, record=True)(scene.problem, scene.theta)
    values = scene.problem.value(run.path.points, scene.theta)
    assert (np.diff(values) <= 1e-7 * np.abs(values[:-1])).all()
    assert run.status is Status.CONVERGED
    assert np.linalg.eigvalsh(scene.problem.curvature(run.value).dense())[0] > 0


def test_a_loss_without_bound_from_below_is_not_called_converged():
    """λ < −λ_min: G falls for ever."""
    problem = BilevelProblem(Diagonal(np.array([-3.0, 2.0]), 1.0), Diagonal(np.ones(2)), 0.5)
    run = LBFGS(50, rtol=1e-8)(problem, np.array([0.3, -0.8]))
    assert not run.ok


def test_nor_where_G_leaves_the_range_of_floats():
    """∞ − ∞ at both ends of a step is no warning (they are errors here), and no decrease."""
    falling = Autodiff(lambda w: -anp.sum(w**2))
    run = LBFGS(2000, rtol=1e-14)(BilevelProblem(falling, falling, 0.5), np.array([0.1, 1.0]))
    assert np.abs(run.value).max() > 1e150
    assert run.status is Status.STAGNATED


def test_a_history_of_none_is_refused():
    with pytest.raises(ArgumentError, match="history"):
        LBFGS(5, 0)
