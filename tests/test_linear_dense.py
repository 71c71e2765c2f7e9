"""LU and the eigenbasis: every matrix has an answer, and only a minimum's is called one."""

import numpy as np
import pytest
from oracles import fifty_digits
from oracles.losses import Diagonal
from oracles.scenes import EPS
from oracles.systems import spd, symmetric

from implicit_grad import LU, BilevelProblem, Cholesky, Eigh, ImplicitGradient, IndefiniteError, Operator, Status

BOTH = pytest.mark.parametrize("solver", [LU(), Eigh()], ids=["LU", "Eigh"])
HALF = float(EPS**-0.5)
"""1/√eps: half of the digits."""


@BOTH
@pytest.mark.parametrize("condition", [1.0, 1e3, 1e7])
@pytest.mark.parametrize("size", [1, 4, 12])
def test_agrees_with_fifty_digits(solver, size, condition):
    """Forward error ≤ 4·d·κ·eps."""
    A, b = spd(31, size, condition)
    exact = list(fifty_digits.MP.lu_solve(fifty_digits.MP.matrix(A.tolist()), fifty_digits.MP.matrix(b.tolist())))
    solution = solver(A, b)
    assert solution.status is Status.CONVERGED
    assert fifty_digits.relative_error(solution.value, exact) <= 4 * size * condition * EPS


@BOTH
@pytest.mark.parametrize("eigenvalues", [(1.0, -0.25, 3.0), (-2.0, -1.0, -0.5), (1e-3, -1e3, 1.0)])
def test_formal_value_and_exact_eigenvalue_at_a_saddle(solver, eigenvalues):
    A, b = symmetric(32, eigenvalues), np.ones(3)
    solution = solver(A, b)
    largest, lowest = np.abs(eigenvalues).max(), np.abs(eigenvalues).min()
    exact = np.linalg.solve(A, b)
    assert solution.status is Status.INDEFINITE
    assert np.linalg.norm(solution.value - exact) <= 16 * 3 * EPS * largest / lowest * np.linalg.norm(exact)
    assert abs(solution.smallest_eigenvalue - min(eigenvalues)) <= 16 * EPS * largest
    with pytest.raises(IndefiniteError, match="smallest eigenvalue"):
        solution.unwrap()


@BOTH
def test_the_spectrum_is_told_at_a_minimum_too(solver):
    solution = solver(symmetric(33, (0.25, 1.0, 7.0)), np.ones(3))
    assert abs(solution.smallest_eigenvalue - 0.25) <= 16 * 7 * EPS


@BOTH
@pytest.mark.parametrize(("gap", "status"), [(4.0, Status.ILL_CONDITIONED), (0.25, Status.CONVERGED)])
def test_half_of_the_digits_is_the_limit(solver, gap, status):
    """κ = gap/√eps: beyond 1/√eps the value is there, and its status warns."""
    A, b = np.diag([1.0, 1 / (gap * HALF)]), np.ones(2)
    solution = solver(A, b)
    assert solution.status is status
    assert np.abs(solution.value * np.diag(A) - b).max() <= 4 * EPS


@BOTH
@pytest.mark.parametrize(
    ("lam", "status"),
    [
        (1.0, Status.INDEFINITE),
        (1 + 1e-12, Status.ILL_CONDITIONED),
        (1 - 1e-9, Status.INDEFINITE),
        (1.5, Status.CONVERGED),
    ],
)
def test_lam_near_an_eigenvalue_of_the_hessian(solver, lam, status):
    """Rows 4, 5 and 11: λ ≈ −μ_min(H). NumPy's solve raises at 1, and returns 1e12 without a word beside it."""
    problem = BilevelProblem(Diagonal(np.array([-1.0, 2.0])), Diagonal(np.ones(2), 1.0), lam)
    phi = np.array([0.3, 0.1])
    linear = solver(problem.curvature(phi), problem.outer.gradient(phi))
    assert linear.status is status
    if lam == 1:
        assert np.isnan(linear.value).all()
    inner = Cholesky()(np.eye(2), phi)  # any φ will do
    estimate = ImplicitGradient(solver)(problem, phi, inner)
    assert np.isnan(estimate.gradient).all() == (status is Status.INDEFINITE)


@BOTH
def test_a_singular_matrix_is_never_a_success(solver):
    for seed in range(2, 60):
        U = np.random.default_rng(seed).standard_normal((5, 2))
        solution = solver(U @ U.T, np.arange(1.0, 6.0))
        assert solution.status is Status.INDEFINITE, seed
        assert np.isnan(solution.value).all()


@BOTH
def test_a_zero_matrix(solver):
    solution = solver(np.zeros((3, 3)), np.ones(3))
    assert solution.status is Status.INDEFINITE
    assert solution.smallest_eigenvalue == 0


@pytest.mark.parametrize("kind", [LU, Eigh])
def test_refinement_uses_the_operator_itself(kind):
    """A dense copy that holds seven digits: three refinements by the products themselves restore the rest."""
    A, b = spd(33, 8, 1e2)
    coarse = A.astype(np.float32).astype(float)
    operator = Operator(lambda v: v @ (coarse if v.ndim > 1 else A), (), 8, A, stacks=True)
    exact = np.linalg.solve(A, b)
    errors = [np.linalg.norm(kind(k)(operator, b).value - exact) / np.linalg.norm(exact) for k in range(4)]
    assert errors[0] > 1e-8
    assert errors[3] <= 8 * 1e2 * EPS


@BOTH
def test_every_block_of_the_matrix_counts(solver):
    A, b = np.array([[2.0, 0.9], [0.9, 1.0]]), np.array([1.0, 1.0])
    assert np.abs(solver(A, b).value - np.array([0.1, 1.1]) / 1.19).max() <= 16 * EPS


@BOTH
def test_solves_a_batch_like_its_problems(solver):
    A = np.stack([spd(seed, 4, 1e2)[0] for seed in (34, 35)])
    b = np.random.default_rng(36).standard_normal((3, 1, 4))
    together = solver(A, b)
    assert together.value.shape == (3, 2, 4)
    for i, j in np.ndindex(3, 2):
        assert np.array_equal(together.value[i, j], solver(A[j], b[i, 0]).value)
