"""The heavy ball: its defaults, its speed on quadratics, and its cycle off them."""

from dataclasses import dataclass

import numpy as np
import pytest
from oracles import scenes, traced
from oracles.scenes import EPS, LAMS

from implicit_grad import (
    BilevelProblem,
    ConvergenceError,
    GradientDescent,
    HeavyBall,
    Linearization,
    Nesterov,
    Status,
)

EVERY_LAM = pytest.mark.parametrize("lam", LAMS, ids="{:.3g}".format)


@EVERY_LAM
def test_equals_a_loop_over_autograd(lam):
    """With a velocity: v ← βv − α∇G, φ ← φ + v."""
    scene, alpha, beta = scenes.softmax(lam), 0.05, 0.8
    slope = traced.grad(scene.traced[0])
    phi, velocity = scene.theta, 0 * scene.theta
    for _ in range(12):
        velocity = beta * velocity - alpha * (slope(phi) + lam * (phi - scene.theta))
        phi = phi + velocity
    run = HeavyBall(alpha, 12, momentum=beta)(scene.problem, scene.theta)
    assert np.linalg.norm(run.value - phi) <= 1e3 * EPS * np.linalg.norm(phi)


@EVERY_LAM
def test_defaults_follow_the_condition_number(lam):
    """α = 4/(√M̄ + √λ)², β = ((√κ − 1)/(√κ + 1))²."""
    scene = scenes.ridge(lam)
    top, root = scene.curvature + lam, scene.condition**0.5
    given = HeavyBall(4 / (top**0.5 + lam**0.5) ** 2, 10, momentum=((root - 1) / (root + 1)) ** 2)
    one, other = (solver(scene.problem, scene.theta).value for solver in (HeavyBall(None, 10), given))
    assert np.linalg.norm(one - other) <= 1e4 * EPS * np.linalg.norm(one)


def test_no_momentum_is_gradient_descent():
    scene = scenes.softmax(0.37)
    plain = GradientDescent(0.05, 5)(scene.problem, scene.theta)
    run = HeavyBall(0.05, 5, momentum=0.0)(scene.problem, scene.theta)
    assert np.array_equal(run.value, plain.value)


def test_is_the_fastest_on_quadratics():
    """Faster than Nesterov's, which is faster than descent."""
    scene = scenes.ridge(0.37)
    solvers = HeavyBall(None, 60), Nesterov(None, 60), GradientDescent(None, 60)
    residuals = [solver(scene.problem, scene.theta).residual_norm for solver in solvers]
    assert residuals[0] < 0.1 * residuals[1] < 1e-2 * residuals[2]


@dataclass(frozen=True)
class Bent:
    """With λ = 1 and θ = 0, G' is 25x below 1, x + 24 up to 2 and 25x − 24 beyond: strongly convex, κ = 25."""

    def _slope(self, x):
        return np.where(x < 1, 25 * x, np.where(x < 2, x + 24, 25 * x - 24)) - x

    def value(self, x):
        low, middle = 12.5 * x**2, 0.5 * x**2 + 24 * x - 12
        high = 12.5 * x**2 - 24 * x + 36
        return (np.where(x < 1, low, np.where(x < 2, middle, high)) - 0.5 * x**2)[..., 0]

    def gradient(self, x):
        return self._slope(x)

    def linearize(self, x):
        bend = np.where((x >= 1) & (x < 2), 0.0, 24.0)
        return Linearization(self.value(x), self.gradient(x), lambda v: bend * v)


def test_cycles_where_the_curvature_changes():
    """The published counterexample (Lessard, Recht, Packard 2016): a cycle of three, for ever, with the best α and β.

    Its own residual says so: not converged with a tolerance, and without one no less than at the start.
    """
    problem = BilevelProblem(Bent(), Bent(), 1.0)
    theta, start = np.zeros(1), np.array([3.3])
    alpha, beta = 4 / (5 + 1) ** 2, (4 / 6) ** 2
    for steps in (300, 3000):
        run = HeavyBall(alpha, steps, momentum=beta, rtol=1e-6)(problem, theta, start=start)
        assert run.status is Status.MAX_STEPS
        assert run.residual_norm > 1
        with pytest.raises(ConvergenceError, match="MAX_STEPS"):
            run.unwrap()
    path = HeavyBall(alpha, 900, momentum=beta, record=(897, 900))(problem, theta, start=start).path
    assert abs(path.points[1] - path.points[0]) <= 1e-9
    assert Nesterov(1 / 25, 300, rtol=1e-6)(problem, theta, start=start).status is Status.CONVERGED


def test_too_long_a_step_is_noticed():
    scene = scenes.ridge(0.37)
    run = HeavyBall(1.0, 300)(scene.problem, scene.theta)
    assert run.status is Status.DIVERGED
    assert np.isfinite(run.value).all()
