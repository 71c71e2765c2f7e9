"""The suites: one line that holds anyone's solver, product or gradient to its laws."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from implicit_grad import border
from implicit_grad.problem import BilevelProblem
from implicit_grad.testing.inner_laws import INNER_LAWS, InnerSubject
from implicit_grad.testing.law import Finding, Law, examine, judge
from implicit_grad.testing.linear_laws import LINEAR_LAWS
from implicit_grad.testing.linear_subject import Domain, LinearSubject, as_matrix
from implicit_grad.testing.matrices import Array
from implicit_grad.testing.promises import Promise, promise_of


def check_linear_solver(
    solver: Callable[[Any, Any], Any],
    *,
    promise: Promise | None = None,
    given: Callable[[Array], Any] = as_matrix,
    domain: Domain = Domain.UNSAID,
    batch_shapes: tuple[tuple[int, ...], ...] = (),
    laws: Iterable[Law] = LINEAR_LAWS,
    examples: int = 50,
    seed: int | None = None,
) -> tuple[Finding, ...]:
    """Hold a solver of symmetric positive definite systems to the laws of linear solvers.

    Parameters
    ----------
    solver : callable
        `(A, b) → x`, or `(x, info)` as SciPy returns it (0 is a success), or an object with `value`, `status` and
        `residual_norm`, as the solvers of this package return.
    promise : Promise, optional
        `Exact()` to rounding; `Tolerance(rtol)`; `Krylov(steps)`, so many steps of conjugate gradient; `Budget()`,
        nothing about the answer. Without one, what the solver's settings say (`rtol`, `max_steps`), else `Exact()`.
    given : callable
        How A is handed over: `as_matrix`, `as_matvec` (a function v ↦ A v), `as_linear_operator` (SciPy's), or a
        function of your own that takes the array.
    domain : Domain
        Whether an indefinite A must be refused (`POSITIVE_DEFINITE`), must be solved (`SYMMETRIC`), or either.
    batch_shapes : tuple of tuples of int
        Leading axes of A and b that the solver takes, to be held to its problems one by one.
    laws : iterable of Law
        A choice from `LINEAR_LAWS`, or laws of your own.
    examples : int
        Drawn for each law.
    seed : int, optional
        Of the draws. Without one they are the same in every run.

    Returns
    -------
    tuple of Finding
        One for each law: those that hold, and those that say nothing about such a solver.

    Raises
    ------
    LawViolation
        An `AssertionError` with every violated law: its equation, what was measured and allowed, and the smallest
        system found, with its spectrum.

    Examples
    --------
    >>> import numpy as np
    >>> findings = check_linear_solver(np.linalg.solve, examples=5)
    >>> sum(finding.result.name == "HOLDS" for finding in findings)
    15
    """
    border.strategy("solver", solver, "numpy.linalg.solve")
    subject = LinearSubject(
        solver, promise_of(solver) if promise is None else promise, given, domain, tuple(batch_shapes)
    )
    return judge(_name(solver), examine(laws, subject, examples=examples, seed=seed))


def check_inner_solver(
    solver: Callable[[BilevelProblem, Array], Any],
    *,
    promise: Promise | None = None,
    laws: Iterable[Law] = INNER_LAWS,
    examples: int = 30,
    seed: int | None = None,
) -> tuple[Finding, ...]:
    """Hold a minimiser of L(φ) + λ/2‖φ − θ‖² to the laws of inner solvers.

    Parameters
    ----------
    solver : callable
        `(problem, theta) → φ`, or `(φ, info)`, or an object with `value`, `status` and `residual_norm`. The problem
        is a `BilevelProblem`: it offers `problem.inner.gradient(phi)`, `problem.stationarity(phi, theta)`,
        `problem.curvature(phi)` and `problem.lam`.
    promise, laws, examples, seed
        As for `check_linear_solver`; the laws are `INNER_LAWS`. A `Tolerance(rtol)` is one of ‖∇G‖ against
        ‖∇L(φ)‖ + λ(‖φ‖ + ‖θ‖).

    Returns
    -------
    tuple of Finding

    Raises
    ------
    LawViolation

    Examples
    --------
    >>> from implicit_grad.inner import Newton
    >>> {finding.result.name for finding in check_inner_solver(Newton(), examples=2)}
    {'HOLDS'}
    """
    border.strategy("solver", solver, "Newton()")
    subject = InnerSubject(solver, promise_of(solver) if promise is None else promise)
    return judge(_name(solver), examine(laws, subject, examples=examples, seed=seed))


def _name(subject: Any) -> str:
    """What to call it in a message."""
    name = getattr(subject, "__qualname__", None)
    return repr(subject) if name is None else str(name)
