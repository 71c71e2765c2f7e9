"""One Krylov space for every shift: (H + σI) x = b for many σ from one run."""

from __future__ import annotations

import numpy as np

from implicit_grad.backend import Array, namespace, norm
from implicit_grad.linear.lanczos import tridiagonalize
from implicit_grad.linear.operator import Operator


def shifted_solutions(H: Operator, b: Array, shifts: Array, steps: int) -> tuple[Array, Array]:
    r"""Solve (H + σI) x = b in the Krylov space of dimension `steps`, for every σ at once.

    .. math:: K_k(H + \sigma I, b) = K_k(H, b), \qquad
              x_\sigma = V_k (T_k + \sigma I)^{-1} \lVert b\rVert e_1

    In exact arithmetic x_σ is the k-th conjugate gradient iterate of the system with that shift.

    Parameters
    ----------
    H : Operator
    b : (..., d) array
    shifts : (L,) array
    steps : int
        k; costs min(k, d) products, whatever L is.

    Returns
    -------
    solutions : (L, ..., d) array
    smallest : (...) array
        Smallest Ritz value of H. Where it plus σ is not positive, neither is H + σI positive definite.
    """
    xp = namespace(b)
    if steps == 0:
        return xp.zeros((shifts.shape[0], *b.shape), dtype=b.dtype), xp.full_like(b[..., 0], float("inf"))
    length = norm(b)
    unit = b / xp.where(length > 0, length, xp.ones_like(length))[..., None]
    process = tridiagonalize(H, unit, steps)
    values, vectors = process.eigh()
    weights = vectors[..., 0, :] * length[..., None]
    shift = xp.reshape(shifts, (-1, *(1,) * length.ndim, 1))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        # One eigendecomposition of the small T_k serves every shift; a singular one gives inf, not an exception.
        y = (vectors @ (weights / (values + shift))[..., None])[..., 0]
        solutions = y[..., 0, None] * process.basis[0]
        for j in range(1, len(process.basis)):
            solutions = solutions + y[..., j, None] * process.basis[j]
    return solutions, values[..., 0]
