"""Nesterov's method: its defaults, its speed, and what a λ far below the curvature does to it."""

import numpy as np
import pytest
from oracles import scenes, traced
from oracles.losses import Diagonal
from oracles.scenes import EPS, LAMS

from implicit_grad import (
    ArgumentError,
    ArgumentTypeError,
    Autodiff,
    BilevelProblem,
    GradientDescent,
    Nesterov,
    Status,
)

EVERY_LAM = pytest.mark.parametrize("lam", LAMS, ids="{:.3g}".format)


@EVERY_LAM
def test_equals_a_loop_over_autograd(lam):
    """Textbook form with an extrapolated sequence, on gradients by tracing."""
    scene, alpha, beta = scenes.softmax(lam), 0.05, 0.8
    slope = traced.grad(scene.traced[0])
    phi = before = scene.theta
    for _ in range(12):
        y = phi + beta * (phi - before)
        phi, before = y - alpha * (slope(y) + lam * (y - scene.theta)), phi
    run = Nesterov(alpha, 12, momentum=beta)(scene.problem, scene.theta)
    assert np.linalg.norm(run.value - phi) <= 1e3 * EPS * np.linalg.norm(phi)


@EVERY_LAM
def test_defaults_follow_the_condition_number(lam):
    """α = 1/M̄, β = (√κ − 1)/(√κ + 1), from the loss's bound: the same run as with these numbers."""
    scene = scenes.ridge(lam)
    root = scene.condition**0.5
    given = Nesterov(1 / (scene.curvature + lam), 10, momentum=(root - 1) / (root + 1))
    one, other = (solver(scene.problem, scene.theta).value for solver in (Nesterov(None, 10), given))
    assert np.linalg.norm(one - other) <= 1e3 * EPS * np.linalg.norm(one)


def test_without_a_bound_the_curvature_is_estimated():
    """Lanczos at θ, with its margin of a tenth; on a quadratic with d ≤ 20 that is exact."""
    scene = scenes.ridge(0.37)
    problem = BilevelProblem(Autodiff(scene.traced[0]), scene.problem.outer, 0.37)
    top = 1.1 * scene.curvature + 0.37
    root = (top / 0.37) ** 0.5
    given = Nesterov(1 / top, 10, momentum=(root - 1) / (root + 1))(problem, scene.theta)
    run = Nesterov(None, 10)(problem, scene.theta)
    assert np.linalg.norm(run.value - given.value) <= 1e4 * EPS * np.linalg.norm(run.value)
    assert (run.cost.gradients, run.cost.hvps) == (12, 6)


def test_no_momentum_is_gradient_descent():
    scene = scenes.softmax(0.37)
    for k in (1, 5):
        plain = GradientDescent(None, k)(scene.problem, scene.theta)
        run = Nesterov(None, k, momentum=0.0)(scene.problem, scene.theta)
        assert np.linalg.norm(run.value - plain.value) <= 64 * EPS * np.linalg.norm(plain.value)


def test_is_faster_than_gradient_descent():
    """κ = 3·10³: the digits that descent finds in √κ times the steps."""
    scene = scenes.ridge(0.01)
    fast = Nesterov(None, 400)(scene.problem, scene.theta).residual_norm
    slow = GradientDescent(None, 400)(scene.problem, scene.theta).residual_norm
    assert fast < 1e-4 * slow


def test_too_small_a_lam_makes_it_swing():
    """The failure mode: H ⪰ 1 and λ = 10⁻⁶, so that β is 10³ times too close to 1: G rises on the way."""
    problem = BilevelProblem(Diagonal(np.array([1.0, 4.0]), 1.0), Diagonal(np.ones(2)), 1e-6)
    theta = np.array([3.0, -2.0])
    run = Nesterov(None, 40, record=True)(problem, theta)
    values = problem.value(run.path.points, theta)
    assert np.diff(values).max() > 1e-2 * (values[0] - values.min())
    tuned = Nesterov(None, 40, momentum=1 / 3)(problem, theta)
    assert tuned.residual_norm < 1e-4 * run.residual_norm


def test_too_long_a_step_is_noticed():
    scene = scenes.ridge(0.37)
    run = Nesterov(1.0, 300)(scene.problem, scene.theta)
    assert run.status is Status.DIVERGED
    assert np.isfinite(run.value).all()


@pytest.mark.parametrize("beta", [-0.1, 1.0, np.nan])
def test_momentum_is_checked(beta):
    with pytest.raises(ArgumentError, match="momentum"):
        Nesterov(None, 3, momentum=beta)
    with pytest.raises(ArgumentTypeError, match="momentum"):
        Nesterov(None, 3, momentum="much")
