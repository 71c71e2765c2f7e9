"""The package's conjugate gradient: equal to SciPy's iterate by iterate, and honest where that is not."""

import numpy as np
import pytest
from oracles.scenes import EPS
from oracles.systems import spd, symmetric
from scipy.sparse.linalg import LinearOperator, aslinearoperator, cg

from implicit_grad import CG, Cholesky, ConvergenceError, IndefiniteError, ScipyCG, Status

SYSTEMS = [(size, condition) for size in (1, 2, 7, 30) for condition in (1.0, 1e2, 1e4)]


def scipy_iterates(A, b, steps):
    """x₀ … x_steps of `scipy.sparse.linalg.cg` itself, fewer where it stops."""
    iterates = [np.zeros_like(b)]
    cg(A, b, rtol=1e-300, atol=0.0, maxiter=steps, callback=lambda x: iterates.append(x.copy()))
    return iterates


@pytest.mark.parametrize(("size", "condition"), SYSTEMS)
def test_equals_scipy_iterate_by_iterate(size, condition):
    """‖x_k − x_k^SciPy‖ ≤ 4·k·κ·eps·‖x_k‖ while k ≤ d: the same recurrence, other orders of summation."""
    A, b = spd(11, size, condition)
    steps = min(size, 10)
    wanted = scipy_iterates(A, b, steps)
    # At κ = 1 one step may leave a residual of exactly zero, and SciPy has nothing more to do.
    assert len(wanted) == steps + 1 or (condition == 1 and len(wanted) == 2)
    wanted += wanted[-1:] * (steps + 1 - len(wanted))
    for solver in (CG(steps, record=True), ScipyCG(steps, record=True)):
        points = solver(A, b).path.points
        for k in range(1, steps + 1):
            allowed = 4 * k * condition * EPS * np.linalg.norm(wanted[k])
            assert np.linalg.norm(points[k] - wanted[k]) <= allowed, (solver, k)


@pytest.mark.parametrize(("size", "condition"), SYSTEMS)
def test_finds_the_solution(size, condition):
    """‖b − A x‖ ≤ rtol ‖b‖, recomputed here; hence ‖x − A⁻¹b‖ ≤ (rtol κ + 8·d·κ·eps)‖A⁻¹b‖ for every solver."""
    A, b = spd(12, size, condition)
    rtol = 1e-10
    exact = np.linalg.solve(A, b)
    for solver in (CG(20 * size, rtol), ScipyCG(20 * size, rtol), Cholesky()):
        solution = solver(A, b)
        residual = np.linalg.norm(b - A @ solution.unwrap())
        assert residual <= rtol * np.linalg.norm(b)
        rounding = 8 * size * condition * EPS
        assert abs(solution.residual_norm - residual) <= rounding * np.linalg.norm(b)
        assert np.linalg.norm(solution.value - exact) <= (rtol * condition + rounding) * np.linalg.norm(exact)


@pytest.mark.parametrize("solver", [CG(6), CG(40, 1e-12), ScipyCG(6), ScipyCG(40, 1e-12), Cholesky()], ids=repr)
@pytest.mark.parametrize("exponent", [-1000, -660, -500, -1, 3, 500, 660, 1000])
def test_iterates_scale_with_b_to_the_last_bit(solver, exponent):
    """A x = 2^e b is solved by 2^e x, from 1e-301 to 1e301: b is divided by a power of two."""
    A, b = spd(13, 6, 1e3)
    plain, scaled = solver(A, b), solver(A, np.ldexp(b, exponent))
    assert np.array_equal(scaled.value, np.ldexp(plain.value, exponent))
    assert scaled.residual_norm == np.ldexp(plain.residual_norm, exponent)
    assert scaled.status is plain.status
    assert scaled.steps == plain.steps


@pytest.mark.parametrize("solver", [CG(6), CG(40, 1e-12), ScipyCG(6), ScipyCG(40, 1e-12), Cholesky()], ids=repr)
@pytest.mark.parametrize("exponent", [-660, -500, 500, 660])
def test_iterates_scale_with_A_to_the_last_bit(solver, exponent):
    """2^e A x = b, from 1e-199 to 1e199."""
    A, b = spd(13, 6, 1e3)
    plain, scaled = solver(A, b), solver(np.ldexp(A, exponent), b)
    assert np.array_equal(scaled.value, np.ldexp(plain.value, -exponent))
    assert scaled.status is plain.status


@pytest.mark.parametrize("solver", [CG(5), CG(5, 1e-9), ScipyCG(5), ScipyCG(5, 1e-9)], ids=repr)
def test_zero_right_hand_side(solver):
    solution = solver(spd(14, 4, 10.0)[0], np.zeros(4))
    assert not solution.value.any()
    assert solution.status is Status.CONVERGED
    assert solution.steps == 0
    assert solution.residual_norm == 0


@pytest.mark.parametrize("kind", [CG, ScipyCG])
def test_no_steps(kind):
    A, b = spd(14, 4, 10.0)
    for rtol, wanted in ((0.0, Status.BUDGET_SPENT), (1e-3, Status.MAX_STEPS)):
        solution = kind(0, rtol)(A, b)
        assert solution.status is wanted
        assert not solution.value.any()
        assert abs(solution.residual_norm / np.linalg.norm(b) - 1) <= 4 * EPS


@pytest.mark.parametrize("kind", [CG, ScipyCG])
@pytest.mark.parametrize(
    "eigenvalues",
    [(1.0, -1.0), (3.0, 2.0, -1e-3), (-1.0, -2.0), (5.0, 1.0, 0.0)],
    ids=["balanced", "hardly", "negative", "singular"],
)
def test_what_is_not_positive_definite_is_never_a_success(kind, eigenvalues):
    """b has a part along every eigenvector, so the iteration must meet p with pᵀAp ≤ 0 or fail to converge."""
    A = np.diag(eigenvalues)
    solution = kind(50, 1e-10)(A, np.ones(len(eigenvalues)))
    assert solution.status is Status.INDEFINITE
    assert np.isfinite(solution.value).all()
    # A Rayleigh quotient lies inside the spectrum.
    slack = 8 * EPS * max(map(abs, eigenvalues))
    assert min(eigenvalues) - slack <= solution.smallest_eigenvalue <= slack
    with pytest.raises(IndefiniteError, match="smallest eigenvalue"):
        solution.unwrap()


@pytest.mark.parametrize("kind", [CG, ScipyCG])
def test_the_value_before_the_negative_direction_is_kept(kind):
    """diag(2, −1): the first direction (1, ½) has pᵀAp = 7/4, the second has not: x₁ = (5/7)·(1, ½)."""
    solution = kind(9)(np.diag([2.0, -1.0]), np.array([1.0, 0.5]))
    assert solution.status is Status.INDEFINITE
    assert solution.steps == 1
    assert np.abs(solution.value - 5 / 7 * np.array([1.0, 0.5])).max() <= 4 * EPS


@pytest.mark.parametrize("kind", [CG, ScipyCG])
def test_a_path_is_judged_step_by_step(kind):
    """A run that would have stopped before the negative direction does not know of it."""
    A, b = np.diag([2.0, -1.0]), np.array([1.0, 0.5])
    run = kind(4, record=True)(A, b)
    assert [run.at(k).status for k in range(5)] == [Status.BUDGET_SPENT] * 2 + [Status.INDEFINITE] * 3
    assert [kind(k)(A, b).status for k in range(5)] == [run.at(k).status for k in range(5)]


@pytest.mark.parametrize("solver", [CG(5), CG(60, 1e-11), ScipyCG(5), ScipyCG(60, 1e-11), Cholesky()], ids=repr)
def test_a_bad_problem_leaves_its_neighbours_alone(solver):
    """NaN in b, NaN in A, inf in b, a saddle and a huge problem beside good ones: those are bitwise as if alone."""
    rng = np.random.default_rng(15)
    A = np.stack([symmetric(seed, np.geomspace(1, 300, 6)) for seed in range(20, 28)])
    b = rng.standard_normal((8, 6))
    b[1, 2], A[2, 3, 3], b[3, 0] = np.nan, np.nan, np.inf
    A[4] -= 40 * np.eye(6)
    A[5], b[5] = 1e180 * A[5], 1e-180 * b[5]
    together = solver(A, b)
    wanted = {1: Status.NONFINITE, 2: Status.NONFINITE, 3: Status.NONFINITE, 4: Status.INDEFINITE}
    for i in range(8):
        alone = solver(A[i], b[i])
        assert together.status[i] is alone.status
        if i in wanted:
            assert together.status[i] is wanted[i]
        else:
            assert alone.ok
            assert np.array_equal(together.value[i], alone.value)
            assert together.residual_norm[i] == alone.residual_norm
    with pytest.raises(ConvergenceError, match=r"problem \(1,\) of the batch \(8,\).*NONFINITE"):
        together.unwrap()


def test_steps_and_status_are_per_problem():
    """Two, one and zero distinct eigenvalues seen: two steps, one step, none."""
    A, b = np.diag([1.0, 4.0]), np.array([[1.0, 1.0], [0.0, 1.0], [0.0, 0.0]])
    solution = CG(2, 1e-12)(A, b)
    assert solution.steps.tolist() == [2, 1, 0]
    assert list(solution.status) == [Status.CONVERGED] * 3


def test_a_lying_recurrence_is_restarted():
    """At κ = 1e10 the recurrence drifts from the true residual; CONVERGED is only said of the true one."""
    A, b = spd(16, 40, 1e10)
    for rtol in (1e-3, 1e-6):
        solution = CG(5000, rtol)(A, b)
        residual = np.linalg.norm(b - A @ solution.value)
        if solution.ok:
            size = np.linalg.norm(A, 2) * np.linalg.norm(solution.value) + np.linalg.norm(b)
            assert residual <= max(rtol * np.linalg.norm(b), 10 * 40 * EPS * size)
        assert solution.residual_norm <= residual * (1 + 1e-2)


@pytest.mark.parametrize("kind", [CG, ScipyCG])
def test_takes_operators_of_every_kind(kind):
    A, b = spd(17, 5, 50.0)
    wanted = kind(5)(A, b).value
    callables = (lambda v: A @ v, LinearOperator(A.shape, matvec=lambda v: A @ v), aslinearoperator(A))
    for each in callables:
        value = kind(5)(each, b).value
        assert np.linalg.norm(value - wanted) <= 4 * 5 * 50 * EPS * np.linalg.norm(wanted)


@pytest.mark.parametrize("kind", [CG, ScipyCG])
def test_float32_stays_float32_and_knows_its_floor(kind):
    """rtol = 1e-12 is below what float32 can do: the attainable residual is accepted, and reported as it is."""
    A, b = (x.astype(np.float32) for x in spd(18, 12, 100.0))
    solution = kind(500, 1e-12)(A, b)
    assert solution.value.dtype == solution.residual_norm.dtype == np.float32
    assert solution.status is Status.CONVERGED
    assert solution.residual_norm > 1e-12 * np.linalg.norm(b)
    x, A64 = solution.value.astype(float), A.astype(float)
    attainable = 10 * 12 * np.finfo(np.float32).eps * (np.linalg.norm(A64, 2) * np.linalg.norm(x) + np.linalg.norm(b))
    assert np.linalg.norm(b - A64 @ x) <= attainable


def test_nothing_is_written_into_the_arguments():
    A, b = spd(19, 5, 50.0)
    for array in (A, b):
        array.flags.writeable = False
    for solver in (CG(5, 1e-9, record=True), ScipyCG(5, 1e-9, record=True), Cholesky()):
        assert not np.shares_memory(solver(A, b).value, b)
