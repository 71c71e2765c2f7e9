"""What the dense solvers share: factors of a stack, a matrix a problem, its whole spectrum's verdict, refinement."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from implicit_grad.backend import Array, cholesky, epsilon, namespace, power_of_two_scale, to_numpy
from implicit_grad.errors import ArgumentTypeError
from implicit_grad.linear._system import prepare, verdict
from implicit_grad.results import Cost, Solution, Status


@dataclass(frozen=True, eq=False)
class Factored:
    """A factored matrix.

    Attributes
    ----------
    solve : callable or None
        b ↦ A⁻¹ b; None where the matrix is singular to working precision, and nothing may be formed.
    smallest, lowest, largest : float
        Smallest eigenvalue, smallest |eigenvalue| and largest |eigenvalue|.
    """

    solve: Callable[[Array], Array] | None
    smallest: float
    lowest: float
    largest: float


def solve_dense(
    solver: Any, A: Any, b: Array, factorise: Callable[[Array], Factored], refinements: int
) -> Solution[Any]:
    """Solve A x = b by a factorisation of the dense matrix, refine, and say what the spectrum says.

    The matrix is divided by a power of two, so that its scale neither changes a digit nor under- or overflows.
    A formal value is given wherever one exists; `CONVERGED` is said only where A is positive definite by more
    than rounding and κ(A) ≤ 1/√eps, beyond which it is `ILL_CONDITIONED`.

    Raises
    ------
    ArgumentTypeError
        For arrays that do not live on the host.
    """
    system = prepare(A, b)
    name = type(solver).__name__
    if namespace(system.b) is not np:
        raise ArgumentTypeError(f"b: {name} factors NumPy arrays only; use CG on other backends")
    shape, eps = system.shape, epsilon(system.b)
    x = np.full_like(system.b, np.nan)
    norms, smallest, condition = np.ones(shape), np.full(shape, np.nan), np.full(shape, np.nan)
    negative, poor, refined = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool), 0
    for index, operator, rhs in system.problems():
        matrix = to_numpy(operator.dense())
        if not np.isfinite(matrix).all():
            continue
        scale = power_of_two_scale(matrix.reshape(-1))
        factored = factorise(matrix / scale)
        noise = matrix.shape[-1] * eps * factored.largest
        negative[index] = factored.smallest <= noise
        poor[index] = factored.lowest <= eps**0.5 * factored.largest
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            condition[index] = np.divide(factored.largest, factored.lowest)
            norms[index], smallest[index] = factored.largest * scale, factored.smallest * scale
            if factored.solve is not None and factored.lowest > noise:
                x[index] = factored.solve(rhs) / scale
                for _ in range(refinements):
                    x[index] += factored.solve(rhs - operator(x[index])) / scale
                refined = refinements
    return verdict(
        system,
        x,
        solver=solver,
        rtol=eps,
        steps=np.full(shape, 1),
        budget=None,
        operator_norm=norms,
        # Later entries overrule: a saddle is a saddle, however well conditioned.
        failed={Status.ILL_CONDITIONED: poor, Status.INDEFINITE: negative},
        cost=system.selection + system.A.dense_cost + Cost(hvps=refined + 1),
        smallest_eigenvalue=smallest,
        condition=condition,
    )


def factors_of(matrices: Array) -> tuple[Array, Any]:
    """Factors of a stack `(n, d, d)`, and a host mask of the matrices that have one (the others' is I).

    A device library tells that some matrix of a batch has no factor, not which.
    """
    n = matrices.shape[0]
    try:
        return cholesky(matrices), np.ones(n, dtype=bool)
    except np.linalg.LinAlgError:
        xp = namespace(matrices)
        if n == 1:
            return xp.eye(matrices.shape[-1], dtype=matrices.dtype)[None, ...], np.zeros(1, dtype=bool)
        parts = [factors_of(matrices[: n // 2, ...]), factors_of(matrices[n // 2 :, ...])]
        factors, positive = zip(*parts, strict=True)
        return xp.concatenate(factors, axis=0), np.concatenate(positive)
