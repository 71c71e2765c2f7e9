"""The Neumann series: its step sizes, and how it ends."""

import numpy as np
import pytest
from oracles import scenes
from oracles.scenes import EPS
from oracles.systems import spd

from implicit_grad import ArgumentError, ArgumentTypeError, GradientDescent, Neumann, Operator, Status

A, B = spd(81, 8, 50.0)


def test_is_richardsons_iteration():
    """x ← x + α(b − Ax) from zero, to 8·k·d·eps."""
    alpha, x = 0.02, np.zeros(8)
    for k in range(12):
        assert np.linalg.norm(Neumann(alpha, k)(A, B).value - x) <= 8 * 12 * 8 * EPS * np.linalg.norm(x)
        x = x + alpha * (B - A @ x)


@pytest.mark.parametrize("lam", scenes.LAMS, ids="{:.3g}".format)
def test_takes_the_step_of_gradient_descent(lam):
    """With a known curvature bound both take 1/M̄: truncated backpropagation and Neumann agree by default."""
    scene = scenes.softmax(lam)
    alpha = GradientDescent(None, 1).alpha(scene.problem, scene.theta)
    operator, b = scene.problem.curvature(scene.theta), scene.problem.outer.gradient(scene.theta)
    ours, theirs = Neumann(None, 5)(operator, b), Neumann(float(alpha), 5)(operator, b)
    assert np.array_equal(ours.value, theirs.value)
    assert ours.cost.hvps == 6


def test_without_a_bound_lanczos_sets_the_step():
    """Up to 20 products, all of them counted; α ≤ 1/λ_max once they reach d."""
    solution = Neumann(None, 5)(A, B)
    assert solution.cost.hvps == 8 + 5 + 1
    alpha = solution.value @ B / (B @ B) if solution.steps == 1 else Neumann(None, 1)(A, B).value @ B / (B @ B)
    assert abs(1.1 * 50 * alpha - 1) <= 64 * 8 * EPS
    big = np.diag(np.linspace(1, 2, 30))
    assert Neumann(None, 5)(big, np.ones(30)).cost.hvps == 20 + 5 + 1


def test_a_step_too_long_is_told_from_a_saddle():
    """Both let ‖r‖ grow. Lower α in one case; in the other no α will do."""
    too_long = Neumann(0.05, 500)(A, B)
    assert too_long.status is Status.DIVERGED
    saddle = Neumann(0.02, 500)(A - 2 * np.eye(8), B)
    assert saddle.status is Status.INDEFINITE
    assert -1 - 64 * 50 * EPS <= saddle.smallest_eigenvalue <= 0
    # The probe of 8 products is charged once, and only where something grew.
    assert too_long.cost.hvps == int(too_long.steps) + 1 + 8 + 1
    assert Neumann(0.02, 5)(A, B).cost.hvps == 5 + 1


def test_the_partial_sum_before_the_growth_is_kept():
    """αλ = (3, ½): b = (ε, 1) shrinks at first, then grows by 2 in each step."""
    diagonal, b = np.diag([3.0, 0.5]), np.array([1e-3, 1.0])
    run = Neumann(1.0, 30, record=True)(diagonal, b)
    assert run.status is Status.DIVERGED
    norms = [np.hypot(1e-3 * 2.0**k, 0.5**k) for k in range(20)]
    last = int(np.argmax(np.diff(norms) >= 0))
    assert run.steps == last
    exact = np.array([1e-3 * (1 - (-2.0) ** last) / 3, 2 * (1 - 0.5**last)])
    assert np.abs(run.value - exact).max() <= 16 * EPS
    assert [run.at(k).status for k in range(last + 1)] == [Status.BUDGET_SPENT] * (last + 1)
    assert run.at(last + 1).status is Status.DIVERGED


def test_one_divergent_problem_of_a_batch():
    batch = np.stack([A, 10 * A, A / 10])
    solution = Neumann(0.02, 40)(batch, B)
    assert [s.name for s in solution.status] == ["BUDGET_SPENT", "DIVERGED", "BUDGET_SPENT"]
    for i in (0, 2):
        assert np.array_equal(solution.value[i], Neumann(0.02, 40)(batch[i], B).value)


def test_a_marginal_step_is_no_success():
    """|1 − αλ| = 1: the residual neither grows nor shrinks."""
    solution = Neumann(2.0, 40)(np.eye(3), np.ones(3))
    assert solution.status is Status.STAGNATED
    assert solution.steps == 0


def test_a_step_that_overflows_diverges():
    solution = Neumann(1e300, 5)(np.diag([1e200, 1e200]), np.ones(2))
    assert solution.status is Status.DIVERGED
    assert not solution.value.any()


def test_a_negative_operator_has_no_step():
    """λ_max < 0: there is no α > 0, and the first thing known is that A is no minimum's."""
    run = Neumann(None, 5, record=True)(-A, B)
    assert run.status is Status.INDEFINITE
    assert run.steps == 0
    assert run.at(0).status is Neumann(None, 0)(-A, B).status is Status.INDEFINITE


def test_an_exact_solve_stops():
    solution = Neumann(1.0, 50)(np.eye(4), np.ones(4))
    assert solution.status is Status.CONVERGED
    assert solution.steps == 1
    assert np.array_equal(solution.value, np.ones(4))


def test_faded_terms_are_taken_for_nothing():
    """αλ = ½ everywhere: after a hundred terms nothing is left to add, and 10⁵ were asked for."""
    solution = Neumann(0.5, 100_000)(np.eye(4), np.ones(4))
    assert solution.status in (Status.BUDGET_SPENT, Status.CONVERGED)
    assert solution.ok
    assert solution.cost.hvps < 120
    assert np.abs(solution.value - 1).max() <= 4 * EPS


def test_a_shift_moves_the_bound():
    """The bound of λ_max follows A + σI and A/c."""
    bounded = Operator(lambda v: v @ A, (), 8, A, stacks=True, bound=lambda: np.asarray(50.0))
    for changed, bound in ((bounded.shifted(np.asarray(14.0)), 64.0), (bounded.divided(np.asarray(4.0)), 12.5)):
        assert abs(changed.bound() - bound) <= 4 * EPS * bound
        value = Neumann(None, 1)(changed, B).value
        assert np.abs(value * bound - B).max() <= 4 * EPS * np.abs(B).max()


@pytest.mark.parametrize("step_size", [0, -1.0, np.nan, np.inf, "0.1", [0.1], True])
def test_bad_step_sizes(step_size):
    with pytest.raises((ArgumentError, ArgumentTypeError), match=r"^step_size"):
        Neumann(step_size, 5)


@pytest.mark.parametrize("steps", [-1, 1.5, True, None])
def test_bad_steps(steps):
    with pytest.raises((ArgumentError, ArgumentTypeError), match=r"^steps"):
        Neumann(0.1, steps)


def test_the_smallest_curvature_is_a_rayleigh_quotient():
    solution = Neumann(0.02, 30)(A, B)
    spectrum = np.linalg.eigvalsh(A)
    assert spectrum[0] <= solution.smallest_eigenvalue <= spectrum[-1]
