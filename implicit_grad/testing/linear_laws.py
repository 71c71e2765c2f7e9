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
from implicit_grad.testing.linear_edge_laws import (
    check_batch,
    check_nonfinite,
    check_one_unknown,
    check_purity,
    check_saddle,
    check_singular,
)
from implicit_grad.testing.linear_subject import (
    Answer,
    Claim,
    LinearSubject,
    allowed_residual,
    attainable,
    promised_error,
    true_residual,
)
from implicit_grad.testing.matrices import UNIT, Array, Clustered, Geometric, Indefinite, LinearSystem, Singular
from implicit_grad.testing.promises import Budget, Exact, Krylov, Tolerance

norm = np.linalg.norm


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
    same(answer.value, x, 2 * promised_error(solve, system, b, x), "‖x̂ − A⁻¹b‖")


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
    tolerance = 2 * norm(c) * promised_error(solve, system, b, first)
    tolerance += 2 * norm(b) * promised_error(solve, system, c, second)
    same(c @ first, second @ b, tolerance, "⟨c, A⁻¹b⟩ and ⟨A⁻¹c, b⟩")


def check_eigenvector(solve: LinearSubject, system: LinearSystem) -> None:
    """A v = μv and b = v: x = v/μ, for CG after one step."""
    A, place = system.matrix(), system.seed % system.size
    if isinstance(solve.promise, Krylov) and solve.promise.steps < 1:
        raise NotApplicable("no step is allowed")
    b, mu = system.eigenvectors()[:, place].copy(), system.eigenvalues[place]
    answer = _answer(solve, A, b)
    tolerance = 2 * promised_error(solve, system, b, b / mu) + 64 * system.size * UNIT * system.condition / mu
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
    tolerance = 1e-9 * float(norm(first.value))  # a truncated solver repeats itself to √u or so, not to rounding
    if isinstance(solve.promise, (Exact, Tolerance)):
        if first.claim is Claim.FAILURE:
            raise NotApplicable(f"the solver says that it did not get there ({first.said})")
        tolerance = 4 * promised_error(solve, system, one[1], first.value)
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
