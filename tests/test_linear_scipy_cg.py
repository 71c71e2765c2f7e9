"""What `scipy.sparse.linalg.cg` says and what is the case, pinned side by side.

Each test first records SciPy's own behaviour (1.17), then that `ScipyCG` and `CG` tell the truth about it.
"""

import numpy as np
import pytest
from oracles.systems import spd, symmetric
from scipy.sparse.linalg import cg

from implicit_grad import CG, ArgumentError, ScipyCG, Status

SOLVERS = pytest.mark.parametrize("kind", [ScipyCG, CG])
A3, B3 = np.diag([1.0, 4.0, 9.0]), np.array([1.0, 2.0, 3.0])


def scipy_cg(A, b, **options):
    """SciPy's value, its `info`, and the number of iterations."""
    count = []
    with np.errstate(all="ignore"):
        x, info = cg(A, b, atol=0.0, callback=lambda x: count.append(1), **options)
    return x, info, len(count)


@SOLVERS
def test_no_iterations_are_a_success_to_scipy(kind):
    x, info, _ = scipy_cg(A3, B3, maxiter=0)
    assert info == 0
    assert not x.any()
    assert kind(0, 1e-5)(A3, B3).status is Status.MAX_STEPS


@SOLVERS
def test_exact_convergence_without_a_tolerance_is_nan_to_scipy(kind):
    x, _, _ = scipy_cg(np.eye(3), B3, rtol=0.0)
    assert np.isnan(x).all()
    solution = kind(50)(np.eye(3), B3)
    assert np.array_equal(solution.value, B3)
    assert solution.status is Status.CONVERGED
    assert solution.steps == 1


@SOLVERS
def test_a_tiny_right_hand_side_is_returned_by_scipy(kind):
    b = 1e-200 * B3
    x, info, _ = scipy_cg(A3, b, rtol=1e-8)
    assert info == 0
    assert np.array_equal(x, b)
    assert np.allclose(kind(50, 1e-8)(A3, b).unwrap(), 1e-200 * np.array([1, 1 / 2, 1 / 3]), rtol=9e-8, atol=0)


@SOLVERS
def test_a_huge_right_hand_side_is_nan_to_scipy(kind):
    b = 1e200 * B3
    assert np.isnan(scipy_cg(A3, b, rtol=1e-8)[0]).all()
    assert np.allclose(kind(50, 1e-8)(A3, b).unwrap(), 1e200 * np.array([1, 1 / 2, 1 / 3]), rtol=9e-8, atol=0)


@SOLVERS
@pytest.mark.parametrize("where", ["A", "b"])
def test_nan_keeps_scipy_busy(kind, where):
    A, b = A3.copy(), B3.copy()
    (A[1] if where == "A" else b)[1] = np.nan
    x, info, iterations = scipy_cg(A, b)
    assert iterations == info == 10 * 3
    assert np.isnan(x).all()
    assert kind(50, 1e-8)(A, b).status is Status.NONFINITE


@SOLVERS
def test_inconsistent_singular_systems_converge_to_scipy(kind):
    """Small integers, rank d − 1: SciPy reports success with relative residuals near 1 and ‖x‖ ~ 1e15."""
    fooled = 0
    for seed in range(2, 60):
        rng = np.random.default_rng(seed)
        d = int(rng.integers(2, 7))
        U, b = rng.integers(-3, 4, size=(d, d - 1)).astype(float), rng.integers(-3, 4, size=d).astype(float)
        A = U @ U.T
        inconsistent = np.linalg.norm(b - A @ np.linalg.pinv(A, rcond=1e-10) @ b) > 1e-2 * np.linalg.norm(b)
        if not inconsistent:
            continue
        x, info, _ = scipy_cg(A, b)
        fooled += info == 0 and np.linalg.norm(b - A @ x) > 1e-2 * np.linalg.norm(b)
        solution = kind(10 * d, 1e-5)(A, b)
        assert not solution.ok, seed
        assert kind(10 * d)(A, b).status is not Status.CONVERGED
    assert fooled > 5


@SOLVERS
def test_a_swap_is_nan_to_scipy(kind):
    A, b = np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([1.0, 0.0])
    assert np.isnan(scipy_cg(A, b)[0]).all()
    solution = kind(9)(A, b)
    assert solution.status is Status.INDEFINITE
    assert not solution.value.any()


@SOLVERS
def test_an_indefinite_matrix_converges_to_scipy(kind):
    """The formal solution at a saddle, to ten digits, with info 0: convergence proves nothing."""
    A = symmetric(21, np.concatenate([np.linspace(1, 5, 20), np.linspace(-5, -1, 10)]))
    b = np.random.default_rng(22).standard_normal(30)
    x, info, _ = scipy_cg(A, b, rtol=1e-10, maxiter=3000)
    assert info == 0
    assert np.linalg.norm(b - A @ x) <= 1e-9 * np.linalg.norm(b)
    solution = kind(3000, 1e-10)(A, b)
    assert solution.status is Status.INDEFINITE
    assert solution.smallest_eigenvalue < 0


@SOLVERS
def test_float32_below_its_precision_is_a_success_to_scipy(kind):
    A, b = (x.astype(np.float32) for x in spd(23, 30, 100.0))
    x, info, _ = scipy_cg(A, b, rtol=1e-12, maxiter=1000)
    true = np.linalg.norm(b - A.astype(float) @ x) / np.linalg.norm(b)
    assert info == 0
    assert true > 1e-9
    # The residual told is the true one, whatever the recurrence believes.
    solution = kind(1000, 1e-12)(A, b)
    told = solution.residual_norm / np.linalg.norm(b)
    assert told > 1e-9


def test_a_tolerance_of_nan_is_accepted_by_scipy():
    _, info, iterations = scipy_cg(A3, B3, rtol=np.nan)
    assert info == iterations == 30
    for kind in (ScipyCG, CG):
        with pytest.raises(ArgumentError, match="rtol"):
            kind(5, np.nan)


@SOLVERS
def test_meeting_the_tolerance_in_the_last_step_is_a_failure_to_scipy(kind):
    """SciPy looks at the residual before a step, never after the last."""
    _, info, _ = scipy_cg(np.eye(2), np.ones(2), maxiter=1)
    assert info == 1
    assert kind(1, 1e-5)(np.eye(2), np.ones(2)).status is Status.CONVERGED
