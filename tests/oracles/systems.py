"""Symmetric systems with a prescribed spectrum."""

from __future__ import annotations

from typing import Any

import numpy as np

from implicit_grad.testing.matrices import orthogonal

Array = np.ndarray[Any, Any]


def symmetric(seed: int, eigenvalues: Any) -> Array:
    """A symmetric matrix with these eigenvalues and random eigenvectors."""
    Q = orthogonal(np.random.default_rng(seed), len(eigenvalues))
    A = (Q * np.asarray(eigenvalues)) @ Q.T
    return 0.5 * (A + A.T)


def spd(seed: int, size: int, condition: float) -> tuple[Array, Array]:
    """A positive definite A with eigenvalues from 1 to `condition`, evenly on a log scale, and a b."""
    A = symmetric(seed, np.geomspace(1, condition, size))
    return A, np.random.default_rng([seed, size]).standard_normal(size)
