"""Exact inversion: every entry of the matrix, and a refusal where there is no factor."""

import numpy as np
import pytest
from oracles import fifty_digits
from oracles.scenes import EPS
from oracles.systems import spd, symmetric

from implicit_grad import CG, Cholesky, IndefiniteError, Operator, Status


@pytest.mark.parametrize("condition", [1.0, 1e3, 1e6, 1e10])
@pytest.mark.parametrize("size", [1, 4, 12])
def test_agrees_with_fifty_digits(size, condition):
    """Forward error ≤ 4·d·κ·eps, and the backward error ‖b − Ax‖ ≤ 10·d·eps·(‖A‖‖x‖ + ‖b‖)."""
    A, b = spd(31, size, condition)
    exact = list(fifty_digits.MP.lu_solve(fifty_digits.MP.matrix(A.tolist()), fifty_digits.MP.matrix(b.tolist())))
    solution = Cholesky()(A, b)
    assert solution.status is (Status.CONVERGED if size == 1 or condition < EPS**-0.5 else Status.ILL_CONDITIONED)
    assert fifty_digits.relative_error(solution.value, exact) <= 4 * size * condition * EPS
    scale = np.linalg.norm(A, 2) * np.linalg.norm(solution.value) + np.linalg.norm(b)
    assert solution.residual_norm <= 10 * size * EPS * scale


def test_every_block_of_the_matrix_counts():
    """The coupling of a weight and its bias is off the diagonal: dropping it would be 44 % wrong here."""
    A, b = np.array([[2.0, 0.9], [0.9, 1.0]]), np.array([1.0, 1.0])
    exact = np.array([0.1, 1.1]) / 1.19
    assert np.abs(Cholesky()(A, b).value - exact).max() <= 16 * EPS
    assert np.linalg.norm(b / np.diag(A) - exact) > 0.4 * np.linalg.norm(exact)


@pytest.mark.parametrize("eigenvalues", [(1.0, -0.25, 3.0), (-2.0, -1.0, -0.5)])
def test_an_indefinite_matrix_is_refused(eigenvalues):
    A = symmetric(32, eigenvalues)
    solution = Cholesky()(A, np.ones(3))
    assert solution.status is Status.INDEFINITE
    assert np.isnan(solution.value).all()
    assert abs(solution.smallest_eigenvalue - min(eigenvalues)) <= 16 * EPS * max(map(abs, eigenvalues))
    with pytest.raises(IndefiniteError, match="smallest eigenvalue"):
        solution.unwrap()


@pytest.mark.parametrize("refinements", [0, 1, 3])
def test_a_singular_matrix_is_never_a_success(refinements):
    """Rounding may let the factorisation through; the answer is then meaningless, and must not be called solved."""
    for seed in range(2, 80):
        U = np.random.default_rng(seed).standard_normal((5, 2))
        solution = Cholesky(refinements)(U @ U.T, np.arange(1.0, 6.0))
        assert solution.status in (Status.INDEFINITE, Status.ILL_CONDITIONED), seed


def test_refinement_uses_the_operator_itself():
    """A dense copy that holds seven digits: three refinements by the products themselves restore the rest."""
    A, b = spd(33, 8, 1e2)
    coarse = A.astype(np.float32).astype(float)
    operator = Operator(lambda v: v @ (coarse if v.ndim > 1 else A), (), 8, A, stacks=True)
    exact = np.linalg.solve(A, b)
    errors = [np.linalg.norm(Cholesky(k)(operator, b).value - exact) / np.linalg.norm(exact) for k in range(4)]
    assert errors[0] > 1e-8
    assert errors[3] <= 8 * 1e2 * EPS
    assert [Cholesky(k)(A, b).cost.hvps for k in range(3)] == [9, 10, 11]


def test_solves_a_batch_like_its_problems():
    A = np.stack([spd(seed, 4, 1e2)[0] for seed in (34, 35)])
    b = np.random.default_rng(36).standard_normal((3, 1, 4))
    together = Cholesky()(A, b)
    assert together.value.shape == (3, 2, 4)
    for i, j in np.ndindex(3, 2):
        assert np.array_equal(together.value[i, j], Cholesky()(A[j], b[i, 0]).value)


def test_agrees_with_conjugate_gradient():
    A, b = spd(37, 9, 1e3)
    exact, iterative = Cholesky()(A, b).value, CG(200, 1e-15)(A, b).value
    assert np.linalg.norm(exact - iterative) <= 16 * 9 * 1e3 * EPS * np.linalg.norm(exact)
