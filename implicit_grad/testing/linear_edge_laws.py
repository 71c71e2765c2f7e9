"""Laws of linear solvers at the edges: saddles, singular matrices, NaN, one unknown, batches, and the inputs."""

from __future__ import annotations

import numpy as np

from implicit_grad.testing.comparisons import NotApplicable, at_most, holds, same
from implicit_grad.testing.linear_subject import (
    REFUSALS,
    Claim,
    Domain,
    LinearSubject,
    allowed_residual,
    promised_error,
    true_residual,
)
from implicit_grad.testing.matrices import UNIT, LinearSystem
from implicit_grad.testing.promises import Budget, Exact, Krylov, Tolerance

norm = np.linalg.norm


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
    except (*REFUSALS, IndexError, AttributeError):
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
            tolerance = float((1e-9 + 64 * system.size * UNIT * system.condition) * norm(alone))
            if isinstance(solve.promise, (Exact, Tolerance)):
                tolerance = 4 * promised_error(solve, system, b[index], alone)
            same(together[index], alone, tolerance, f"problem {index} of a batch {shape}")
