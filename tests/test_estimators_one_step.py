"""One-step differentiation, after a gradient step and after a Newton step."""

import numpy as np
import pytest
from oracles import fifty_digits, scenes, traced
from oracles.losses import Diagonal
from oracles.scenes import EPS, LAMS
from slopes import exact, slope

from implicit_grad import (
    CG,
    ArgumentError,
    ArgumentTypeError,
    BilevelProblem,
    Cholesky,
    FirstOrderGradient,
    GradientDescent,
    GradientStep,
    MetaGradient,
    Newton,
    NewtonStep,
    OneStepGradient,
    Solution,
    Status,
    UnrolledGradient,
)

FLOOR = Newton(rtol=1e-15)
EVERY_LAM = pytest.mark.parametrize("lam", LAMS, ids="{:.3g}".format)


def _network(lam):
    return scenes.network(lam, (3,), "tanh", 0)


def _at(phi):
    return Solution(phi, np.asarray(np.nan), 0, Status.BUDGET_SPENT, None)


@EVERY_LAM
@pytest.mark.parametrize("make", [scenes.ridge, scenes.softmax, _network], ids=["ridge", "softmax", "network"])
@pytest.mark.parametrize("step_size", [None, 0.03])
def test_is_a_window_of_one_over_a_run_one_step_longer(make, lam, step_size):
    """From φ_K: the last step of gradient descent reversed, all before it held constant."""
    scene = make(lam)
    inner = GradientDescent(step_size, 4)(scene.problem, scene.theta)
    one = OneStepGradient(GradientStep(step_size))(scene.problem, scene.theta, inner)
    longer = GradientDescent(step_size, 5, record=True)(scene.problem, scene.theta)
    window = UnrolledGradient(1)(scene.problem, scene.theta, longer)
    assert np.linalg.norm(one.gradient - window.gradient) <= 64 * EPS * np.linalg.norm(window.gradient)


@EVERY_LAM
def test_equals_autograd_through_one_step(lam):
    """∂/∂θ of T(φ − α(∇L(φ) + λ(φ − θ))) at fixed φ, by tracing."""
    scene, alpha = scenes.softmax(lam), 0.05
    train, test = scene.traced
    phi = scene.theta + 0.3 * np.cos(np.arange(scene.theta.size))
    wanted = traced.grad(lambda t: test(traced.descend(train, lam, alpha, 1, phi, t)))(scene.theta)
    g = OneStepGradient(GradientStep(alpha))(scene.problem, scene.theta, _at(phi)).gradient
    assert np.linalg.norm(g - wanted) <= 256 * EPS * np.linalg.norm(wanted)


@EVERY_LAM
def test_at_the_minimum_it_is_the_first_order_gradient_times_alpha_lam(lam):
    """Identity 10; the direction is first-order MAML's, and no inner accuracy repairs it."""
    scene, alpha = scenes.softmax(lam), 0.02
    inner = FLOOR(scene.problem, scene.theta)
    one = OneStepGradient(GradientStep(alpha))(scene.problem, scene.theta, inner).gradient
    first = FirstOrderGradient()(scene.problem, scene.theta, inner).gradient
    moved = alpha * float(inner.residual_norm) * scene.curvature * 100  # φ⁺ differs from φ* by α‖r‖
    assert np.linalg.norm(one - alpha * lam * first) <= alpha * lam * (moved + 64 * EPS * np.linalg.norm(first))


@EVERY_LAM
def test_a_newton_step_is_exact_on_quadratics(lam):
    scene = scenes.ridge(lam)
    far = _at(scene.theta + 10 * np.cos(np.arange(6)))
    for solver in (Cholesky(), CG(200, 1e-15)):
        estimate = OneStepGradient(NewtonStep(solver))(scene.problem, scene.theta, far)
        assert scene.error(estimate.gradient) <= 64 * 10 * 6 * scene.condition * EPS


@pytest.mark.parametrize("make", [scenes.softmax, _network], ids=["softmax", "network"])
@EVERY_LAM
def test_a_newton_step_is_of_first_order_elsewhere(make, lam):
    """A(φ) is δ away from A(φ*): slope 1, where `SuperEfficientGradient` has 2."""
    scene = make(lam)
    star = FLOOR(scene.problem, scene.theta).value
    g = exact(scene, star)
    d = np.random.default_rng(20190910).standard_normal(star.size)
    d *= np.linalg.norm(star) / np.linalg.norm(d)
    deltas = 10.0 ** np.arange(-7, 0, 0.5)
    errors = [
        fifty_digits.relative_error(
            OneStepGradient(NewtonStep())(scene.problem, scene.theta, _at(star + delta * d)).gradient, g
        )
        for delta in deltas
    ]
    floor = 100 * star.size * np.linalg.cond(scene.problem.curvature(star).dense()) * EPS
    assert abs(slope(deltas, errors, floor, 3e-3) - 1) <= 0.1


def test_slow_contraction_is_the_failure_mode():
    """κ = 10⁶, half of b along the steep direction: αλA⁻¹A instead of λA⁻¹ is wrong by nearly everything."""
    problem = BilevelProblem(Diagonal(np.array([1e6, 0.0])), Diagonal(np.zeros(2), -1.0), 1.0)
    theta = np.array([1.0, 1.0])
    estimate = MetaGradient(FLOOR, OneStepGradient())(problem, theta)
    g = np.array([1 / (1e6 + 1), 1.0])
    assert np.linalg.norm(estimate.gradient - g) > 0.99 * np.linalg.norm(g)
    newton = MetaGradient(FLOOR, OneStepGradient(NewtonStep()))(problem, theta)
    assert np.linalg.norm(newton.gradient - g) <= 64 * EPS


def test_a_saddle_is_refused_and_its_neighbour_is_not():
    h = np.array([[2.0, 3.0], [2.0, -1.0]])
    problem = BilevelProblem(Diagonal(h, 1.0), Diagonal(np.ones((2, 2)), 0.5), 0.5)
    inner = Solution(np.ones((2, 2)), np.zeros(2), 0, Status.CONVERGED, None)
    for solver in (Cholesky(), CG(3)):
        estimate = OneStepGradient(NewtonStep(solver))(problem, np.ones((2, 2)), inner)
        assert estimate.status[1] is Status.INDEFINITE
        assert np.isnan(estimate.gradient[1]).all()
        assert estimate.status[0].ok
        assert np.isfinite(estimate.gradient[0]).all()


def test_arguments_are_checked():
    for alpha in (0.0, -1.0, np.nan):
        with pytest.raises(ArgumentError, match="step_size"):
            GradientStep(alpha)
    with pytest.raises(ArgumentTypeError, match="linear_solver"):
        NewtonStep(Cholesky)
    with pytest.raises(ArgumentTypeError, match="step"):
        OneStepGradient(NewtonStep)
    assert OneStepGradient().label != OneStepGradient(NewtonStep()).label
