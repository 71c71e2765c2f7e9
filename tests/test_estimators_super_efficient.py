"""One Newton correction before the implicit gradient: order two instead of one."""

import numpy as np
import pytest
from oracles import fifty_digits, scenes
from oracles.losses import Diagonal
from oracles.scenes import EPS, LAMS
from slopes import exact, slope

from implicit_grad import (
    CG,
    EXACT,
    ArgumentTypeError,
    BilevelProblem,
    Cholesky,
    GradientDescent,
    ImplicitGradient,
    IndefiniteError,
    MetaGradient,
    Newton,
    Solution,
    Status,
    SuperEfficientGradient,
)

FLOOR = Newton(rtol=1e-15)


def _network(lam):
    return scenes.network(lam, (3,), "tanh", 0)


CURVED = pytest.mark.parametrize("make", [scenes.softmax, _network], ids=["softmax", "network"])
EVERY_LAM = pytest.mark.parametrize("lam", LAMS, ids="{:.3g}".format)


def _at(phi):
    return Solution(phi, np.asarray(np.nan), 0, Status.BUDGET_SPENT, None)


@pytest.mark.parametrize(
    ("estimator", "order"),
    [(ImplicitGradient(Cholesky()), 1), (SuperEfficientGradient(), 2), (SuperEfficientGradient(CG(60, 1e-14)), 2)],
    ids=lambda v: getattr(v, "label", str(v)),
)
@EVERY_LAM
@CURVED
def test_orders(make, lam, estimator, order):
    """Identity 12: O(δ) at φ* + δd for the implicit gradient, O(δ²) after the correction; ±0.1."""
    scene = make(lam)
    star = FLOOR(scene.problem, scene.theta).value
    g = exact(scene, star)
    d = np.random.default_rng(20190910).standard_normal(star.size)
    A = scene.problem.curvature(star).dense()
    # The size of φ* against the smallest curvature, so that δ = 1 leaves the region where orders show.
    d *= np.linalg.norm(star) / np.linalg.norm(d)
    deltas = 10.0 ** np.arange(-7, 0, 0.5)
    errors = []
    for delta in deltas:
        estimate = estimator(scene.problem, scene.theta, _at(star + delta * d))
        errors.append(fifty_digits.relative_error(estimate.gradient, g))
    floor = 300 * star.size * np.linalg.cond(A) * EPS
    assert abs(slope(deltas, errors, floor, 3e-3) - order) <= 0.1


@EVERY_LAM
def test_a_quadratic_is_solved_from_anywhere(lam):
    scene = scenes.ridge(lam)
    far = _at(scene.theta + 100 * np.cos(np.arange(6)))
    estimate = SuperEfficientGradient()(scene.problem, scene.theta, far)
    assert scene.error(estimate.gradient) <= 64 * 100 * 6 * scene.condition * EPS


def test_gradient_descent_needs_half_the_digits():
    """After K steps the plain implicit gradient has the digits of φ_K, the corrected one twice as many."""
    scene = scenes.softmax(2.3)
    ratios = []
    for steps in (10, 20, 40):
        inner = GradientDescent(None, steps)(scene.problem, scene.theta)
        plain = scene.error(ImplicitGradient(Cholesky())(scene.problem, scene.theta, inner).gradient)
        corrected = scene.error(SuperEfficientGradient()(scene.problem, scene.theta, inner).gradient)
        ratios.append(np.log(corrected) / np.log(plain))
    assert min(ratios) > 1.5


def test_the_corrected_solution_is_reported():
    """Its value is φ − A⁻¹∇G, its residual that at the value, and the linear solve belongs there."""
    scene = scenes.softmax(0.37)
    inner = GradientDescent(None, 12, record=True)(scene.problem, scene.theta)
    estimate = SuperEfficientGradient()(scene.problem, scene.theta, inner)
    phi, problem = inner.value, scene.problem
    wanted = phi - np.linalg.solve(problem.curvature(phi).dense(), problem.stationarity(phi, scene.theta))
    end = estimate.inner.value
    assert np.linalg.norm(end - wanted) <= 64 * phi.size * scene.condition * EPS * np.linalg.norm(phi)
    assert estimate.inner.residual_norm == np.linalg.norm(problem.stationarity(end, scene.theta))
    assert estimate.inner.residual_norm < inner.residual_norm
    assert estimate.inner.path is None
    r = problem.outer.gradient(end) - problem.curvature(end)(estimate.linear.value)
    assert abs(np.linalg.norm(r) - estimate.linear.residual_norm) <= 64 * phi.size * EPS * np.linalg.norm(
        problem.outer.gradient(end)
    )


def test_a_saddle_is_refused_and_its_neighbour_is_not():
    h = np.array([[2.0, 3.0], [2.0, -1.0]])
    problem = BilevelProblem(Diagonal(h, 1.0), Diagonal(np.ones((2, 2)), 0.5), 0.5)
    inner = Solution(np.ones((2, 2)), np.zeros(2), 0, Status.CONVERGED, None)
    estimate = SuperEfficientGradient()(problem, np.ones((2, 2)), inner)
    assert list(estimate.status) == [Status.CONVERGED, Status.INDEFINITE]
    assert np.isnan(estimate.gradient[1]).all()
    alone = BilevelProblem(Diagonal(h[0], 1.0), Diagonal(np.ones(2), 0.5), 0.5)
    single = SuperEfficientGradient()(alone, np.ones(2), _at(np.ones(2)))
    assert np.array_equal(estimate.gradient[0], single.gradient)
    with pytest.raises(IndefiniteError):
        estimate.unwrap()


def test_outside_the_basin_the_full_step_leads_away():
    """The failure mode on the card: saturated softmax outputs have no curvature, and the step overshoots."""
    scene = scenes.softmax(1e-3)
    far = _at(200 * np.cos(np.arange(scene.theta.size)))
    corrected = SuperEfficientGradient()(scene.problem, scene.theta, far)
    star = FLOOR(scene.problem, scene.theta).value
    assert np.linalg.norm(corrected.inner.value - star) > np.linalg.norm(far.value - star)
    assert scene.error(corrected.gradient) > 0.1


def test_what_failed_first_is_the_status():
    scene = scenes.softmax(1e-3)
    method = MetaGradient(Newton(max_steps=0), SuperEfficientGradient())
    assert method(scene.problem, scene.theta).status is Status.MAX_STEPS
    budget = MetaGradient(GradientDescent(None, 3), SuperEfficientGradient(CG(2)))
    assert budget(scene.problem, scene.theta).status is Status.BUDGET_SPENT
    short = MetaGradient(GradientDescent(None, 3), SuperEfficientGradient(CG(1, 1e-12)))
    assert short(scene.problem, scene.theta).status is Status.MAX_STEPS


def test_converged_solutions_are_left_alone():
    scene = scenes.softmax(0.37)
    estimate = MetaGradient(FLOOR, SuperEfficientGradient())(scene.problem, scene.theta)
    g = EXACT(scene.problem, scene.theta).gradient
    assert np.linalg.norm(estimate.gradient - g) <= 64 * g.size * scene.condition * EPS * np.linalg.norm(g)


def test_arguments_are_checked():
    with pytest.raises(ArgumentTypeError, match="linear_solver"):
        SuperEfficientGradient(Cholesky)
