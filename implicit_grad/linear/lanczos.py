"""Lanczos' process: a symmetric operator seen from inside a Krylov space."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from implicit_grad import border
from implicit_grad.backend import Array, dot, namespace, norm, to_numpy, transpose
from implicit_grad.errors import ArgumentTypeError
from implicit_grad.linear.operator import Operator

_SEED = 20190910


@dataclass(frozen=True, eq=False)
class Tridiagonal:
    """V_kᵀ A V_k = T_k, one per problem of the batch.

    Attributes
    ----------
    basis : list of (..., d) arrays
        Orthonormal columns of V_k; zero from where the Krylov space was exhausted.
    diagonal, off : (..., k) arrays
        Of T_k; `off[..., -1]` couples to the column that was not added any more.
    exists : (..., k) boolean array
        Which columns there are.
    """

    basis: list[Array]
    diagonal: Array
    off: Array
    exists: Array

    def eigh(self) -> tuple[Array, Array]:
        """Ritz values, ascending, and eigenvectors of T_k: `(..., k)` and `(..., k, k)`.

        Columns that do not exist are decoupled; their eigenvalues are put at or above the largest.
        """
        xp, k = namespace(self.diagonal), self.diagonal.shape[-1]
        upper = xp.eye(k, k=1, dtype=self.diagonal.dtype) * self.off[..., :, None]
        size = xp.max(xp.abs(self.diagonal), axis=-1) + 2 * xp.max(xp.abs(self.off), axis=-1)
        diagonal = xp.where(self.exists, self.diagonal, size[..., None])
        T = diagonal[..., None, :] * xp.eye(k, dtype=self.diagonal.dtype) + upper + transpose(upper)
        finite = xp.all(xp.isfinite(T), axis=(-2, -1))
        T = xp.where(finite[..., None, None], T, xp.zeros_like(T))
        values, vectors = xp.linalg.eigh(T)
        return xp.where(finite[..., None], values, xp.full_like(values, float("nan"))), vectors


def tridiagonalize(A: Operator, start: Array, steps: int) -> Tridiagonal:
    """Run Lanczos' process with full reorthogonalisation from unit vectors; min(steps, d) products.

    A start of zero stays zero and has no columns.
    """
    xp, d = namespace(start), A.size
    tiny = float(xp.finfo(start.dtype).eps)
    q, alive = start, norm(start) > 0
    basis: list[Array] = []
    diagonal: list[Array] = []
    off: list[Array] = []
    exists: list[Array] = []
    for _ in range(min(steps, d)):
        basis.append(q)
        exists.append(alive)
        w = A(q)
        diagonal.append(dot(q, w))
        for _ in range(2):  # twice is enough (Parlett)
            for each in basis:
                w = w - dot(each, w)[..., None] * each
        length = norm(w)
        scale = xp.abs(diagonal[-1]) + (off[-1] if off else 0.0)
        # What is left is rounding: the space is invariant and the process ends for that problem.
        alive = alive & (length > d * tiny * scale)
        off.append(xp.where(alive, length, xp.zeros_like(length)))
        q = xp.where(alive[..., None], w / xp.where(alive, length, xp.ones_like(length))[..., None], 0 * w)
    columns = [xp.stack(each, axis=-1) for each in (diagonal, off, exists)]
    return Tridiagonal(basis, *columns)


def extreme_eigenvalues(A: Operator, steps: int = 40) -> tuple[np.ndarray, np.ndarray]:
    r"""Smallest and largest Ritz value of `steps` Lanczos steps with full reorthogonalisation.

    .. math:: \lambda_{\min}(A) \le \theta_{\min}, \qquad \theta_{\max} \le \lambda_{\max}(A)

    The estimates lie inside the spectrum: θ_min > 0 never certifies a positive definite A. They are exact once
    `steps` reaches d. The start vector is fixed (a seeded draw on the host), so results are deterministic.

    Parameters
    ----------
    A : Operator
        Symmetric; a batch is handled at once.
    steps : int
        Lanczos steps, each one product with A; at most d are taken.

    Returns
    -------
    smallest, largest : (...) NumPy arrays
    """
    border.count("steps", steps, minimum=1)
    if not isinstance(A, Operator):
        raise ArgumentTypeError(f"A: expected an Operator, as of as_operator(A, b), got {type(A).__name__}")
    xp, d = namespace(A.like), A.size
    draw = np.random.default_rng(_SEED).standard_normal(d)
    start = xp.asarray(draw / np.linalg.norm(draw), dtype=A.like.dtype)
    start = xp.zeros((*A.batch_shape, d), dtype=A.like.dtype) + start
    process = tridiagonalize(A, start, steps)
    values, last = process.eigh()[0], xp.sum(xp.astype(process.exists, xp.int64), axis=-1) - 1
    largest = xp.take_along_axis(values, xp.where(last > 0, last, 0 * last)[..., None], axis=-1)[..., 0]
    return to_numpy(values[..., 0]), to_numpy(largest)
