"""What the dense solvers share: factors of a stack, a matrix a problem, its whole spectrum's verdict, refinement."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from implicit_grad.backend import (
    Array,
    cholesky,
    device_of,
    epsilon,
    join,
    namespace,
    power_of_two_scale,
    to_numpy,
    transpose,
)
from implicit_grad.errors import ArgumentTypeError
from implicit_grad.linear._system import System, prepare, verdict
from implicit_grad.results import Cost, Solution
from implicit_grad.status import Status


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


Spectral = Callable[[Array, tuple[int, ...]], tuple[Callable[[Array], Array], Array]]
"""Matrices `(..., d, d)` on a device and the batch axes of b → b ↦ A⁻¹b for all at once, and all eigenvalues."""


def solve_dense(
    solver: Any,
    A: Any,
    b: Array,
    factorise: Callable[[Array], Factored],
    refinements: int,
    on_device: Spectral,
) -> Solution[Any]:
    """Solve A x = b by a factorisation of the dense matrix, refine, and say what the spectrum says.

    The matrix is divided by a power of two, so that its scale neither changes a digit nor under- or overflows.
    A formal value is given wherever one exists; `CONVERGED` is said only where A is positive definite by more
    than rounding and κ(A) ≤ 1/√eps, beyond which it is `ILL_CONDITIONED`.

    Raises
    ------
    ArgumentTypeError
        For arrays that live neither on the host nor on a registered device.
    """
    system = prepare(A, b)
    if device_of(system.b) is not None:
        return _solve_on_device(solver, system, on_device, refinements)
    name = type(solver).__name__
    if namespace(system.b) is not np:
        raise ArgumentTypeError(f"b: {name} factors NumPy arrays only; use CG on other backends")
    shape, eps = system.shape, epsilon(system.b)
    x = np.full_like(system.b, np.nan)
    norms, smallest, condition = np.ones(shape), np.full(shape, np.nan), np.full(shape, np.nan)
    negative, poor, refined = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool), 0
    for index, operator, rhs in system.problems():
        with np.errstate(over="ignore", invalid="ignore"):
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


def _solve_on_device(solver: Any, system: System, on_device: Spectral, refinements: int) -> Solution[Any]:
    """`solve_dense` for a whole batch at once, without asking the device for anything."""
    xp, shape, d, eps = namespace(system.b), system.shape, system.A.size, epsilon(system.b)
    nan = xp.full_like(system.b[..., 0], float("nan"))
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        matrices = system.A.dense()
        finite = xp.all(xp.isfinite(matrices), axis=(-2, -1))
        matrices = xp.where(finite[..., None, None], matrices, xp.eye(d, dtype=matrices.dtype))
        scale = power_of_two_scale(xp.reshape(matrices, (*matrices.shape[:-2], d * d)))
        solve, eigenvalues = on_device(matrices / scale[..., None, None], shape)
        sizes = xp.abs(eigenvalues)
        smallest, lowest, largest = xp.min(eigenvalues, axis=-1), xp.min(sizes, axis=-1), xp.max(sizes, axis=-1)
        noise = d * eps * largest
        x = solve(system.b) / scale[..., None]
        for _ in range(refinements):
            x = x + solve(system.b - system.A(x)) / scale[..., None]
        usable = finite & (lowest > noise) & system.finite
        return verdict(
            system,
            xp.where(usable[..., None], x, nan[..., None]),
            solver=solver,
            rtol=eps,
            steps=xp.ones(shape, dtype=xp.int64),
            budget=None,
            operator_norm=largest * scale,
            failed={
                Status.ILL_CONDITIONED: finite & (lowest <= eps**0.5 * largest) & system.finite,
                Status.INDEFINITE: finite & (smallest <= noise) & system.finite,
            },
            cost=system.A.dense_cost + Cost(hvps=refinements + 1),
            smallest_eigenvalue=xp.where(finite & system.finite, smallest * scale, nan),
            condition=xp.where(finite & system.finite, largest / lowest, nan),
        )


def factors_of(matrices: Array) -> tuple[Array, Array]:
    """Lower Cholesky factors of `(..., d, d)`, and which matrices have one; the factor of the others is I.

    A device is not asked: its library's verdict would make the host wait. A factor is what multiplies to A, entry by
    entry to 4(d + 1) eps √(a_ii a_jj), twice what rounding may do to the factor and to the product. No other answer
    can pass, whatever a failed factorisation leaves in memory: L Lᵀ is positive semidefinite.
    """
    xp, shape = namespace(matrices), matrices.shape
    if device_of(matrices) is None:
        factors, found = _factors_on_host(xp.reshape(matrices, (-1, *shape[-2:])))
        return xp.reshape(factors, shape), xp.asarray(found.reshape(shape[:-2]))
    d = int(shape[-1])
    # In units in which nothing underflows; dividing by a power of four is exact, and so is the root of it.
    root = power_of_two_scale(xp.sqrt(power_of_two_scale(xp.reshape(matrices, (*shape[:-2], d * d))))[..., None])
    unit = root[..., None, None]
    matrices = matrices / unit / unit
    factors = cholesky(matrices)
    diagonal = xp.diagonal(matrices, axis1=-2, axis2=-1)
    length = xp.sqrt(xp.where(diagonal > 0, diagonal, xp.zeros_like(diagonal)))
    with np.errstate(over="ignore", invalid="ignore"):
        off = xp.abs(factors @ transpose(factors) - matrices)
    allowed = 4 * (d + 1) * epsilon(matrices) * length[..., :, None] * length[..., None, :]
    found = xp.all(off <= allowed, axis=(-2, -1))
    found = found & xp.all(xp.diagonal(factors, axis1=-2, axis2=-1) > 0, axis=-1)
    return xp.where(found[..., None, None], factors * unit, xp.eye(d, dtype=matrices.dtype)), found


def _factors_on_host(matrices: Array) -> tuple[Array, Any]:
    """Factors of a stack `(n, d, d)`, halved until the matrices without a factor stand alone."""
    n = matrices.shape[0]
    try:
        return cholesky(matrices), np.ones(n, dtype=bool)
    except np.linalg.LinAlgError:
        if n == 1:
            return namespace(matrices).eye(matrices.shape[-1], dtype=matrices.dtype)[None, ...], np.zeros(1, bool)
        parts = [_factors_on_host(matrices[: n // 2, ...]), _factors_on_host(matrices[n // 2 :, ...])]
        factors, found = zip(*parts, strict=True)
        return join(list(factors)), np.concatenate(found)
