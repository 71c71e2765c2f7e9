"""Iterative refinement: float32 does the work, float64 has the last word."""

import numpy as np
import pytest
from oracles.scenes import EPS
from oracles.systems import spd, symmetric

from implicit_grad import (
    CG,
    LU,
    ArgumentError,
    ArgumentTypeError,
    BilevelProblem,
    Cholesky,
    Cost,
    Eigh,
    ImplicitGradient,
    LeastSquares,
    MetaGradient,
    MixedPrecision,
    Neumann,
    Newton,
    Solution,
    Status,
)

EPS32 = float(np.finfo(np.float32).eps)
INNER = pytest.mark.parametrize("inner", [Cholesky(), CG(400, 1e-6), LU(), Eigh()], ids=lambda s: type(s).__name__)
DENSE = pytest.mark.parametrize("dense", [True, False], ids=["dense", "products"])


@INNER
@DENSE
def test_reaches_the_accuracy_of_float64(inner, dense):
    A, b = spd(121, 12, 1e2)
    exact = np.linalg.solve(A, b)
    solution = MixedPrecision(inner, rtol=1e-14, dense=dense)(A, b)
    assert solution.status is Status.CONVERGED
    assert solution.value.dtype == np.float64
    assert np.linalg.norm(solution.value - exact) <= 8 * 12 * 1e2 * EPS * np.linalg.norm(exact)
    assert 2 <= solution.steps <= 4


def test_the_inner_solver_works_in_float32():
    seen = []

    class Spy:
        def __call__(self, A, b):
            seen.append((b.dtype, A(b).dtype, A.like.dtype, np.abs(b).max()))
            return CG(50, 1e-5)(A, b)

    A, b = spd(122, 6, 10.0)
    for dense in (True, False):
        assert MixedPrecision(Spy(), dense=dense)(np.ldexp(A, 400), np.ldexp(b, -500)).ok
    assert len(seen) > 3
    for *dtypes, largest in seen:
        assert dtypes == [np.float32] * 3
        assert 1 <= largest < 2


def test_one_solve_in_float32_is_not_enough():
    A, b = spd(123, 10, 1e3)
    exact = np.linalg.solve(A, b)
    errors = [
        np.linalg.norm(MixedPrecision(Cholesky(), k, 0.0, dense=True)(A, b).value - exact) / np.linalg.norm(exact)
        for k in range(5)
    ]
    assert errors[0] == 1
    assert errors[1] > EPS32
    assert errors[1] <= 16 * 10 * 1e3 * EPS32
    assert errors[4] <= 8 * 10 * 1e3 * EPS


@INNER
@DENSE
@pytest.mark.parametrize("condition", [1e10, 1e12, 1e15])
def test_stagnates_where_float32_sees_nothing(inner, dense, condition):
    """κ·eps₃₂ ≫ 1: a factor of A₃₂ says nothing about A, and no number of corrections helps."""
    A, b = spd(124, 20, condition)
    solution = MixedPrecision(inner, 30, 1e-8, dense=dense)(A, b)
    assert solution.status in (Status.STAGNATED, Status.INDEFINITE)
    assert np.isfinite(solution.value).all()
    assert solution.residual_norm <= np.linalg.norm(b) * (1 + 8 * EPS)
    if solution.status is Status.INDEFINITE:  # not even float64 can tell it from a singular matrix
        assert condition * 20 * EPS > 1


@INNER
def test_a_suspicion_of_float32_is_not_taken_for_a_saddle(inner):
    """λ_min = 10⁻⁹‖A‖ > 0: float32 may see it negative; float64 knows better."""
    eigenvalues = np.concatenate([[1e-9], np.linspace(0.5, 1, 9)])
    for seed in range(125, 135):
        A = symmetric(seed, eigenvalues)
        solution = MixedPrecision(inner, 5, 1e-10, dense=True)(A, np.ones(10))
        assert solution.status is Status.STAGNATED
        if solution.smallest_eigenvalue is not None:
            assert solution.smallest_eigenvalue >= 1e-9 - 64 * EPS


@INNER
@DENSE
def test_a_saddle(inner, dense):
    A = symmetric(126, [-1.0, 2.0, 3.0, 10.0, 11.0])
    solution = MixedPrecision(inner, dense=dense)(A, np.ones(5))
    assert solution.status is Status.INDEFINITE
    assert abs(solution.smallest_eigenvalue + 1) <= 64 * 5 * EPS * 11


def test_the_better_iterate_is_kept():
    """An inner solver that makes things worse from its third call on."""
    calls = []

    class Erratic:
        def __call__(self, A, b):
            calls.append(1)
            good = Cholesky()(A, b)
            value = good.value if len(calls) < 3 else -5 * good.value
            return Solution(value, good.residual_norm, good.steps, good.status, self, cost=Cost())

    A, b = spd(127, 8, 1e4)
    solution = MixedPrecision(Erratic(), 20, 1e-15)(A, b)
    best = MixedPrecision(Cholesky(), 2, 0.0)(A, b)
    assert len(calls) == 3
    assert solution.status in (Status.STAGNATED, Status.CONVERGED)
    assert np.array_equal(solution.value, best.value)


def test_slow_progress_is_progress():
    """Ten terms of Neumann leave most of the error, and every correction takes the same share again."""
    A, b = spd(128, 6, 20.0)
    few, many = (MixedPrecision(Neumann(None, 10), k, 1e-12)(A, b) for k in (5, 400))
    assert few.status is Status.MAX_STEPS
    assert many.status is Status.CONVERGED


def test_an_inner_solver_that_diverges():
    A, b = spd(129, 6, 20.0)
    solution = MixedPrecision(Neumann(1.0, 40))(A, b)
    assert solution.status is Status.DIVERGED
    assert not solution.value.any()


def test_only_float64_can_be_refined():
    A, b = (x.astype(np.float32) for x in spd(130, 4, 10.0))
    with pytest.raises(ArgumentTypeError, match=r"^b: .*float64 by float32, got float32"):
        MixedPrecision(Cholesky())(A, b)


def test_bad_arguments():
    for inner in (None, Cholesky, 3, "Cholesky"):
        with pytest.raises(ArgumentTypeError, match=r"^linear_solver"):
            MixedPrecision(inner)
    for steps in (-1, 1.5, True):
        with pytest.raises((ArgumentError, ArgumentTypeError), match=r"^max_steps"):
            MixedPrecision(Cholesky(), steps)
    for rtol in (-1e-3, 1.0, np.nan):
        with pytest.raises(ArgumentError, match=r"^rtol"):
            MixedPrecision(Cholesky(), 3, rtol)
    with pytest.raises(ArgumentTypeError, match=r"^dense"):
        MixedPrecision(Cholesky(), dense=1)


@DENSE
def test_as_a_meta_gradient(dense):
    rng = np.random.default_rng(131)
    X, y, theta = rng.standard_normal((2, 12, 5)), rng.standard_normal((2, 12)), rng.standard_normal(5)
    for lam in (0.02, 3.0, 1e150):
        problem = BilevelProblem(LeastSquares(X[0], y[0]), LeastSquares(X[1], y[1]), lam)
        exact, refined = (
            MetaGradient(Newton(), ImplicitGradient(solver))(problem, theta).unwrap()
            for solver in (Cholesky(), MixedPrecision(CG(60, 1e-5), rtol=1e-13, dense=dense))
        )
        condition = 1 + np.linalg.norm(X[0], 2) ** 2 / 12 / lam
        assert np.linalg.norm(refined - exact) <= condition * (1e-13 + 64 * 5 * EPS) * np.linalg.norm(exact)
