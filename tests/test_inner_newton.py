"""Newton: one step on quadratics, fifty digits of agreement, downhill from anywhere, and a true status."""

import numpy as np
import pytest
from oracles import fifty_digits, scenes
from oracles.losses import Diagonal
from oracles.scenes import EPS, LAMS

from implicit_grad import (
    CG,
    EXACT,
    ArgumentTypeError,
    Autodiff,
    BilevelProblem,
    Cholesky,
    Newton,
    ScipyCG,
    Solution,
    Status,
)

ALL_LAMS = pytest.mark.parametrize("lam", LAMS, ids="{:.3g}".format)


@ALL_LAMS
@pytest.mark.parametrize("solver", [Newton(), Newton(linear_solver=CG(100, 1e-14))], ids=["Cholesky", "CG"])
def test_quadratics_take_one_step(solver, lam):
    """One step reaches φ* to 8·√d·κ̄·eps of what cancels; one more may polish it."""
    scene = scenes.ridge(lam)
    A, rhs = scene.exact[0].normal_equations(fifty_digits.MP.mpf(lam), fifty_digits.exactly(scene.theta))
    star = [float(x) for x in fifty_digits.MP.lu_solve(A, fifty_digits.MP.matrix(rhs))]
    size = np.linalg.norm(scene.theta) + np.linalg.norm(star)
    one = Newton(max_steps=1, linear_solver=solver.linear_solver)(scene.problem, scene.theta)
    full = solver(scene.problem, scene.theta)
    assert full.status is Status.CONVERGED
    assert full.steps <= 2
    for solution in (one, full):
        assert np.linalg.norm(solution.value - star) <= 8 * 6**0.5 * scene.condition * EPS * size


@ALL_LAMS
@pytest.mark.parametrize("far", [1.0, 1e3])
def test_convex_losses_from_anywhere(lam, far):
    """The same minimiser from θ and from far away, within (‖r₁‖ + ‖r₂‖)/λ and the rounding of both."""
    scene = scenes.softmax(lam)
    star, _ = fifty_digits.minimiser(scene.exact[0], lam, scene.theta, scene.theta)
    star = np.array([float(x) for x in star])
    start = far * np.random.default_rng(81).standard_normal(star.size)
    solution = Newton()(scene.problem, scene.theta, start=start)
    assert solution.status is Status.CONVERGED
    rounding = 64 * 9**0.5 * scene.condition * EPS * (1 + np.linalg.norm(scene.theta) + np.linalg.norm(star))
    assert np.linalg.norm(solution.value - star) <= rounding


@pytest.mark.parametrize("lam", LAMS[:3], ids="{:.3g}".format)
@pytest.mark.parametrize("activation", ["tanh", "softplus"])
def test_networks_end_in_a_minimum(activation, lam):
    """Stationary in 50 digits: Newton there moves by less than 16·N·κ(A)·eps; and A is positive definite."""
    scene = scenes.network(lam, (3, 2), activation, 0)
    solution = Newton()(scene.problem, scene.theta)
    assert solution.status is Status.CONVERGED
    values = np.linalg.eigvalsh(scene.problem.curvature(solution.value).dense())
    assert values[0] > 0
    star, _ = fifty_digits.minimiser(scene.exact[0], lam, scene.theta, solution.value)
    moved = np.linalg.norm([float(x) - y for x, y in zip(star, solution.value, strict=True)])
    assert moved <= 16 * solution.value.size * values[-1] / values[0] * EPS * np.linalg.norm(solution.value)
    assert scene.problem.value(solution.value, scene.theta) < scene.problem.value(scene.theta, scene.theta)


def double_well(x):
    """(x₀² − 1)²/4 + x₁²/2: a saddle at 0, minima at ±e₀."""
    return 0.25 * (x[0] ** 2 - 1) ** 2 + 0.5 * x[1] ** 2


@pytest.mark.parametrize("lam", [1e-3, 0.03, 0.4])
@pytest.mark.parametrize("solver", [Cholesky(), CG(10, 1e-12), ScipyCG(10, 1e-12)], ids=lambda s: s.label)
def test_leaves_a_saddle_downhill(solver, lam):
    """From a start near the saddle, where A is indefinite: every result is a minimum, and lower than the start."""
    loss = Autodiff(double_well)
    problem = BilevelProblem(loss, loss, lam)
    for start in (np.array([1e-3, 0.5]), np.array([-1e-6, 1e-3]), np.array([1e-2, 0.0])):
        solution = Newton(linear_solver=solver)(problem, np.zeros(2), start=start)
        assert solution.status is Status.CONVERGED
        # x³ − (1 − λ)x = 0 on the side of the start.
        wanted = np.array([np.copysign((1 - lam) ** 0.5, start[0]), 0.0])
        assert np.linalg.norm(solution.value - wanted) <= 64 * EPS
        assert problem.value(solution.value, np.zeros(2)) < problem.value(start, np.zeros(2))
        assert solution.smallest_eigenvalue < 0


@pytest.mark.parametrize("factor", [np.nan, -1.0, 0.0], ids=["NaN", "uphill", "nothing"])
def test_a_useless_direction_is_replaced_by_steepest_descent(factor):
    """Whatever the linear solver returns, G goes down."""

    def useless(A, b):
        return Solution(factor * b, np.zeros(b.shape[:-1]), 0, Status.STAGNATED, "useless")

    scene = scenes.softmax(4.7)
    first = scene.problem.value(scene.theta, scene.theta)
    solution = Newton(max_steps=4, linear_solver=useless)(scene.problem, scene.theta)
    assert solution.steps == 4
    assert scene.problem.value(solution.value, scene.theta) < first


def test_an_exact_saddle_is_stationary_but_no_minimum():
    """Nothing points downhill from it; the status of the inner solve is true, and the estimate is refused."""
    loss = Autodiff(double_well)
    problem = BilevelProblem(loss, Autodiff(lambda x: x[0] + x[1]), 0.25)
    estimate = EXACT(problem, np.zeros(2))
    assert estimate.inner.status is Status.CONVERGED
    assert estimate.status is Status.INDEFINITE
    assert np.isnan(estimate.gradient).all()


def test_stays_at_the_minimum():
    """A start at φ* is done, apart from one step of polish; at residual 0 not even that."""
    scene = scenes.softmax(0.37)
    star = Newton()(scene.problem, scene.theta)
    again = Newton()(scene.problem, scene.theta, start=star.value)
    assert again.steps <= 1
    assert again.residual_norm <= star.residual_norm
    still = Newton()(BilevelProblem(Diagonal(np.ones(2)), Diagonal(np.ones(2)), 0.5), np.zeros(2))
    assert still.steps == 0
    assert still.residual_norm == 0
    assert still.status is Status.CONVERGED


def test_the_status_is_true():
    scene = scenes.softmax(1e-3)
    for steps in range(8):
        solution = Newton(max_steps=steps, rtol=1e-6)(scene.problem, scene.theta)
        residual = np.linalg.norm(scene.problem.stationarity(solution.value, scene.theta))
        gradient = np.linalg.norm(scene.problem.inner.gradient(solution.value))
        pull = scene.lam * (np.linalg.norm(solution.value) + np.linalg.norm(scene.theta))
        assert abs(solution.residual_norm - residual) <= 8 * 9 * EPS * (gradient + pull)
        assert (solution.status is Status.CONVERGED) == (residual <= 1e-6 * (gradient + pull))
        assert solution.ok or solution.status is Status.MAX_STEPS
        assert solution.steps <= steps


def test_rounding_is_not_asked_for_more():
    """rtol = 0 is met at the rounding floor of the loss's own terms."""
    for scene in (scenes.ridge(1e-3), scenes.softmax(1e-3), scenes.network(0.9, (3,), "tanh", 0)):
        assert Newton(rtol=0.0)(scene.problem, scene.theta).status is Status.CONVERGED


def test_a_bad_problem_leaves_its_neighbours_alone():
    """NaN curvature, a wall of NaN, and two good problems: those are bitwise as if alone."""
    h = np.array([[1.0, 2.0], [np.nan, 1.0], [-4.0, -9.0], [3.0, 0.0]])
    problem = BilevelProblem(Diagonal(h, 1.0), Diagonal(np.ones((4, 2))), 0.7)
    together = Newton(max_steps=9)(problem, np.array([0.3, -0.8]))
    assert together.status[1] is Status.NONFINITE
    assert not together.ok[2]  # unbounded below
    for i in (0, 3):
        alone = Newton(max_steps=9)(problem.select((i,), (4,)), np.array([0.3, -0.8]))
        assert alone.ok
        assert np.array_equal(together.value[i], alone.value)
        assert together.residual_norm[i] == alone.residual_norm
        assert together.steps[i] == alone.steps


def test_settings_are_checked():
    with pytest.raises(ArgumentTypeError, match="linear_solver"):
        Newton(linear_solver=Cholesky)
    with pytest.raises(ArgumentTypeError, match="rtol"):
        Newton(rtol="tight")
    with pytest.raises(ArgumentTypeError, match="max_steps"):
        Newton(max_steps=2.5)
