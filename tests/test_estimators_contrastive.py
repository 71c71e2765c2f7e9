"""The contrastive rule: its two orders, its choice of strength, and the two ways in which a strength fails."""

from dataclasses import replace

import numpy as np
import pytest
from oracles import fifty_digits, scenes
from oracles.losses import Diagonal
from oracles.scenes import EPS, LAMS
from slopes import exact, slope

from implicit_grad import (
    EXACT,
    ArgumentError,
    ArgumentTypeError,
    Autodiff,
    BilevelProblem,
    ContrastiveGradient,
    ConvergenceError,
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


@pytest.mark.parametrize(("two_sided", "order"), [(True, 2), (False, 1)], ids=["two-sided", "one-sided"])
@EVERY_LAM
@MAKERS
def test_orders(make, lam, two_sided, order):
    """Identity 11: the error falls like s² with two nudges and like s with one, ±0.1, down to the solves' noise."""
    scene = make(lam)
    inner = FLOOR(scene.problem, scene.theta)
    g = exact(scene, inner.value)
    strengths = lam * 10.0 ** np.arange(-5, 0, 0.5)
    errors = []
    for s in strengths:
        estimate = ContrastiveGradient(s, FLOOR, two_sided)(scene.problem, scene.theta, inner)
        errors.append(fifty_digits.relative_error(estimate.gradient, g))
    condition = np.linalg.cond(scene.problem.curvature(inner.value).dense())
    size = np.linalg.norm(inner.value) + np.linalg.norm(scene.theta)
    noise = scene.theta.size * condition * EPS * size * lam / (strengths * float(fifty_digits.norm(g)))
    assert abs(slope(strengths, errors, 10 * noise) - order) <= 0.1


@pytest.mark.parametrize("two_sided", [True, False])
@EVERY_LAM
@MAKERS
def test_the_rule_balances_the_errors(make, lam, two_sided):
    """Within a thousand times the best rung of a ladder over nine decades of strengths, whatever λ is."""
    scene = make(lam)
    inner = FLOOR(scene.problem, scene.theta)
    g = exact(scene, inner.value)

    def error(s):
        estimate = ContrastiveGradient(s, FLOOR, two_sided)(scene.problem, scene.theta, inner)
        assert estimate.status is Status.CONVERGED
        return fifty_digits.relative_error(estimate.gradient, g)

    best = min(error(s) for s in lam * 10.0 ** np.arange(-9, 0))
    assert error(None) <= max(1e3 * best, 1e-9)


def test_first_derivatives_suffice():
    """With gradient descent as the inner solver no product with any Hessian is asked for."""
    scene = scenes.softmax(2.3)
    solver = GradientDescent(None, 400)
    estimate = MetaGradient(solver, ContrastiveGradient(1e-2, solver))(scene.problem, scene.theta)
    assert estimate.cost.hvps == estimate.cost.hessians == 0
    assert scene.error(estimate.gradient) <= 1e-3


def test_black_box_losses_and_solvers():
    """Plain autograd losses under SciPy: nothing but values and gradients of the two losses."""
    scene = scenes.softmax(2.3)
    problem = BilevelProblem(*map(Autodiff, scene.traced), 2.3)
    solver = ScipyMinimize("BFGS", options=(("gtol", 1e-11),))
    estimate = MetaGradient(solver, ContrastiveGradient(1e-2, solver))(problem, scene.theta)
    assert scene.error(estimate.gradient) <= 1e-3


@pytest.mark.parametrize("two_sided", [True, False])
def test_a_nudge_below_rounding_is_refused(two_sided):
    scene = scenes.softmax(0.37)
    estimate = MetaGradient(FLOOR, ContrastiveGradient(1e-17, FLOOR, two_sided))(scene.problem, scene.theta)
    assert estimate.status is Status.STAGNATED
    with pytest.raises(ConvergenceError, match="STAGNATED"):
        estimate.unwrap()


def test_a_test_loss_that_is_flat_here_is_not_refused():
    """g = 0 is the answer where ∇L_test = 0, for any strength."""
    h = np.array([1.0, 2.0])
    problem = BilevelProblem(Diagonal(h, 1.0), Diagonal(np.zeros(2)), 0.7)
    for strength in (None, 1e-17, 0.3):
        estimate = MetaGradient(FLOOR, ContrastiveGradient(strength, FLOOR))(problem, np.array([0.3, -0.8]))
        assert estimate.status is Status.CONVERGED
        assert not estimate.gradient.any()


def test_a_nudge_that_takes_the_minimum_away_is_noticed():
    """G − s L_test of s·8 > 1 + λ is concave along one axis: the solve at −s cannot succeed."""
    problem = BilevelProblem(Diagonal(np.array([1.0, 2.0]), 1.0), Diagonal(np.array([8.0, 0.5]), 0.3), 0.7)
    estimate = MetaGradient(FLOOR, ContrastiveGradient(0.5, FLOOR))(problem, np.array([0.3, -0.8]))
    assert not estimate.ok
    with pytest.raises(ConvergenceError):
        estimate.unwrap()
    weaker = MetaGradient(FLOOR, ContrastiveGradient(None, FLOOR))(problem, np.array([0.3, -0.8]))
    g = EXACT(problem, np.array([0.3, -0.8])).gradient
    assert np.linalg.norm(weaker.unwrap() - g) <= 1e-8 * np.linalg.norm(g)


def test_one_sided_feels_the_inner_error():
    """λδ/s: an inner error δ along a direction shows in g, undiminished by exact nudged solves."""
    scene = scenes.ridge(0.37)
    inner = FLOOR(scene.problem, scene.theta)
    s, delta = 1e-3, 1e-5 * np.cos(np.arange(6))
    moved = replace(inner, value=inner.value + delta)
    one = ContrastiveGradient(s, FLOOR, two_sided=False)
    change = one(scene.problem, scene.theta, moved).gradient - one(scene.problem, scene.theta, inner).gradient
    noise = 64 * 6 * scene.condition * EPS * 0.37 / s * np.linalg.norm(inner.value)
    assert np.linalg.norm(change - 0.37 * delta / s) <= noise
    both = ContrastiveGradient(s, FLOOR)
    change = both(scene.problem, scene.theta, moved).gradient - both(scene.problem, scene.theta, inner).gradient
    assert np.linalg.norm(change) <= noise


def test_arguments_are_checked():
    for strength in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ArgumentError, match="strength"):
            ContrastiveGradient(strength, FLOOR)
    for strength in ("strong", True, [1.0, 2.0]):
        with pytest.raises(ArgumentTypeError, match="strength"):
            ContrastiveGradient(strength, FLOOR)
    with pytest.raises(ArgumentTypeError, match="inner_solver"):
        ContrastiveGradient(0.1, Newton)
    with pytest.raises(ArgumentTypeError, match="two_sided"):
        ContrastiveGradient(0.1, FLOOR, 1)
