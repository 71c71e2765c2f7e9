"""The array namespace of the arguments, and the few reductions every floor needs.

Compute functions are driven by the type of their arguments: NumPy arrays in, NumPy arrays out. Numbers are
neutral, and a mixture of two kinds of array is one clear error. This is the only module that may import a
device library.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from implicit_grad.errors import BackendError

Array = Any
"""An array of any supported namespace. Shapes are given in the docstrings: `(..., d)`."""


def namespace(*arrays: Any) -> Any:
    """Return the array namespace shared by the arguments; numbers and None are neutral.

    Raises
    ------
    BackendError
        If arrays of two namespaces meet.
    """
    found: dict[str, Any] = {}
    for array in arrays:
        if isinstance(array, np.ndarray | np.generic):
            found.setdefault("numpy", np)
        elif hasattr(array, "__array_namespace__"):
            xp = array.__array_namespace__()
            found.setdefault(xp.__name__.split(".")[0], xp)
    if len(found) > 1:
        raise BackendError(
            f"arrays of different backends in one call: {sorted(found)}; move them to one backend first"
        )
    return next(iter(found.values())) if found else np


def to_numpy(x: Any) -> np.ndarray[Any, Any]:
    """Copy an array of any supported namespace to the host."""
    if isinstance(x, np.ndarray):
        return x
    if hasattr(x, "get"):  # CuPy's explicit transfer
        return np.asarray(x.get())
    return np.asarray(x)


def dot(x: Array, y: Array) -> Array:
    """Inner product over the last axis, one per problem: `(..., d), (..., d) -> (...)`."""
    xp = namespace(x, y)
    if xp is np:
        return np.vecdot(x, y)  # one BLAS dot a problem: twice as fast as einsum
    return xp.sum(x * y, axis=-1)


def add_scaled(y: Array, alpha: Array, x: Array, scratch: Array) -> None:
    """Add in place, y ← y + α x, one α per problem, through a work array like y."""
    if isinstance(y, np.ndarray):
        # Fresh temporaries of this size cost more in page faults than the arithmetic does.
        np.multiply(alpha[..., None], x, out=scratch)
        np.add(y, scratch, out=y)
    else:
        y += alpha[..., None] * x


def norm(x: Array) -> Array:
    """Euclidean norm over the last axis, safe from underflow and overflow: `(..., d) -> (...)`."""
    if not isinstance(x, np.ndarray):
        return _scaled_norm(x)
    info = np.finfo(x.dtype)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        square = np.vecdot(x, x)
        length = np.sqrt(square)
    # Within these bounds no term that matters was lost to under- or overflow; the few others are scaled first.
    rare = ~((square > info.tiny / info.eps**2) & (square < info.max * info.eps))
    if not np.any(rare):
        return length
    length = np.asarray(length)
    length[rare] = _scaled_norm(x[rare])
    return length[()]


def _scaled_norm(x: Array) -> Array:
    xp = namespace(x)
    scale = xp.max(xp.abs(x), axis=-1)
    safe = xp.where((scale > 0) & xp.isfinite(scale), scale, xp.ones_like(scale))
    scaled = x / safe[..., None]
    return safe * xp.sqrt(xp.sum(scaled * scaled, axis=-1))


def power_of_two_scale(x: Array) -> Array:
    """Power of two near max|x| over the last axis (1 where x = 0): `(..., d) -> (...)`.

    Dividing by it is exact, so a solver that scales its right-hand side this way returns the very same
    iterates, and neither ‖b‖ ~ 1e-200 nor ‖b‖ ~ 1e200 under- or overflows.
    """
    xp = namespace(x)
    largest = xp.max(xp.abs(x), axis=-1)
    usable = (largest > 0) & xp.isfinite(largest)
    exponent = xp.floor(xp.log2(xp.where(usable, largest, xp.ones_like(largest))))
    two = xp.full_like(exponent, 2.0)
    # 2**-1074 is the smallest subnormal and 2**1023 the largest power: both are representable.
    return xp.where(usable, two**exponent, xp.ones_like(largest))


def physical_memory() -> int | None:
    """Bytes of memory of this machine, or None where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def broadcast_shapes(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """Broadcast batch shapes."""
    return tuple(np.broadcast_shapes(*shapes))


def expand(x: Array, shape: tuple[int, ...]) -> Array:
    """Fresh, writable array of `shape` holding x broadcast to it."""
    xp = namespace(x)
    return xp.zeros(shape, dtype=x.dtype) + x if x.shape != shape else xp.asarray(x, copy=True)


def transpose(x: Array) -> Array:
    """Swap the last two axes."""
    return x.mT if hasattr(x, "mT") else namespace(x).swapaxes(x, -1, -2)


def concatenate(parts: list[Array]) -> Array:
    """Join along the last axis, broadcasting the leading axes first."""
    xp = namespace(*parts)
    batch = broadcast_shapes(*(part.shape[:-1] for part in parts))
    full = [xp.broadcast_to(part, (*batch, part.shape[-1])) for part in parts]
    join = xp.concat if hasattr(xp, "concat") else xp.concatenate
    return join(full, axis=-1)


def epsilon(x: Array) -> float:
    """Spacing of the dtype of x at 1."""
    return float(namespace(x).finfo(x.dtype).eps)
