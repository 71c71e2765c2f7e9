"""Checks and spectra of sample matrices, shared by the losses over n samples."""

from __future__ import annotations

from typing import Any

from implicit_grad import border
from implicit_grad.backend import Array, broadcast_shapes, namespace, transpose
from implicit_grad.errors import ArgumentError, ArgumentTypeError


def features(name: str, value: Any) -> Array:
    """Check a design matrix `(..., n, p)` with n, p ≥ 1.

    Raises
    ------
    ArgumentError
        If it is empty or has fewer than two axes.
    """
    X = border.finite(name, border.real_array(name, value, min_ndim=2))
    if 0 in X.shape:
        raise ArgumentError(f"{name}: needs at least one sample and one feature, got shape {tuple(X.shape)}")
    return X


def check_batch(name: str, batch: tuple[int, ...], other: tuple[int, ...]) -> None:
    """Refuse leading axes that do not broadcast.

    Raises
    ------
    ArgumentError
        With both shapes.
    """
    try:
        broadcast_shapes(batch, other)
    except ValueError:
        raise ArgumentError(f"{name}: batch axes {batch} do not broadcast with those of X, {other}") from None


def same_dtype(name: str, array: Array, X: Array) -> None:
    """Refuse a silent mixture of float32 and float64.

    Raises
    ------
    ArgumentTypeError
        With both dtypes.
    """
    if array.dtype != X.dtype:
        raise ArgumentTypeError(f"{name}: dtype {array.dtype} mixed with {X.dtype} of X; cast one of them")


def largest_gram_eigenvalue(X: Array) -> Array:
    """λ_max(XᵀX)/n per problem, from the smaller of the two Gram matrices."""
    xp = namespace(X)
    n, p = X.shape[-2:]
    gram = (X @ transpose(X)) if n < p else (transpose(X) @ X)
    return xp.linalg.eigvalsh(gram)[..., -1] / n
