"""What SciPy's minres, gmres, bicgstab and lsmr say and what is the case, pinned side by side.

Each test first records SciPy's own behaviour (1.17), then that the adapters tell the truth about it.
"""

import numpy as np
import pytest
from oracles.scenes import EPS
from oracles.systems import spd, symmetric
from scipy.sparse.linalg import bicgstab, gmres, lsmr, minres

from implicit_grad import CG, GMRES, LSMR, MINRES, BiCGSTAB, Status

ALL = pytest.mark.parametrize("kind", [MINRES, GMRES, BiCGSTAB, LSMR])
RAW = {MINRES: minres, GMRES: gmres, BiCGSTAB: bicgstab}


def quietly(solve, *arguments, **options):
    with np.errstate(all="ignore"):
        return solve(*arguments, **options)[:2]


@pytest.mark.parametrize("kind", [MINRES, GMRES, BiCGSTAB])
def test_equals_scipy(kind):
    """The same numbers as SciPy's routine after as many steps, to 64·k·κ·eps."""
    A, b = spd(71, 8, 1e2)
    b /= np.abs(b).max()
    for k in range(1, 6):
        options = {"restart": k, "maxiter": 1} if kind is GMRES else {"maxiter": k}
        raw, _ = quietly(RAW[kind], A, b, rtol=1e-30, **options)
        assert np.linalg.norm(kind(k)(A, b).value - raw) <= 64 * k * 1e2 * EPS * np.linalg.norm(raw)


def test_lsmr_equals_scipy():
    A, b = spd(71, 8, 1e2)
    for k in range(1, 6):
        raw = quietly(lsmr, A, b, atol=0, btol=0, conlim=0, maxiter=k)[0]
        assert np.linalg.norm(LSMR(k)(A, b).value - raw) <= 64 * k * 1e4 * EPS * np.linalg.norm(raw)


@ALL
def test_a_saddle_is_a_success_to_scipy(kind):
    """The formal solution, info 0, and nothing that tells it from a minimum's."""
    A = symmetric(72, np.concatenate([np.linspace(1, 5, 12), np.linspace(-5, -1, 6)]))
    b = np.random.default_rng(73).standard_normal(18)
    if kind is LSMR:
        x, stop = quietly(lsmr, A, b, atol=1e-12, btol=1e-10)
        assert stop == 1
    else:
        x, info = quietly(RAW[kind], A, b, rtol=1e-10, maxiter=900)
        assert info == 0
    assert np.linalg.norm(b - A @ x) <= 1e-7 * np.linalg.norm(b)
    solution = kind(900, 1e-10)(A, b)
    assert solution.status is Status.INDEFINITE
    assert -5 - 64 * EPS * 5 <= solution.smallest_eigenvalue < 0
    assert np.linalg.norm(solution.value - x) <= 1e-6 * np.linalg.norm(x)


def test_minres_takes_a_least_squares_solution_for_success():
    """Inconsistent: info 0 with a relative residual of 0.58 and more."""
    A, b = np.diag([1.0, 4.0, 0.0]), np.ones(3)
    x, info = quietly(minres, A, b)
    assert info == 0
    assert np.linalg.norm(b - A @ x) > 0.5 * np.linalg.norm(b)
    assert MINRES(90, 1e-5)(A, b).status is Status.INDEFINITE


def test_minres_measures_A_against_absolute_numbers():
    """A of norm 1e-20: SciPy is wrong by everything, with info 0."""
    A, b = spd(74, 6, 1e2)
    tiny = np.ldexp(A, -66)
    x, info = quietly(minres, tiny, b, rtol=1e-10)
    assert info == 0
    assert np.linalg.norm(b - tiny @ x) > 0.1 * np.linalg.norm(b)
    solution = MINRES(60, 1e-10)(tiny, b)
    assert solution.status is Status.CONVERGED
    assert np.linalg.norm(b - tiny @ solution.value) <= 1e-10 * np.linalg.norm(b)


def test_minres_means_another_tolerance():
    """SciPy stops at ‖r‖ ≤ rtol ‖A‖‖x‖: for b along small eigenvalues that is far from rtol ‖b‖."""
    A, b = np.diag([1e6, 1.0, 1.2, 1.5]), np.array([1e-3, 1.0, 1.0, 1.0])
    x, info = quietly(minres, A, b, rtol=1e-6)
    assert info == 0
    assert np.linalg.norm(b - A @ x) > 1e-2 * np.linalg.norm(b)
    solution = MINRES(60, 1e-6)(A, b)
    assert solution.status is Status.CONVERGED
    assert np.linalg.norm(b - A @ solution.value) <= 1e-6 * np.linalg.norm(b)


@pytest.mark.parametrize("kind", [GMRES, BiCGSTAB])
def test_a_tiny_right_hand_side_is_lost_to_scipy(kind):
    A, b = spd(75, 5, 10.0)
    exact = np.linalg.solve(A, b)
    x, _ = quietly(RAW[kind], A, 1e-200 * b, rtol=1e-8)
    assert not np.linalg.norm(x * 1e200 - exact) <= 1e-2 * np.linalg.norm(exact)
    value = kind(60, 1e-8)(A, 1e-200 * b).unwrap()
    assert np.linalg.norm(value * 1e200 - exact) <= 1e-6 * np.linalg.norm(exact)


@ALL
@pytest.mark.parametrize("where", ["A", "b"])
def test_nan_ends_at_once(kind, where):
    A, b = spd(76, 4, 10.0)
    (A[1] if where == "A" else b)[1] = np.nan
    if where == "A":
        A[:, 1] = np.nan
    solution = kind(50, 1e-8)(A, b)
    assert solution.status is Status.NONFINITE
    assert solution.cost.hvps <= 2


def test_a_breakdown_is_no_success():
    """A swap: r̂ᵀAp = 0 in the first step of BiCGSTAB, and nothing can be divided by it."""
    A, b = np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([1.0, 0.0])
    solution = BiCGSTAB(9, 1e-8)(A, b)
    assert not solution.ok
    assert np.isfinite(solution.value).all()


def test_gmres_does_not_mistake_rounding_for_a_direction():
    """Three distinct eigenvalues: after three steps the basis goes on with rounding, and Ritz values must not."""
    A = symmetric(8, [101.0, 2.0, *[1.0] * 6])
    b = np.random.default_rng(77).standard_normal(8)
    for steps in range(3, 40):
        solution = GMRES(steps, 1e-300)(A, b)
        assert solution.status is not Status.INDEFINITE
        assert abs(solution.smallest_eigenvalue - 1) <= 64 * 8 * 101 * EPS


def test_gmres_is_ahead_where_minres_forgets():
    """Past k·log₁₀κ ~ 16 the Lanczos vectors of MINRES have lost their orthogonality; GMRES keeps and pays."""
    A, b = spd(78, 10, 1e4)
    minimal, forgetful = GMRES(10)(A, b).residual_norm, MINRES(10)(A, b).residual_norm
    assert minimal <= 64 * 10 * 1e4 * EPS * np.linalg.norm(b)
    assert forgetful > 1e3 * minimal


def test_lsmr_pays_for_the_square():
    """κ = 10³: about κ/√κ times the steps of CG for the same tolerance."""
    A, b = spd(79, 60, 1e3)
    few, many = CG(9000, 1e-6)(A, b), LSMR(9000, 1e-6)(A, b)
    assert few.ok
    assert many.ok
    assert many.steps > 2 * few.steps


@ALL
def test_a_lying_recurrence_is_restarted(kind):
    """CONVERGED is only said of the residual that was recomputed."""
    A, b = spd(80, 30, 1e8)
    for rtol in (1e-3, 1e-7):
        solution = kind(3000, rtol)(A, b)
        residual = np.linalg.norm(b - A @ solution.value)
        if solution.ok:
            size = np.linalg.norm(A, 2) * np.linalg.norm(solution.value) + np.linalg.norm(b)
            assert residual <= max(rtol * np.linalg.norm(b), 10 * 30 * EPS * size)
        assert abs(solution.residual_norm / residual - 1) <= 1e-2
