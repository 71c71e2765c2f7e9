"""Central differences of F: the step's rule, the order, and the refusal where noise leaves no window."""

import numpy as np
import pytest
from oracles import fifty_digits, scenes
from oracles.losses import Diagonal
from oracles.scenes import EPS, LAMS
from slopes import exact, slope

from implicit_grad import (
    ArgumentError,
    ArgumentTypeError,
    Autodiff,
    BilevelProblem,
    ConvergenceError,
    FiniteDifferenceGradient,
    GradientDescent,
    MetaGradient,
    Newton,
    ScipyMinimize,
    Status,
)

FLOOR = Newton(rtol=1e-15)


def _network(lam):
    return scenes.network(lam, (3,), "tanh", 0)


MAKERS = pytest.mark.parametrize(
    "make", [scenes.ridge, scenes.softmax, _network], ids=["ridge", "softmax", "network"]
)
EVERY_LAM = pytest.mark.parametrize("lam", LAMS, ids="{:.3g}".format)


@EVERY_LAM
@MAKERS
def test_the_rule_finds_a_good_step(make, lam):
    """To 10·η^⅔ of the noise η ~ N·κ·eps in F: six digits at the worst λ here, ten at the best."""
    scene = make(lam)
    estimate = MetaGradient(FLOOR, FiniteDifferenceGradient(FLOOR))(scene.problem, scene.theta)
    assert estimate.status is Status.CONVERGED
    condition = np.linalg.cond(scene.problem.curvature(estimate.inner.value).dense())
    noise = scene.theta.size * condition * EPS
    assert scene.error(estimate.gradient, estimate.inner.value) <= 10 * noise ** (2 / 3)


@pytest.mark.parametrize("make", [scenes.softmax, _network], ids=["softmax", "network"])
@pytest.mark.parametrize("lam", LAMS[1:4], ids="{:.3g}".format)
def test_order_in_the_step(make, lam):
    """O(h²) above the noise: slope 2 ± 0.1."""
    scene = make(lam)
    inner = FLOOR(scene.problem, scene.theta)
    g = exact(scene, inner.value)
    steps = np.linalg.norm(scene.theta) * 10.0 ** np.arange(-4, 0, 0.5)
    errors = []
    for h in steps:
        estimate = FiniteDifferenceGradient(FLOOR, h)(scene.problem, scene.theta, inner)
        errors.append(fifty_digits.relative_error(estimate.gradient, g))
    condition = np.linalg.cond(scene.problem.curvature(inner.value).dense())
    floor = 100 * scene.theta.size * condition * EPS / steps * np.linalg.norm(scene.theta)
    assert abs(slope(steps, errors, floor, 1e-2) - 2) <= 0.1


@MAKERS
def test_unconverged_solves_are_refused(make):
    """Three steps of descent at small λ: F is not differentiable to any digit, and no step is valid."""
    scene = make(0.01)
    method = MetaGradient(FLOOR, FiniteDifferenceGradient(GradientDescent(None, 3)))
    estimate = method(scene.problem, scene.theta)
    assert estimate.status is Status.STAGNATED
    with pytest.raises(ConvergenceError, match="STAGNATED"):
        estimate.unwrap()


def test_a_loose_black_box_is_refused_and_a_tight_one_is_not():
    """SciPy's default tolerance is no base for differences at this λ; its smallest is, for two or three digits."""
    scene = scenes.softmax(0.37)
    loose, tight = ScipyMinimize(), ScipyMinimize(options=(("gtol", 1e-11), ("ftol", 0.0)))
    assert not MetaGradient(FLOOR, FiniteDifferenceGradient(loose))(scene.problem, scene.theta).ok
    estimate = MetaGradient(FLOOR, FiniteDifferenceGradient(tight))(scene.problem, scene.theta)
    assert estimate.status is Status.CONVERGED
    assert scene.error(estimate.gradient) <= 1e-2


@pytest.mark.parametrize("h", [1e-15, 1e-18, 1e3])
def test_steps_outside_the_window_are_refused(h):
    """Too short for the noise, shorter than the spacing of θ, and far beyond where F is a parabola."""
    scene = scenes.softmax(0.37)
    estimate = MetaGradient(FLOOR, FiniteDifferenceGradient(FLOOR, h))(scene.problem, scene.theta)
    assert estimate.status is Status.STAGNATED


def test_what_is_refused_is_wrong_and_what_is_not_is_right():
    """Over a ladder of steps: a success is within a tenth; whatever is off by more than that is refused."""
    for lam in LAMS[1:4]:
        scene = scenes.softmax(lam)
        inner = FLOOR(scene.problem, scene.theta)
        g = exact(scene)
        for h in np.linalg.norm(scene.theta) * 10.0 ** np.arange(-17, 4, 3.0):
            estimate = FiniteDifferenceGradient(FLOOR, h)(scene.problem, scene.theta, inner)
            assert not estimate.ok or fifty_digits.relative_error(estimate.gradient, g) <= 0.1


def test_black_box_losses():
    scene = scenes.softmax(2.3)
    problem = BilevelProblem(*map(Autodiff, scene.traced), 2.3)
    estimate = MetaGradient(FLOOR, FiniteDifferenceGradient(FLOOR))(problem, scene.theta)
    assert scene.error(estimate.unwrap()) <= 1e-8


def test_a_failed_inner_solve_is_the_status():
    scene = scenes.softmax(1e-3)
    estimate = MetaGradient(FLOOR, FiniteDifferenceGradient(Newton(max_steps=1), 1e-3))(scene.problem, scene.theta)
    assert estimate.status is Status.MAX_STEPS


def test_one_bad_problem_leaves_its_neighbours_alone():
    h = np.array([[1.0, 2.0], [np.nan, 1.0]])
    problem = BilevelProblem(Diagonal(h, 1.0), Diagonal(np.ones((2, 2)), 0.5), 0.7)
    alone = BilevelProblem(Diagonal(h[0], 1.0), Diagonal(np.ones(2), 0.5), 0.7)
    theta = np.array([0.3, -0.8])
    method = MetaGradient(FLOOR, FiniteDifferenceGradient(FLOOR))
    together, single = method(problem, theta), method(alone, theta)
    assert np.array_equal(together.gradient[0], single.gradient)
    assert together.status[0] is single.status is Status.CONVERGED
    assert not together.status[1].ok


def test_a_flat_F_without_noise_is_not_refused():
    problem = BilevelProblem(Diagonal(np.array([1.0, 2.0]), 1.0), Diagonal(np.zeros(2)), 0.7)
    estimate = MetaGradient(FLOOR, FiniteDifferenceGradient(FLOOR))(problem, np.array([0.3, -0.8]))
    assert estimate.status is Status.CONVERGED
    assert not estimate.gradient.any()


def test_arguments_are_checked():
    for step in (0.0, -1.0, np.nan):
        with pytest.raises(ArgumentError, match="step"):
            FiniteDifferenceGradient(FLOOR, step)
    with pytest.raises(ArgumentTypeError, match="inner_solver"):
        FiniteDifferenceGradient(Newton)
