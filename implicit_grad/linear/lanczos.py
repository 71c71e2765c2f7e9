"""Extreme eigenvalues of a symmetric operator, from the inside."""

from __future__ import annotations

import numpy as np

from implicit_grad import border
from implicit_grad.backend import Array, dot, namespace, norm, to_numpy
from implicit_grad.linear.operator import Operator

_SEED = 20190910


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
    xp, d = namespace(A.like), A.size
    draw = np.random.default_rng(_SEED).standard_normal(d)
    start = xp.asarray(draw / np.linalg.norm(draw), dtype=A.like.dtype)
    q = xp.zeros((*A.batch_shape, d), dtype=A.like.dtype) + start
    basis: list[Array] = []
    diagonal: list[Array] = []
    off: list[Array] = []
    tiny = float(xp.finfo(A.like.dtype).eps)
    for _ in range(min(steps, d)):
        basis.append(q)
        w = A(q)
        diagonal.append(dot(q, w))
        for _ in range(2):  # twice is enough (Parlett)
            for each in basis:
                w = w - dot(each, w)[..., None] * each
        length = norm(w)
        scale = xp.abs(diagonal[-1]) + (off[-1] if off else 0.0)
        alive = length > d * tiny * scale
        # An invariant subspace ends the recurrence for that problem: a zero vector decouples what follows.
        off.append(xp.where(alive, length, xp.zeros_like(length)))
        q = xp.where(alive[..., None], w / xp.where(alive, length, xp.ones_like(length))[..., None], 0 * w)
    return _ritz(np.stack([to_numpy(a) for a in diagonal], -1), np.stack([to_numpy(o) for o in off], -1))


def _ritz(diagonal: np.ndarray, off: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    smallest, largest = np.empty(diagonal.shape[:-1]), np.empty(diagonal.shape[:-1])
    for index in np.ndindex(diagonal.shape[:-1]):
        a, o = diagonal[index], off[index]
        dead = np.flatnonzero(o == 0)
        k = int(dead[0]) + 1 if dead.size else a.size
        T = np.diag(a[:k]) + np.diag(o[: k - 1], 1) + np.diag(o[: k - 1], -1)
        values = np.linalg.eigvalsh(T) if np.isfinite(T).all() else np.array([np.nan])
        smallest[index], largest[index] = values[0], values[-1]
    return smallest, largest
