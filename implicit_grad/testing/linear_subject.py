"""Anyone's linear solver, seen the way the laws look at it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import scipy.sparse.linalg

from implicit_grad.errors import ImplicitGradError
from implicit_grad.status import Status
from implicit_grad.testing.comparisons import Violation
from implicit_grad.testing.matrices import UNIT, Array, LinearSystem
from implicit_grad.testing.promises import Promise

REFUSALS = (ArithmeticError, ValueError, TypeError, np.linalg.LinAlgError, ImplicitGradError)
"""Exceptions by which a solver may decline what is outside its domain. A bare crash (IndexError) is none."""


class Claim(Enum):
    """What a solver says of its own answer; the value is the help text."""

    SUCCESS = "the system is solved"
    BUDGET = "the steps asked for were taken"
    FAILURE = "it was not solved"
    NOTHING = "an array came back, and no word about it"


class Domain(Enum):
    """Which symmetric matrices a solver is for; the value is the help text."""

    POSITIVE_DEFINITE = "an indefinite matrix must be refused: a saddle has no meta-gradient"
    SYMMETRIC = "an indefinite matrix must be solved"
    UNSAID = "an indefinite matrix may be refused or solved, but not silently solved wrong"


@dataclass(frozen=True, eq=False)
class Answer:
    """What a solver returned, whatever it looks like.

    Attributes
    ----------
    value : (..., N) array
    claim : Claim
    residual : (...) array or None
        The residual it reports, if it does.
    said : str
        Its status, in its own words.
    """

    value: Array
    claim: Claim
    residual: Any = None
    said: str = ""

    @property
    def trusted(self) -> bool:
        """Whether a caller would take the value for the solution."""
        return self.claim in (Claim.SUCCESS, Claim.NOTHING) and bool(np.all(np.isfinite(self.value)))


def read_answer(result: Any) -> Answer:
    """Understand a `Solution`, SciPy's `(x, info)`, or an array.

    Examples
    --------
    >>> read_answer((np.ones(2), 7)).claim
    <Claim.FAILURE: 'it was not solved'>
    """
    if hasattr(result, "value") and hasattr(result, "status"):
        status = result.status
        every = [status] if isinstance(status, Status) else list(np.ravel(np.asarray(status, dtype=object)))
        claim = Claim.SUCCESS
        if any(each is Status.BUDGET_SPENT for each in every):
            claim = Claim.BUDGET
        if not all(isinstance(each, Status) and each.ok for each in every):
            claim = Claim.FAILURE
        said = ", ".join(sorted({getattr(each, "name", str(each)) for each in every}))
        return Answer(np.asarray(result.value), claim, result.residual_norm, said)
    if isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], (int, np.integer)):
        claim = Claim.SUCCESS if result[1] == 0 else Claim.FAILURE
        return Answer(np.asarray(result[0]), claim, said=f"info = {result[1]}")
    if isinstance(result, tuple):
        raise Violation(
            f"the solver returned a tuple of {len(result)}; return x, (x, info) as SciPy does, or an object "
            f"with value, status and residual_norm"
        )
    return Answer(np.asarray(result), Claim.NOTHING)


def as_matrix(A: Array) -> Any:
    """Hand A over as the array it is."""
    return A


def as_matvec(A: Array) -> Any:
    """Hand A over as a function v ↦ A v."""
    return lambda v: (A @ np.asarray(v)[..., None])[..., 0] if A.ndim else A * v


def as_linear_operator(A: Array) -> Any:
    """Hand A over as a `scipy.sparse.linalg.LinearOperator`."""
    return scipy.sparse.linalg.aslinearoperator(np.atleast_2d(A))


@dataclass(frozen=True, eq=False)
class LinearSubject:
    """A linear solver with what it promises.

    Attributes
    ----------
    solver : callable
        `(A, b) → x`, `(x, info)` or a `Solution`.
    promise : Promise
    given : callable
        How A is handed over: `as_matrix`, `as_matvec`, `as_linear_operator`, or a function of your own.
    domain : Domain
    batch_shapes : tuple of tuples
        Leading axes that the solver takes.
    """

    solver: Callable[[Any, Any], Any]
    promise: Promise
    given: Callable[[Array], Any] = as_matrix
    domain: Domain = Domain.UNSAID
    batch_shapes: tuple[tuple[int, ...], ...] = ()

    def __call__(self, A: Array, b: Array) -> Answer:
        """Solve, and check that what came back is a vector like b.

        Raises
        ------
        Violation
            For another shape, or what are no real numbers.
        """
        answer = read_answer(self.solver(self.given(A), b))
        if answer.value.shape != b.shape:
            raise Violation(f"x has shape {answer.value.shape}, and b has shape {b.shape}")
        if answer.value.dtype.kind != "f":
            raise Violation(f"x has dtype {answer.value.dtype}, and b has dtype {b.dtype}")
        return answer


def true_residual(A: Array, b: Array, x: Array) -> Any:
    """‖b − Ax‖ in extended precision."""
    wide = np.longdouble
    return np.linalg.norm((b.astype(wide) - A.astype(wide) @ np.asarray(x, dtype=wide)).astype(np.float64))


def attainable(A: Array, b: Array, x: Array) -> float:
    """10·N·eps·(‖A‖‖x‖ + ‖b‖): a residual below it cannot be told from zero."""
    return float(20 * b.size * UNIT * (np.linalg.norm(A, 2) * np.linalg.norm(x) + np.linalg.norm(b)))


def allowed_residual(solve: LinearSubject, A: Array, b: Array, x: Array) -> float:
    """max(rtol‖b‖, attainable)."""
    rtol = getattr(solve.promise, "rtol", 0.0)
    return float(max(rtol * np.linalg.norm(b), attainable(A, b, x)))


def promised_error(solve: LinearSubject, system: LinearSystem, b: Array, x: Array) -> float:
    """‖A⁻¹‖ times the residual allowed: how far two good answers may be apart."""
    A = system.matrix()
    return float(allowed_residual(solve, A, b, x) / np.abs(system.eigenvalues[-1]))
