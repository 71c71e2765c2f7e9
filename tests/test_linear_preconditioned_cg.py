"""Preconditioned conjugate gradient: what M may be, and what happens where it is not."""

import numpy as np
import pytest
from oracles.scenes import EPS
from oracles.systems import spd, symmetric

from implicit_grad import (
    CG,
    ArgumentError,
    ArgumentTypeError,
    Jacobi,
    NystromPreconditioner,
    PreconditionedCG,
    Preconditioner,
    Status,
)
from implicit_grad.linear import as_operator

A, B = spd(101, 10, 1e2)
SCALES = np.geomspace(1, 1e4, 10)
LOPSIDED = SCALES[:, None] * A * SCALES
"""The same A in parameters of very different scale: κ ~ 10¹⁰."""


def test_recipes_are_preconditioners():
    assert isinstance(Jacobi(), Preconditioner)
    assert isinstance(NystromPreconditioner(2), Preconditioner)
    assert not isinstance(lambda r: r, Preconditioner)


def test_jacobi_undoes_the_scales_of_parameters():
    matrix, b = spd(105, 60, 10.0)
    scales = np.geomspace(1, 1e2, 60)
    matrix = scales[:, None] * matrix * scales
    plain, jacobi = CG(9000, 1e-8)(matrix, b), PreconditionedCG(9000, 1e-8)(matrix, b)
    assert jacobi.status is Status.CONVERGED
    assert plain.status is Status.CONVERGED
    assert plain.steps > 3 * jacobi.steps


def test_a_diagonal_system_takes_one_step():
    solution = PreconditionedCG(5, 1e-12)(np.diag(SCALES), B)
    assert solution.steps == 1
    assert np.abs(solution.value * SCALES - B).max() <= 4 * EPS * np.abs(B).max()
    # d products for the diagonal, one step, the check and the final residual.
    assert solution.cost.hvps == 10 + 1 + 1 + 1


def test_nystrom_takes_the_large_eigenvalues_out():
    """Five large eigenvalues over a cluster: CG needs a step for each, the sketch takes them all."""
    H = symmetric(102, [1e5, 3e4, 1e4, 5e3, 1e3, *np.linspace(0, 1e-2, 25)])
    operator = as_operator(H, np.ones(30)).shifted(np.asarray(1.0))
    b = np.random.default_rng(103).standard_normal(30)
    plain, sketched = CG(900, 1e-8)(operator, b), PreconditionedCG(900, 1e-8, NystromPreconditioner(8))(operator, b)
    assert sketched.ok
    assert sketched.steps <= 5 < plain.steps


def test_without_a_shift_A_itself_is_sketched():
    solution = PreconditionedCG(5, 1e-10, NystromPreconditioner(10))(A, B)
    assert solution.status is Status.CONVERGED
    assert solution.steps == 1


def test_nothing_is_conjugate_gradient():
    for k in range(6):
        wanted = CG(k)(A, B).value
        value = PreconditionedCG(k, 0.0, lambda r: r)(A, B).value
        assert np.linalg.norm(value - wanted) <= 4 * 5 * 1e2 * EPS * np.linalg.norm(wanted)


def test_the_tolerance_is_that_of_the_plain_residual():
    """‖b − Ax‖ ≤ rtol ‖b‖ whatever M is: M⁻¹ that shrinks r must not end the iteration."""
    for weight in (1e-150, 1.0, 1e150):
        solution = PreconditionedCG(900, 1e-4, lambda r, w=weight: w * r)(A, B)
        assert solution.status is Status.CONVERGED
        assert np.linalg.norm(B - A @ solution.value) <= 1e-4 * np.linalg.norm(B)
        assert solution.steps == CG(900, 1e-4)(A, B).steps <= 10


@pytest.mark.parametrize("sign", [-1.0, 0.0], ids=["negative", "zero"])
def test_a_preconditioner_that_is_no_inner_product(sign):
    solution = PreconditionedCG(50, 1e-8, lambda r: sign * r)(A, B)
    assert solution.status is Status.STAGNATED
    assert solution.steps == 0
    assert not solution.value.any()


def test_an_indefinite_preconditioner_keeps_what_was_reached():
    signs = np.where(np.arange(10) == 3, -1.0, 1.0)
    solution = PreconditionedCG(50, 1e-8, lambda r: signs * r)(A, B)
    assert not solution.ok
    assert np.isfinite(solution.value).all()


def test_a_preconditioner_that_returns_nan():
    def spoiled(r):
        z = r.copy()
        z[..., 1, :] = np.nan
        return z

    batch = np.stack([A, A, 2 * A])
    solution = PreconditionedCG(90, 1e-8, spoiled)(batch, B)
    assert [s.name for s in solution.status] == ["CONVERGED", "NONFINITE", "CONVERGED"]
    assert np.array_equal(solution.value[0], PreconditionedCG(90, 1e-8, lambda r: r.copy())(A[None], B).value[0])


def test_a_preconditioner_of_another_shape():
    with pytest.raises(ArgumentError, match=r"^preconditioner: returned shape \(1,\)"):
        PreconditionedCG(5, 0.0, lambda r: r[:1])(A, B)


@pytest.mark.parametrize("what", [None, 3, "Jacobi", Jacobi, object()])
def test_what_is_no_preconditioner(what):
    with pytest.raises(ArgumentTypeError, match=r"^preconditioner"):
        PreconditionedCG(5, 0.0, what)


@pytest.mark.parametrize("preconditioner", [Jacobi(), NystromPreconditioner(10)])
def test_a_saddle_met_before_the_first_step(preconditioner):
    """eᵢᵀAeᵢ ≤ 0 on the diagonal, a Ritz value ≤ 0 in the sketch: no step is taken, at any max_steps."""
    saddle = A - 30 * np.eye(10)
    assert np.diag(saddle).min() < 0
    run = PreconditionedCG(4, 0.0, preconditioner, record=True)(saddle, B)
    assert run.status is Status.INDEFINITE
    assert run.steps == 0
    assert run.smallest_eigenvalue < 0
    for k in range(5):
        alone = PreconditionedCG(k, 0.0, preconditioner)(saddle, B)
        assert run.at(k).status is alone.status is Status.INDEFINITE
        assert run.at(k).cost == alone.cost


def test_a_saddle_that_the_diagonal_hides():
    """diag(A) = (1, 1) and eigenvalues 1 ± 2."""
    solution = PreconditionedCG(9, 1e-8)(np.array([[1.0, 2.0], [2.0, 1.0]]), np.array([1.0, 0.2]))
    assert solution.status is Status.INDEFINITE
    assert -1 - 8 * EPS <= solution.smallest_eigenvalue <= 0


def test_one_preconditioner_for_each_problem_of_a_batch():
    """A (3, d, d) and b (2, 3, d): M has the axes of A, and every problem is as if alone."""
    batch = np.stack([A, LOPSIDED, np.diag(SCALES)])
    b = np.random.default_rng(104).standard_normal((2, 3, 10))
    for preconditioner in (Jacobi(), NystromPreconditioner(4)):
        solver = PreconditionedCG(400, 1e-8, preconditioner)
        together = solver(batch, b)
        for i, j in np.ndindex(2, 3):
            assert np.array_equal(together.value[i, j], solver(batch[j], b[i, j]).value)
