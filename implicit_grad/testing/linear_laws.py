"""Laws of linear solvers: what any solver of A x = b with symmetric A owes, by what it promises."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from implicit_grad.testing import strategies
from implicit_grad.testing.closed_forms import accurate_solve
from implicit_grad.testing.comparisons import NotApplicable, Violation, at_most, holds, same
from implicit_grad.testing.krylov_laws import check_chebyshev, check_optimality, check_termination
from implicit_grad.testing.law import Law
from implicit_grad.testing.linear_subject import REFUSALS, Answer, Claim, Domain, LinearSubject
from implicit_grad.testing.matrices import UNIT, Array, Clustered, Geometric, Indefinite, LinearSystem, Singular
from implicit_grad.testing.promises import Budget, Exact, Krylov, Tolerance

norm = np.linalg.norm


def true_residual(A: Array, b: Array, x: Array) -> Any:
    """‖b − Ax‖ in extended precision."""
    wide = np.longdouble
    return norm((b.astype(wide) - A.astype(wide) @ np.asarray(x, dtype=wide)).astype(np.float64))


def attainable(A: Array, b: Array, x: Array) -> float:
    """10·N·eps·(‖A‖‖x‖ + ‖b‖): a residual below it cannot be told from zero."""
    return float(20 * b.size * UNIT * (norm(A, 2) * norm(x) + norm(b)))


def allowed_residual(solve: LinearSubject, A: Array, b: Array, x: Array) -> float:
    """max(rtol‖b‖, attainable)."""
    rtol = getattr(solve.promise, "rtol", 0.0)
    return float(max(rtol * norm(b), attainable(A, b, x)))


def _answer(solve: LinearSubject, A: Array, b: Array) -> Answer:
    """Solve a positive definite system for a law about the answer: a solver that stopped short is left alone."""
    if isinstance(solve.promise, Budget):
        raise NotApplicable("a budget promises nothing about the answer")
    answer = solve(A, b)
    if answer.claim is Claim.FAILURE:
        if isinstance(solve.promise, Tolerance):
            raise NotApplicable(f"the solver says that it did not get there ({answer.said})")
        raise Violation(f"{answer.said} on a positive definite matrix")
    return answer


def _promised_error(solve: LinearSubject, system: LinearSystem, b: Array, x: Array) -> float:
    """‖A⁻¹‖ times the residual allowed: how far two good answers may be apart."""
    A = system.matrix()
    return float(allowed_residual(solve, A, b, x) / np.abs(system.eigenvalues[-1]))


def check_accuracy(solve: LinearSubject, system: LinearSystem) -> None:
    """The residual, recomputed in extended precision, meets the promise."""
    if isinstance(solve.promise, Krylov):
        raise NotApplicable("a budget of CG steps promises no residual")
    A, b = system.matrix(), system.rhs()
    answer = _answer(solve, A, b)
    at_most(true_residual(A, b, answer.value), allowed_residual(solve, A, b, answer.value), 0.0, "‖b − A x‖")


def check_forward_error(solve: LinearSubject, system: LinearSystem) -> None:
    """The error is the residual's, amplified by ‖A⁻¹‖ at most."""
    if isinstance(solve.promise, Krylov):
        raise NotApplicable("a budget of CG steps promises no error")
    A, b = system.matrix(), system.rhs()
    x = accurate_solve(A, b).astype(np.float64)
    answer = _answer(solve, A, b)
    same(answer.value, x, 2 * _promised_error(solve, system, b, x), "‖x̂ − A⁻¹b‖")


def check_easy(solve: LinearSubject, system: LinearSystem) -> None:
    """Two distinct eigenvalues and κ ≤ 10 are solved, and said to be, by all that promise a solution."""
    A, b = system.matrix(), system.rhs()
    if isinstance(solve.promise, Budget) or (isinstance(solve.promise, Krylov) and solve.promise.steps < 2):
        raise NotApplicable("no solution is promised within the budget")
    answer = solve(A, b)
    holds(answer.claim is not Claim.FAILURE, f"{answer.said} on a system with two eigenvalues and κ = 10")
    x = accurate_solve(A, b).astype(np.float64)
    rtol = max(getattr(solve.promise, "rtol", 0.0), 64 * system.size * UNIT)
    same(answer.value, x, 20 * rtol * norm(x), "‖x̂ − A⁻¹b‖")


def check_nothing(solve: LinearSubject, system: LinearSystem) -> None:
    """Nothing on the right: b = 0 is solved by x = 0, and called a success."""
    answer = solve(system.matrix(), np.zeros(system.size))
    holds(np.array_equal(answer.value, np.zeros(system.size)), f"b = 0 gave {answer.value}")
    holds(answer.claim is not Claim.FAILURE, f"{answer.said} for b = 0")


def check_symmetry(solve: LinearSubject, system: LinearSystem) -> None:
    """⟨c, A⁻¹b⟩ = ⟨A⁻¹c, b⟩."""
    if isinstance(solve.promise, Krylov):
        raise NotApplicable("truncated CG is not linear in b")
    A, b = system.matrix(), system.rhs()
    c = np.random.default_rng([system.seed, 26]).standard_normal(system.size)
    first, second = _answer(solve, A, b).value, _answer(solve, A, c).value
    tolerance = 2 * norm(c) * _promised_error(solve, system, b, first)
    tolerance += 2 * norm(b) * _promised_error(solve, system, c, second)
    same(c @ first, second @ b, tolerance, "⟨c, A⁻¹b⟩ and ⟨A⁻¹c, b⟩")


def check_eigenvector(solve: LinearSubject, system: LinearSystem) -> None:
    """A v = μv and b = v: x = v/μ, for CG after one step."""
    A, place = system.matrix(), system.seed % system.size
    if isinstance(solve.promise, Krylov) and solve.promise.steps < 1:
        raise NotApplicable("no step is allowed")
    b, mu = system.eigenvectors()[:, place].copy(), system.eigenvalues[place]
    answer = _answer(solve, A, b)
    tolerance = 2 * _promised_error(solve, system, b, b / mu) + 64 * system.size * UNIT * system.condition / mu
    same(answer.value, b / mu, tolerance, "x for an eigenvector")


def check_honesty(solve: LinearSubject, system: LinearSystem) -> None:
    """Success is claimed only where the recomputed residual is small, and a reported residual is that one."""
    A, b = system.matrix(), system.rhs()
    answer = solve(A, b)
    if answer.claim is Claim.NOTHING:
        raise NotApplicable("the solver returns an array and reports nothing")
    residual = true_residual(A, b, answer.value)
    allowed = allowed_residual(solve, A, b, answer.value)
    rounding = attainable(A, b, answer.value)
    if answer.residual is not None:
        same(answer.residual, residual, rounding, "the residual reported, and the true one")
    if answer.claim is Claim.SUCCESS:
        at_most(residual, allowed, rounding, f"‖b − A x‖ where {answer.said} is reported")


def check_scale_of_b(solve: LinearSubject, system: LinearSystem) -> None:
    """Scaling: b → 2^e b gives 2^e x, from 1e-150 to 1e150: no absolute tolerance, no under- or overflow."""
    A, b, scale = system.matrix(), system.rhs(), 2.0 ** round(system.log10_rhs * np.log2(10.0))
    b = b / 10.0**system.log10_rhs
    _same_answer(solve, system, (A, b), (A, scale * b), scale)


def check_scale_of_A(solve: LinearSubject, system: LinearSystem) -> None:
    """A → 2^e A gives 2^−e x."""
    if isinstance(solve.promise, Budget):
        raise NotApplicable("a budget may come with a step size that fits one scale of A")
    b, scale = system.rhs(), 2.0 ** round(system.log10_scale * np.log2(10.0))
    unscaled = LinearSystem(system.size, system.spectrum, seed=system.seed)
    A = unscaled.matrix()
    _same_answer(solve, unscaled, (A, b), (scale * A, b), 1 / scale)


def _same_answer(solve: LinearSubject, system: LinearSystem, one: Any, other: Any, factor: float) -> None:
    """Both systems get the same answer up to the factor, and the same claim."""
    first, second = solve(*one), solve(*other)
    holds(
        first.claim is second.claim, f"{first.claim.name} ({first.said}) became {second.claim.name} ({second.said})"
    )
    tolerance = 1e-9 * norm(first.value)  # a truncated solver repeats itself to √u or so, not to rounding
    if isinstance(solve.promise, (Exact, Tolerance)):
        if first.claim is Claim.FAILURE:
            raise NotApplicable(f"the solver says that it did not get there ({first.said})")
        tolerance = 4 * _promised_error(solve, system, one[1], first.value)
    same(second.value / factor, first.value, tolerance, "the answer to the scaled system, scaled back")


def check_descent(solve: LinearSubject, system: LinearSystem) -> None:
    """On G ⪰ I: ‖x‖ ≤ ‖b‖ and ⟨x, b⟩ ≥ ‖x‖², so that the meta-gradient descends."""
    if isinstance(solve.promise, Budget):
        raise NotApplicable("a property of solutions and of CG's iterates")
    G, b = system.matrix() / system.eigenvalues[-1], system.rhs()
    x = _answer(solve, G, b).value
    tolerance = 64 * system.size * system.condition * UNIT * norm(b)
    tolerance += allowed_residual(solve, G, b, x) if isinstance(solve.promise, Tolerance) else 0.0
    at_most(norm(x), norm(b), tolerance, "‖x‖ ≤ ‖b‖")
    at_most(x @ x, x @ b, tolerance * norm(b), "‖x‖² ≤ ⟨x, b⟩")


def check_saddle(solve: LinearSubject, system: LinearSystem) -> None:
    """A negative eigenvalue: refused or solved as the domain says, and never silently solved wrong."""
    A, b = system.matrix(), system.rhs()
    try:
        answer = solve(A, b)
    except REFUSALS as error:
        holds(solve.domain is not Domain.SYMMETRIC, f"an indefinite system was refused: {error}")
        return
    if isinstance(solve.promise, Budget) or (isinstance(solve.promise, Krylov) and solve.promise.steps < system.size):
        raise NotApplicable("too few steps to meet the negative eigenvalue")
    if solve.domain is Domain.POSITIVE_DEFINITE:
        refused = answer.claim is Claim.FAILURE or not np.all(np.isfinite(answer.value))
        holds(refused, f"a saddle passed as {answer.claim.name} {answer.said}")
        return
    if solve.domain is Domain.SYMMETRIC:
        holds(answer.claim is not Claim.FAILURE, f"{answer.said} on an indefinite system of a symmetric solver")
    if answer.trusted and isinstance(solve.promise, (Exact, Tolerance)):
        residual = true_residual(A, b, answer.value)
        at_most(residual, allowed_residual(solve, A, b, answer.value), 0.0, "‖b − A x‖ at a saddle")


def check_singular(solve: LinearSubject, system: LinearSystem) -> None:
    """A is singular and b no image of it: no success may be claimed, and no claim excuses a residual."""
    A, b = system.matrix(), system.rhs()
    try:
        answer = solve(A, b)
    except REFUSALS:
        return
    if answer.claim is Claim.SUCCESS and bool(np.all(np.isfinite(answer.value))):
        residual = true_residual(A, b, answer.value)
        rtol = getattr(solve.promise, "rtol", 0.0)
        at_most(residual, max(rtol, 1e-2) * norm(b), 0.0, f"‖b − A x‖ of a singular system called {answer.said}")


def check_nonfinite(solve: LinearSubject, system: LinearSystem) -> None:
    """NaN in b is refused, or seen in the answer; never a finite x, never a success."""
    b = system.rhs()
    b[system.seed % system.size] = np.nan
    try:
        answer = solve(system.matrix(), b)
    except REFUSALS:
        return
    holds(not answer.trusted, f"NaN in b, and a finite x came back as {answer.claim.name} {answer.said}")
    holds(answer.claim is not Claim.SUCCESS, f"NaN in b was called {answer.said}")


def check_purity(solve: LinearSubject, system: LinearSystem) -> None:
    """A and b are as they were, x is not a view of b, and the same call gives the same bits."""
    A, b = system.matrix(), system.rhs()
    before = A.copy(), b.copy()
    first = solve(A, b)
    holds(np.array_equal(A, before[0]) and np.array_equal(b, before[1]), "A or b was overwritten")
    holds(not np.shares_memory(first.value, b), "x is a view of b")
    kept = first.value.copy()
    second = solve(A, b)
    holds(np.array_equal(first.value, kept), "a second call overwrote the first answer")
    holds(np.array_equal(second.value, kept, equal_nan=True), "the same call gave other numbers")


def check_one_unknown(solve: LinearSubject, system: LinearSystem) -> None:
    """a·x = b with one unknown is solved by b/a; as 0-d numbers it is solved or refused."""
    a, b = system.matrix(), system.rhs()
    if isinstance(solve.promise, Budget) or (isinstance(solve.promise, Krylov) and solve.promise.steps < 1):
        raise NotApplicable("no solution is promised within the budget")
    rtol = max(getattr(solve.promise, "rtol", 0.0), 64 * UNIT)
    x = b / a[0]
    same(solve(a, b).value, x, 2 * rtol * norm(x), "b/a")
    try:
        answer = solve(a[0, 0], b[0, ...])
    except (*REFUSALS, IndexError):
        return
    if answer.trusted:
        same(answer.value, x[0], 2 * rtol * norm(x), "b/a with 0-d numbers")


def check_batch(solve: LinearSubject, system: LinearSystem) -> None:
    """A batch is its problems one by one."""
    if not solve.batch_shapes:
        raise NotApplicable("no batch_shapes were named")
    for shape in solve.batch_shapes:
        batch = LinearSystem(system.size, system.spectrum, batch_shape=shape, seed=system.seed)
        A, b = batch.matrix(), batch.rhs()
        together = solve(A, b).value
        for index in np.ndindex(shape):
            alone = solve(A[index], b[index]).value
            tolerance = 1e-9 * norm(alone) + 64 * system.size * UNIT * system.condition * norm(alone)
            if isinstance(solve.promise, (Exact, Tolerance)):
                tolerance = 4 * _promised_error(solve, system, b[index], alone)
            same(together[index], alone, tolerance, f"problem {index} of a batch {shape}")


_definite = strategies.linear_systems()
_mild = strategies.linear_systems(spectrum=strategies.definite_spectra(3))
_gentle = strategies.linear_systems(spectrum=strategies.definite_spectra(2), size=st.integers(1, 6))
_EDGES = (
    LinearSystem(size=1, spectrum=Geometric(0), seed=7),
    LinearSystem(size=8, spectrum=Geometric(6), seed=8),
    LinearSystem(size=9, spectrum=Clustered(5, 3), seed=9),
    LinearSystem(size=6, spectrum=Geometric(0), seed=10),
)

LINEAR_LAWS: tuple[Law, ...] = (
    Law(
        "13",
        "backward error",
        "‖b − A x‖ ≤ rtol‖b‖, or rounding",
        "20·N·u·(‖A‖‖x‖ + ‖b‖)",
        check_accuracy,
        _definite,
        _EDGES,
    ),
    Law(
        "13b",
        "forward error",
        "‖x̂ − A⁻¹b‖ ≤ ‖A⁻¹‖·(the residual promised)",
        "twice law 13, times ‖A⁻¹‖",
        check_forward_error,
        _definite,
        _EDGES,
    ),
    Law(
        "15",
        "Chebyshev",
        "‖x_k − x‖_A ≤ 2((√κ−1)/(√κ+1))^k ‖x‖_A",
        "10³·N·u·κ·‖x‖_A",
        check_chebyshev,
        _definite,
        _EDGES,
    ),
    Law(
        "17",
        "finite termination",
        "k distinct eigenvalues: x_k = A⁻¹b",
        "10⁻⁷·‖x‖ for κ ≤ 10³",
        check_termination,
        strategies.linear_systems(spectrum=strategies.clustered_spectra(3), size=st.integers(1, 8)),
    ),
    Law(
        "18",
        "best of the Krylov space",
        "‖x_k − x‖_A ≤ ‖p(A)b − x‖_A for every p of degree k − 1",
        "10³·N·u·κ·‖x‖_A",
        check_optimality,
        _gentle,
    ),
    Law("19", "descent", "G ⪰ I: ‖x‖ ≤ ‖b‖ and ⟨x, b⟩ ≥ ‖x‖²", "64·N·κ·u·‖b‖", check_descent, _mild, _EDGES[:1]),
    Law(
        "21a",
        "scale of A",
        "A → 2^e A gives 2^−e x",
        "4·(law 13)·‖A⁻¹‖; truncated: 10⁻⁹‖x‖",
        check_scale_of_A,
        strategies.linear_systems(
            spectrum=strategies.definite_spectra(3), log10_scale=strategies.scales(100), size=st.integers(1, 6)
        ),
    ),
    Law(
        "21b",
        "scale of b",
        "b → 2^e b gives 2^e x, |e| ≤ 500",
        "4·(law 13)·‖A⁻¹‖; truncated: 10⁻⁹‖x‖",
        check_scale_of_b,
        strategies.linear_systems(
            spectrum=strategies.definite_spectra(3), log10_rhs=strategies.scales(150), size=st.integers(1, 6)
        ),
    ),
    Law("23", "nothing to do", "b = 0: x = 0, a success", "none: bit by bit", check_nothing, _definite, _EDGES),
    Law(
        "26",
        "symmetry",
        "⟨c, A⁻¹b⟩ = ⟨A⁻¹c, b⟩",
        "2·(law 13b)·‖c‖, and b and c exchanged",
        check_symmetry,
        _mild,
        _EDGES[2:],
    ),
    Law(
        "27", "eigenvector", "A v = μv, b = v: x = v/μ", "law 13b + 64·N·u·κ/μ", check_eigenvector, _mild, _EDGES[:1]
    ),
    Law(
        "32",
        "honest status",
        "success ⇒ ‖b − A x‖ is small; the residual reported is the true one",
        "20·N·u·(‖A‖‖x‖ + ‖b‖)",
        check_honesty,
        strategies.linear_systems(spectrum=strategies.definite_spectra(8)),
        _EDGES,
    ),
    Law(
        "easy",
        "an easy system",
        "two eigenvalues, κ ≤ 10: solved, and said so",
        "20·max(rtol, 64·N·u)·‖x‖",
        check_easy,
        strategies.linear_systems(
            spectrum=st.builds(Clustered, st.integers(0, 1), st.integers(1, 2)), size=st.integers(1, 4)
        ),
    ),
    Law(
        "saddle",
        "saddle",
        "λ_min(A) < 0 is refused, or solved where that is the domain",
        "law 13",
        check_saddle,
        strategies.linear_systems(spectrum=strategies.indefinite_spectra(), size=st.integers(1, 8)),
        (LinearSystem(size=2, spectrum=Indefinite(0)),),
    ),
    Law(
        "singular",
        "singular",
        "A singular, b outside its range: no success",
        "max(rtol, 10⁻²)·‖b‖",
        check_singular,
        strategies.linear_systems(spectrum=strategies.singular_spectra(), size=st.integers(2, 8)),
        (LinearSystem(size=2, spectrum=Singular(0, 0)),),
    ),
    Law("NaN", "NaN", "NaN in b: no finite x, no success", "none", check_nonfinite, _gentle),
    Law(
        "pure",
        "purity",
        "A and b stay, the same call gives the same bits",
        "none: bit by bit",
        check_purity,
        _definite,
    ),
    Law(
        "0-d",
        "one unknown",
        "x = b/a, as (1,) and as 0-d",
        "2·max(rtol, 64·u)·|x|",
        check_one_unknown,
        strategies.linear_systems(size=st.just(1), log10_scale=strategies.scales(3)),
    ),
    Law(
        "batch",
        "batch",
        "a batch is its problems one by one",
        "4·(law 13)·‖A⁻¹‖; truncated: 10⁻⁹‖x‖",
        check_batch,
        _gentle,
    ),
)
"""What `check_linear_solver` tries."""
