"""Checks and spectra of sample matrices, shared by the losses over n samples."""

from __future__ import annotations

from copy import copy
from typing import Any, TypeVar

import numpy as np

from implicit_grad import border
from implicit_grad.backend import Array, broadcast_shapes, device_of, namespace, norm, transpose
from implicit_grad.errors import ArgumentError, ArgumentTypeError

LossT = TypeVar("LossT")


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


def refuse_one_hot(name: str, labels: Array, n_classes: int, X: Array) -> None:
    """Refuse one-hot rows that would pass for a batch of tasks.

    Integer one-hot labels of n samples in C classes have shape (n, C). Where n ≠ C the shape gives them away. Where
    n = C they could be C tasks that share X, with one sample of class 1 in each: labels with more axes than X has for
    them, and one 1 among zeros in every row, are taken for a mistake.

    Raises
    ------
    ArgumentError
        With both ways out.
    """
    if labels.ndim < X.ndim or labels.shape[-1] != n_classes:
        return
    xp = namespace(labels)
    ones, largest = xp.sum(labels, axis=-1), xp.max(labels, axis=-1)
    if bool(xp.all((ones == 1) & (largest == 1))):
        raise ArgumentError(
            f"{name}: shape {tuple(labels.shape)} with one 1 in each row looks one-hot: pass {name}.argmax(-1). "
            f"Tasks that share X take "
            f"X with the batch axes: np.broadcast_to(X, {(*labels.shape, X.shape[-1])})"
        )


def same_dtype(name: str, array: Array, X: Array) -> None:
    """Refuse a silent mixture of float32 and float64.

    Raises
    ------
    ArgumentTypeError
        With both dtypes.
    """
    if array.dtype != X.dtype:
        raise ArgumentTypeError(f"{name}: dtype {array.dtype} mixed with {X.dtype} of X; cast one of them")


def least_gram_eigenvalue(X: Array) -> Array:
    """Lower bound of λ_min(XᵀX)/n per problem: the computed eigenvalue less its backward error, and never below 0."""
    xp = namespace(X)
    n, p = X.shape[-2:]
    if n < p:
        return 0 * X[..., 0, 0]
    values = xp.linalg.eigvalsh(transpose(X) @ X) / n
    safe = values[..., 0] - 10 * (n + p) * float(xp.finfo(X.dtype).eps) * values[..., -1]
    return xp.where(safe > 0, safe, 0 * safe)


def largest_row(X: Array) -> Array:
    """max‖xᵢ‖ per problem."""
    return namespace(X).max(norm(X), axis=-1)


def largest_gram_eigenvalue(X: Array) -> Array:
    """λ_max(XᵀX)/n per problem, from the smaller of the two Gram matrices."""
    xp = namespace(X)
    n, p = X.shape[-2:]
    gram = (X @ transpose(X)) if n < p else (transpose(X) @ X)
    return xp.linalg.eigvalsh(gram)[..., -1] / n


def chosen(indices: Any, samples: int) -> Array:
    """Check positions of samples for a minibatch: one axis of integers in [0, n).

    Positions that live on a device are taken as they are: to look at them would make the host wait.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        For anything else; negative positions are refused, too.
    """
    if device_of(indices) is not None:
        return indices
    array = np.asarray(indices)
    if array.dtype.kind not in "iu":
        raise ArgumentTypeError(f"indices: expected integers, got dtype {array.dtype}")
    if array.ndim != 1 or array.size == 0:
        raise ArgumentError(f"indices: expected one axis with at least one position, got shape {array.shape}")
    if array.min() < 0 or array.max() >= samples:
        raise ArgumentError(f"indices: must lie in [0, {samples}), got {array.min()} to {array.max()}")
    return array


def restricted(loss: LossT, rows: Array, **axes: int) -> LossT:
    """Return a loss of the same kind over the chosen samples, which lie along these axes of its fields.

    Its data were checked when it was made. To check them again would cost more than a gradient, and on a device make
    the host wait.
    """
    part = copy(loss)
    for name, axis in axes.items():
        data = getattr(loss, name)
        taken = namespace(data).take(data, namespace(data).asarray(rows), axis=axis)
        object.__setattr__(part, name, taken)
    return part
