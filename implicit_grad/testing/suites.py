"""The suites: one line that holds anyone's solver, product or gradient to its laws."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from implicit_grad import border
from implicit_grad.errors import ArgumentError
from implicit_grad.problem import BilevelProblem
from implicit_grad.testing.hvp_laws import HVP_LAWS, HvpSubject
from implicit_grad.testing.inner_laws import INNER_LAWS, InnerSubject
from implicit_grad.testing.law import Finding, Law, examine, judge
from implicit_grad.testing.linear_laws import LINEAR_LAWS
from implicit_grad.testing.linear_subject import Domain, LinearSubject, as_matrix
from implicit_grad.testing.matrices import Array
from implicit_grad.testing.meta_laws import META_LAWS
from implicit_grad.testing.meta_subject import MetaSubject
from implicit_grad.testing.promises import Exact, Promise, agreed, promise_of


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
    14
    """
    border.strategy("solver", solver, "numpy.linalg.solve")
    subject = LinearSubject(solver, agreed(promise, promise_of(solver)), given, domain, tuple(batch_shapes))
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
    subject = InnerSubject(solver, agreed(promise, promise_of(solver)))
    return judge(_name(solver), examine(laws, subject, examples=examples, seed=seed))


def check_hvp(
    objective: Any,
    *,
    size: int | None = None,
    gradient: Callable[[Array], Array] | None = None,
    value: Callable[[Array], Any] | None = None,
    convex: bool = False,
    laws: Iterable[Law] = HVP_LAWS,
    examples: int = 30,
    seed: int | None = None,
) -> tuple[Finding, ...]:
    """Hold a loss and its Hessian-vector products to the laws of second derivatives.

    Parameters
    ----------
    objective : SmoothFunction or callable
        A loss with `value`, `gradient` and `linearize`; or a product `(x, v) → ∇²f(x) v`, with `size` and, so that
        it can be told from the product of another function, `gradient` and `value`.
    size : int, optional
        Number of parameters; without it, `objective.size`.
    gradient, value : callable, optional
        x ↦ ∇f(x) and x ↦ f(x), for a product.
    convex : bool
        Whether vᵀHv ≥ 0 must hold.
    laws, examples, seed
        As for `check_linear_solver`; the laws are `HVP_LAWS`.

    Returns
    -------
    tuple of Finding

    Raises
    ------
    LawViolation
    ArgumentError
        If the number of parameters is not known.

    Examples
    --------
    >>> import numpy as np
    >>> A = np.diag([1.0, 4.0])
    >>> findings = check_hvp(lambda x, v: A @ v, gradient=lambda x: A @ x, size=2, convex=True, examples=3)
    >>> [finding.law.number for finding in findings if finding.result.name == "SILENT"]
    ['55b']
    """
    size = getattr(objective, "size", None) if size is None else size
    if size is None:
        raise ArgumentError("size: the objective does not say how many parameters it has; pass size=")
    size = border.count("size", size, minimum=1)
    if hasattr(objective, "linearize"):
        subject = HvpSubject(
            objective.value, objective.gradient, lambda x, v: objective.linearize(x).hvp(v), size, convex
        )
    else:
        border.strategy("objective", objective, "lambda x, v: A @ v")
        subject = HvpSubject(value, gradient, objective, size, convex)
    return judge(_name(objective), examine(laws, subject, examples=examples, seed=seed))


def check_meta_gradient(
    function: Callable[[BilevelProblem, Array], Any],
    *,
    promise: Promise | None = None,
    laws: Iterable[Law] = META_LAWS,
    examples: int = 30,
    seed: int | None = None,
) -> tuple[Finding, ...]:
    """Hold a meta-gradient to its laws, on ridge, logistic and softmax problems and networks.

    Parameters
    ----------
    function : callable
        `(problem, theta) → g`, an array or an `Estimate`. The problem is a `BilevelProblem`: it offers
        `problem.inner` (train), `problem.outer` (test), both with `value`, `gradient` and `linearize`, and
        `problem.lam`.
    promise : Promise, optional
        `Exact()`, the default; `Tolerance(rtol)`, ‖g − ∇F‖ ≤ rtol‖∇L_test(φ*)‖; or `Budget()` for CG-5, unrolling
        and the like, which are then held to symmetries only. `verify` says how far from ∇F they are, and why.
    laws, examples, seed
        As for `check_linear_solver`; the laws are `META_LAWS`.

    Returns
    -------
    tuple of Finding

    Raises
    ------
    LawViolation

    Examples
    --------
    >>> from implicit_grad.estimators import EXACT, FirstOrderGradient, MetaGradient
    >>> from implicit_grad.inner import Newton
    >>> all(finding.result.name != "VIOLATED" for finding in check_meta_gradient(EXACT, examples=2))
    True
    >>> check_meta_gradient(MetaGradient(Newton(), FirstOrderGradient()), examples=2)
    Traceback (most recent call last):
        ...
    implicit_grad.testing.law.LawViolation: ...violates ... laws
    ...
    """
    border.strategy("function", function, "MetaGradient(Newton(), ImplicitGradient(CG(5)))")
    subject = MetaSubject(function, agreed(promise, Exact()))
    return judge(_name(function), examine(laws, subject, examples=examples, seed=seed))


def _name(subject: Any) -> str:
    """What to call it in a message."""
    name = getattr(subject, "__qualname__", None)
    return repr(subject) if name is None else str(name)
