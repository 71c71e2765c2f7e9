"""The ends of an operator's spectrum: exact where d is small, from the inside above."""

from __future__ import annotations

from typing import Any

import numpy as np

from implicit_grad.backend import to_numpy
from implicit_grad.linear.lanczos import extreme_eigenvalues

_DENSE_UP_TO = 512
"""Largest d whose spectrum is computed densely; above it Lanczos estimates from the inside."""


def spectrum_ends(A: Any, steps: int = 60) -> tuple[Any, Any]:
    """Smallest and largest eigenvalue of a batch of operators: dense up to d = 512, Ritz values above.

    A Ritz value lies inside the spectrum: the smallest is an upper bound of λ_min(A).
    """
    if A.size > _DENSE_UP_TO:
        return extreme_eigenvalues(A, steps=steps)
    values = np.empty((*A.batch_shape, 2))
    for index in np.ndindex(A.batch_shape):
        matrix = to_numpy(A.select(index).dense())
        values[index] = np.linalg.eigvalsh(matrix)[[0, -1]] if np.isfinite(matrix).all() else np.nan
    return values[..., 0], values[..., 1]
