"""Row 5 of bad input: κ(A) > 1/√eps. The result is there, the status warns, and the message says κ."""

import numpy as np
import pytest
from oracles.losses import Diagonal
from oracles.scenes import EPS
from oracles.systems import symmetric

from implicit_grad import (
    LU,
    BilevelProblem,
    Cholesky,
    ConvergenceError,
    Eigh,
    GeneralLU,
    GradientDescent,
    ImplicitGradient,
    LeastSquares,
    MixedPrecision,
    Newton,
    Status,
    Woodbury,
)

EXACTLY = (Cholesky(), LU(), Eigh(), GeneralLU())


def test_kappa_is_in_the_message():
    A, b = np.diag([1.0, 1e-9]), np.array([1.0, 0.0])
    for solver in EXACTLY:
        solution = solver(A, b)
        assert np.array_equal(solution.value, b)  # the result is there, with its warning
        assert abs(solution.condition - 1e9) <= 1e-6 * 1e9
        with pytest.raises(ConvergenceError, match=r"ILL_CONDITIONED.*κ is about 1\.0e\+09"):
            solution.unwrap()
    problem = BilevelProblem(Diagonal(np.array([1.0, 1.2e-12 - 0.7]), 1.0), Diagonal(np.ones(2), 2.0), 0.7)
    inner = GradientDescent(None, 0)(problem, np.ones(2))
    with pytest.raises(ConvergenceError, match=r"κ is about 1\.\de\+12"):
        ImplicitGradient(Cholesky())(problem, np.ones(2), inner).unwrap()


def test_no_exact_solve_without_a_digit_says_converged():
    """eps·κ from 1e-6 to 1e6, b along either end of the spectrum: CONVERGED means half of the digits."""
    for exponent in range(0, 25, 2):
        A = symmetric(11, np.array([1.0, 0.3, 10.0**-exponent]))
        values, vectors = np.linalg.eigh(A)
        for b in (vectors[:, -1], vectors[:, 0], vectors.sum(axis=1)):
            for solver in EXACTLY:
                solution = solver(A, b)
                if solution.ok:
                    assert 1 / abs(values[0]) <= 2 * EPS**-0.5
                    # In the eigenbasis that eigh found, which is good to eps·κ.
                    exact = vectors @ ((vectors.T @ b) / values)
                    assert np.linalg.norm(solution.value - exact) <= 1e-6 * np.linalg.norm(exact)


def test_the_dual_form_is_not_lost_with_lam():
    """9 rows for 4 parameters: FFᵀ + σI has no factor for tiny σ, and that is a status, not SciPy's error."""
    rng = np.random.default_rng(5)
    loss = LeastSquares(rng.standard_normal((9, 4)), rng.standard_normal(9))
    lams = np.array([1e-3, 1e-17, 1e-40, 1e-10])
    linear = Woodbury()(BilevelProblem(loss, loss, lams).curvature(np.zeros((4, 4))), np.ones(4))
    good, bad = Status.CONVERGED, Status.ILL_CONDITIONED
    assert list(linear.status) == [good, bad, bad, good]
    assert np.isnan(linear.value[2]).all()
    alone = Woodbury()(BilevelProblem(loss, loss, 1e-3).curvature(np.zeros(4)), np.ones(4))
    assert np.array_equal(linear.value[0], alone.value)
    with pytest.raises(ConvergenceError, match=r"ILL_CONDITIONED.*κ is about"):
        linear.unwrap()


def test_float32_has_fewer_digits_to_lose():
    A, b = np.diag([1.0, 1e-4]), np.array([1.0, 1.0])
    for solver in EXACTLY:
        assert solver(A, b).status is Status.CONVERGED
        assert solver(A.astype(np.float32), b.astype(np.float32)).status is Status.ILL_CONDITIONED
    # Refinement in float64 lives on what float32 leaves, and has the last word.
    assert MixedPrecision(Cholesky(), dense=True)(A, b).status is Status.CONVERGED


def test_an_estimate_that_is_usable_where_newton_steps_are():
    """Newton takes what it gets: the direction is downhill, and its own residual judges."""
    problem = BilevelProblem(Diagonal(np.array([1e9, 0.0]), 1.0), Diagonal(np.ones(2)), 0.5)
    assert Newton()(problem, np.array([2.0, 3.0])).status is Status.CONVERGED


def test_every_problem_of_a_batch_has_its_own_kappa():
    A = np.stack([np.diag([1.0, 10.0**-k]) for k in (1, 9, 3)])
    for solver in EXACTLY:
        solution = solver(A, np.ones((3, 2)))
        assert [s is Status.ILL_CONDITIONED for s in solution.status] == [False, True, False]
        assert np.allclose(solution.condition, [1e1, 1e9, 1e3], rtol=1e-6, atol=0)
        with pytest.raises(ConvergenceError, match=r"problem \(1,\) of the batch \(3,\): ILL_CONDITIONED"):
            solution.unwrap()
