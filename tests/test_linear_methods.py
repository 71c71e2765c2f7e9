"""What every further linear solver owes: scales, neighbours, costs, dtypes, backends, statuses."""

import array_api_strict as strict
import numpy as np
import pytest
from oracles.scenes import EPS
from oracles.systems import spd, symmetric
from scipy.sparse.linalg import LinearOperator

from implicit_grad import (
    CG,
    GMRES,
    LSMR,
    LU,
    MINRES,
    ArgumentError,
    ArgumentTypeError,
    BiCGSTAB,
    BlockCG,
    Cholesky,
    ConvergenceError,
    Eigh,
    IndefiniteError,
    MixedPrecision,
    Neumann,
    Nystrom,
    NystromPreconditioner,
    Operator,
    PreconditionedCG,
    Status,
)
from implicit_grad.linear import as_operator

SCIPY = [MINRES(60, 1e-11), GMRES(60, 1e-11), BiCGSTAB(60, 1e-11), LSMR(200, 1e-11)]
DIRECT = [LU(), Eigh(), LU(refinements=0), Eigh(refinements=3)]
OWN = [
    PreconditionedCG(60, 1e-11),
    PreconditionedCG(60, 1e-11, NystromPreconditioner(1)),
    BlockCG(60, 1e-11),
    MixedPrecision(CG(60, 1e-5)),
    Neumann(None, 6000),
]
REFINED = [MixedPrecision(Cholesky(), dense=True), MixedPrecision(LU())]
SOLVERS = SCIPY + DIRECT + OWN + REFINED
RECORDING = [
    MINRES(9, 1e-9, record=True),
    MINRES(6, record=True),
    PreconditionedCG(9, 1e-9, record=True),
    PreconditionedCG(6, 0.0, NystromPreconditioner(2), record=True),
    BlockCG(9, 1e-9, record=True),
    Neumann(None, 6, record=True),
    Neumann(0.01, 6, record=True),
]


def _id(solver):
    return f"{type(solver).__name__}-{solver.label}".replace(" ", "-")


def every(solvers, name="solver"):
    return pytest.mark.parametrize(name, solvers, ids=_id)


@every(SOLVERS)
@pytest.mark.parametrize(("size", "condition"), [(1, 1.0), (2, 1e2), (7, 1.0), (12, 1e2)])
def test_finds_the_solution(solver, size, condition):
    """‖x − A⁻¹b‖ ≤ 64·d·(κ·eps + rtol·κ)‖A⁻¹b‖, and the residual told is the true one."""
    A, b = spd(51, size, condition)
    solution = solver(A, b)
    exact = np.linalg.solve(A, b)
    rtol = getattr(solver, "rtol", 0.0) or 1e-11
    assert solution.ok
    assert np.linalg.norm(solution.value - exact) <= 64 * size * condition * (EPS + rtol) * np.linalg.norm(exact)
    residual = np.linalg.norm(b - A @ solution.value)
    noise = 8 * size * EPS * (condition * np.linalg.norm(exact) + np.linalg.norm(b))
    assert abs(solution.residual_norm - residual) <= noise


@every(SOLVERS)
@pytest.mark.parametrize("exponent", [-1000, -660, -500, 3, 500, 660, 1000])
def test_iterates_scale_with_b_to_the_last_bit(solver, exponent):
    """A x = 2^e b is solved by 2^e x, from 1e-301 to 1e301."""
    A, b = spd(52, 6, 1e2)
    plain, scaled = solver(A, b), solver(A, np.ldexp(b, exponent))
    assert np.array_equal(scaled.value, np.ldexp(plain.value, exponent))
    assert scaled.residual_norm == np.ldexp(plain.residual_norm, exponent)
    assert scaled.status is plain.status
    assert scaled.steps == plain.steps


@every([s for s in SOLVERS if not isinstance(s, Neumann)])
@pytest.mark.parametrize("exponent", [-660, -500, 500, 660])
def test_iterates_scale_with_A_to_the_last_bit(solver, exponent):
    """2^e A x = b, from 1e-199 to 1e199; so do the eigenvalues, to rounding."""
    A, b = spd(52, 6, 1e2)
    plain, scaled = solver(A, b), solver(np.ldexp(A, exponent), b)
    assert np.array_equal(scaled.value, np.ldexp(plain.value, -exponent))
    assert scaled.status is plain.status
    if plain.smallest_eigenvalue is not None:
        expected = np.ldexp(plain.smallest_eigenvalue, exponent)
        assert abs(scaled.smallest_eigenvalue - expected) <= 64 * 6 * EPS * np.ldexp(1e2, exponent)


@pytest.mark.parametrize("exponent", [-660, -500, 500, 660])
def test_neumann_scales_with_A(exponent):
    """α goes through an eigenvalue of a Lanczos matrix, which LAPACK scales in its own way."""
    A, b = spd(52, 6, 1e2)
    plain, scaled = Neumann(None, 50)(A, b), Neumann(None, 50)(np.ldexp(A, exponent), b)
    expected = np.ldexp(plain.value, -exponent)
    assert np.abs(scaled.value - expected).max() <= 64 * 50 * EPS * np.abs(expected).max()
    assert scaled.status is plain.status is Status.BUDGET_SPENT


@every(SOLVERS)
def test_a_solution_beyond_the_range_is_not_finite(solver):
    """A ~ 1e-200 and b ~ 1e200: x ~ 1e400 is not a float64, and no success."""
    A, b = spd(53, 3, 10.0)
    solution = solver(np.ldexp(A, -660), np.ldexp(b, 660))
    assert solution.status is Status.NONFINITE


@every(SOLVERS)
def test_a_bad_problem_leaves_its_neighbours_alone(solver):
    """NaN in b, NaN in A, inf in b, a saddle, a huge and a zero problem beside good ones: bitwise as if alone."""
    rng = np.random.default_rng(15)
    A = np.stack([symmetric(seed, np.geomspace(1, 100, 6)) for seed in range(20, 29)])
    b = rng.standard_normal((9, 6))
    b[1, 2], A[2, 3, 3], b[3, 0], b[8] = np.nan, np.nan, np.inf, 0
    A[4] -= 20 * np.eye(6)
    A[5], b[5] = np.ldexp(A[5], 500), np.ldexp(b[5], -400)
    together = solver(A, b)
    wanted = {1: Status.NONFINITE, 2: Status.NONFINITE, 3: Status.NONFINITE, 4: Status.INDEFINITE}
    for i in range(9):
        alone = solver(A[i], b[i])
        assert together.status[i] is alone.status, i
        if i in wanted:
            assert together.status[i] is wanted[i], i
        else:
            assert alone.ok
            assert np.array_equal(together.value[i], alone.value), i
            assert together.residual_norm[i] == alone.residual_norm
    assert not together.value[8].any()
    with pytest.raises(ConvergenceError, match=r"problem \(1,\) of the batch \(9,\).*NONFINITE"):
        together.unwrap()


@every(SOLVERS)
def test_a_saddle_raises_with_its_witness(solver):
    A, b = symmetric(54, (-0.5, 1.0, 2.0, 5.0)), np.ones(4)
    solution = solver(A, b)
    assert solution.status is Status.INDEFINITE
    assert -0.5 - 64 * EPS * 5 <= solution.smallest_eigenvalue <= 0
    with pytest.raises(IndefiniteError, match="smallest eigenvalue"):
        solution.unwrap()


@every([*SCIPY, *DIRECT[:2]])
def test_the_formal_value_at_a_saddle(solver):
    """A⁻¹b exists, and comparing it is legitimate: it is kept beside the status that says what it is not."""
    A, b = symmetric(54, (-0.5, 1.0, 2.0, 5.0)), np.ones(4)
    exact = np.linalg.solve(A, b)
    assert np.linalg.norm(solver(A, b).value - exact) <= 64 * 10 * 1e-11 * np.linalg.norm(exact)


@every(SOLVERS)
def test_inconsistent_singular_systems_never_succeed(solver):
    """Small integers, rank d − 1 (row 11): SciPy's cg and minres report success with ‖x‖ ~ 1e15."""
    tried = 0
    for seed in range(2, 40):
        rng = np.random.default_rng(seed)
        d = int(rng.integers(3, 7))
        U, b = rng.integers(-3, 4, size=(d, d - 1)).astype(float), rng.integers(-3, 4, size=d).astype(float)
        A = U @ U.T
        if np.linalg.norm(b - A @ np.linalg.pinv(A, rcond=1e-10) @ b) > 1e-2 * np.linalg.norm(b):
            tried += 1
            solution = solver(A, b)
            # A fixed number of Neumann terms is a number of terms, not a promise.
            assert not solution.ok or solution.status is Status.BUDGET_SPENT, (seed, solution.status)
    assert tried > 10


@every(SOLVERS)
@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_zero_right_hand_side(solver, zero):
    solution = solver(spd(55, 4, 10.0)[0], np.full(4, zero))
    assert not solution.value.any()
    assert solution.status is Status.CONVERGED
    assert solution.residual_norm == 0


@every([s for s in SOLVERS if not isinstance(s, MixedPrecision)])
def test_float32_stays_float32(solver):
    A, b = (x.astype(np.float32) for x in spd(56, 6, 10.0))
    solution = solver(A, b)
    assert solution.value.dtype == solution.residual_norm.dtype == np.float32
    assert solution.ok
    exact = np.linalg.solve(A.astype(float), b.astype(float))
    eps32 = float(np.finfo(np.float32).eps)
    assert np.linalg.norm(solution.value - exact) <= 64 * 6 * 10 * eps32 * np.linalg.norm(exact)


@every(SOLVERS)
def test_takes_operators_of_every_kind(solver):
    A, b = spd(57, 5, 50.0)
    wanted = solver(A, b).value
    for each in (lambda v: v @ A, LinearOperator(A.shape, matvec=lambda v: A @ v), as_operator(A, b)):
        value = solver(each, b).value
        assert np.linalg.norm(value - wanted) <= 64 * 5 * 50 * (EPS + 1e-11) * np.linalg.norm(wanted)


@every(SOLVERS)
def test_an_operator_that_returns_its_argument(solver):
    """A = I as `lambda v: v`: routines that write into their work arrays must not write into the iterates."""
    b = np.array([1.0, -2.0, 0.5])
    solution = solver(lambda v: v, b)
    assert solution.ok
    assert np.abs(solution.value - b).max() <= 16 * EPS


@every(SOLVERS + RECORDING)
def test_nothing_is_written_into_the_arguments(solver):
    A, b = spd(58, 5, 50.0)
    for array in (A, b):
        array.flags.writeable = False
    value = solver(A, b).value
    assert not np.shares_memory(value, b)
    value[...] = 0  # the value is the caller's own


def counting(A):
    """An operator of one matrix or a batch, and the number of vectors that it multiplied."""
    calls = [0]

    def wrap(A):
        def apply(v):
            calls[0] += int(np.prod(np.broadcast_shapes(v.shape[:-1], A.shape[:-2])))
            return (A @ v[..., None])[..., 0]

        select = (lambda index: wrap(A[index])) if A.ndim > 2 else None
        return Operator(apply, A.shape[:-2], A.shape[-1], A, stacks=True, selector=select)

    return wrap(A), calls


@every(SOLVERS + RECORDING + [type(s)(0) for s in (*SCIPY, *OWN[:1], *OWN[2:3])])
@pytest.mark.parametrize("condition", [1.0, 1e2, 1e6])
def test_costs_are_exact(solver, condition):
    A, b = spd(59, 7, condition)
    operator, calls = counting(A)
    assert solver(operator, b).cost.hvps == calls[0]


@every(OWN + RECORDING[2:])
def test_costs_of_a_batch_are_exact(solver):
    """Every problem is charged the products of the batch, those after its own end included."""
    A = np.stack([spd(seed, 6, 30.0)[0] for seed in (60, 61, 62)])
    A[1] -= 5 * np.eye(6)
    operator, calls = counting(A)
    solution = solver(operator, np.random.default_rng(63).standard_normal((3, 6)))
    assert solution.cost.hvps * 3 == calls[0]


@every([*RECORDING, Neumann(2.5 / 30, 8, record=True), BlockCG(5, record=True)])
@pytest.mark.parametrize("shift", [0.0, 4.0], ids=["definite", "saddle"])
def test_a_recorded_run_is_all_shorter_runs(solver, shift):
    """Value, residual, status, steps and cost of `at(k)` are those of a run of k steps."""
    A, b = spd(64, 6, 30.0)
    A = A - shift * np.eye(6)
    run = solver(A, b)
    last = run.path.steps[-1]
    for k in range(last + 1):
        name = "steps" if isinstance(solver, Neumann) else "max_steps"
        alone = _shorter(solver, **{name: k})(A, b)
        at = run.at(k)
        assert at.status is alone.status, k
        assert at.cost == alone.cost, k
        assert at.steps == alone.steps, k
        assert np.array_equal(at.value, alone.value), k
        assert at.residual_norm == alone.residual_norm, k
    if shift:
        assert run.status is Status.INDEFINITE


def _shorter(solver, **changes):
    import dataclasses

    return dataclasses.replace(solver, record=False, **changes)


STRICT = [
    PreconditionedCG(30, 1e-8, record=True),
    PreconditionedCG(30, 1e-8, NystromPreconditioner(3)),
    Neumann(None, 5, record=True),
    Neumann(0.05, 50),
    BlockCG(20, 1e-8, record=True),
    Nystrom(3),
    MixedPrecision(CG(30, 1e-5)),
    MixedPrecision(BlockCG(30, 1e-5), dense=True),
]


@every(STRICT)
def test_runs_on_strict_arrays(solver):
    """Array-API arrays in, array-API arrays out, NumPy's numbers: saddle and NaN in the batch included."""
    A = np.stack(
        [symmetric(65, np.geomspace(1, 30, 8)), symmetric(66, np.geomspace(-1, -30, 8)), np.full((8, 8), np.nan)]
    )
    b, lam = np.random.default_rng(67).standard_normal((2, 3, 8)), np.array(0.5)

    def solve(xp):
        rhs = xp.asarray(b)
        return solver(as_operator(xp.asarray(A), rhs).shifted(xp.asarray(lam)), rhs)

    ours, theirs = solve(np), solve(strict)
    assert isinstance(theirs.value, type(strict.asarray(0.0)))
    assert ours.status.tolist() == theirs.status.tolist()
    assert [s.name for s in ours.status[0]] == ["CONVERGED", "INDEFINITE", "NONFINITE"] or solver.label[0] in "N"
    value, other = ours.value[:, 0], np.asarray(theirs.value)[:, 0]
    assert np.abs(value - other).max() <= 1e-7 * np.abs(value).max()


@every(SCIPY + DIRECT)
def test_host_solvers_refuse_other_arrays(solver):
    with pytest.raises(ArgumentTypeError, match=r"^b: .*use CG on other backends"):
        solver(strict.eye(2), strict.ones(2))


BAD_STEPS = [-1, 1.5, True, None, 10**9]


@pytest.mark.parametrize("kind", [MINRES, GMRES, BiCGSTAB, LSMR, PreconditionedCG, BlockCG])
def test_bad_arguments_of_iterative_solvers(kind):
    for steps in BAD_STEPS:
        with pytest.raises((ArgumentError, ArgumentTypeError), match=r"^max_steps"):
            kind(steps)
    for rtol in (-1e-3, 1.0, np.nan, "1e-3", True):
        with pytest.raises((ArgumentError, ArgumentTypeError), match=r"^rtol"):
            kind(5, rtol)


@pytest.mark.parametrize("kind", [MINRES, PreconditionedCG, BlockCG])
def test_record_is_a_flag(kind):
    with pytest.raises(ArgumentTypeError, match=r"^record"):
        kind(5, record=1)


@pytest.mark.parametrize("kind", [LU, Eigh])
def test_bad_arguments_of_dense_solvers(kind):
    for count in BAD_STEPS:
        with pytest.raises((ArgumentError, ArgumentTypeError), match=r"^refinements"):
            kind(count)
