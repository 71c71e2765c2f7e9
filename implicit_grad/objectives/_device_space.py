"""Device arrays as autograd sees them: a vector space, linear primitives of our own, and how arrays are joined.

Three names of `autograd.numpy.numpy_wrapper` must be redirected; they are no public hook. `concatenate` and what is
built on it end in a view of the result as `numpy.ndarray`, which CuPy takes for a dtype: it reads the bits as another
type without a word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import autograd.numpy as anp
import numpy as np
from autograd.extend import VSpace, defjvp, defjvp_argnum, defvjp, defvjp_argnum
from autograd.extend import primitive as _primitive
from autograd.numpy.numpy_vjps import unbroadcast_f
from autograd.tracer import getval

from implicit_grad.backend import Array
from implicit_grad.errors import LossError

NAMESPACES: dict[type, Any] = {}
"""Array types that autograd differentiates as device arrays → their namespaces."""

primitive: Callable[[Callable[..., Any]], Any] = _primitive


def on_device(x: Any) -> bool:
    """Whether the value under all traces is a device array."""
    return type(getval(x)) in NAMESPACES


def _xp(x: Any) -> Any:
    return NAMESPACES[type(getval(x))]


class DeviceSpace(VSpace):  # type: ignore[misc]  # autograd has no types
    """The vector space of device arrays of one shape and dtype."""

    def __init__(self, value: Array) -> None:
        self.shape, self.dtype, self.xp = value.shape, value.dtype, _xp(value)

    @property
    def size(self) -> int:
        """Dimension."""
        return int(np.prod(self.shape))

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def zeros(self) -> Array:
        """Return 0."""
        return self.xp.zeros(self.shape, dtype=self.dtype)

    def ones(self) -> Array:
        """Return an array of ones."""
        return self.xp.ones(self.shape, dtype=self.dtype)

    def standard_basis(self) -> Iterator[Array]:
        """Iterate over the unit vectors."""
        for index in np.ndindex(*self.shape):
            unit = self.zeros()
            unit[index] = 1
            yield unit

    def _inner_prod(self, x: Array, y: Array) -> Array:
        return self.xp.sum(x * y)


# Two primitives of our own: a reduction undone, and an index undone. Both are linear, so every order follows.


@primitive
def expand(x: Any, shape: tuple[int, ...]) -> Any:
    """Fresh array of `shape` with x broadcast to it; x has as many axes."""
    return _xp(x).zeros(shape, dtype=x.dtype) + x


defvjp(expand, lambda ans, x, shape: unbroadcast_f(x, lambda g: g))
defjvp(expand, "same")


@primitive
def put(x: Any, index: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """Zeros of `shape` with x added at an index: the adjoint of indexing."""
    xp = _xp(x)
    result = xp.zeros(shape, dtype=dtype)
    parts = index if isinstance(index, tuple) else (index,)
    if all(part is None or part is Ellipsis or isinstance(part, int | np.integer | slice) for part in parts):
        result[index] += x
    else:  # entries may be taken more than once
        xp.add.at(result, index, x)
    return result


defvjp(put, lambda ans, x, index, shape, dtype: lambda g: g[index])
defjvp(put, "same")


# What `concatenate`, `stack` and `array` end in.


@primitive
def join(axis: int, *parts: Any) -> Any:
    """Concatenate."""
    return _first_xp(parts).concatenate(parts, axis)


def _place_of(argnum: int, ans: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    axis, parts = args[0], args[1:]
    start = sum(anp.shape(part)[axis] for part in parts[: argnum - 1])
    index = [slice(None)] * anp.ndim(ans)
    index[axis] = slice(start, start + anp.shape(parts[argnum - 1])[axis])
    return tuple(index)


def _join_vjp(argnum: int, ans: Any, args: tuple[Any, ...], kwargs: Any) -> Any:
    index = _place_of(argnum, ans, args)
    return lambda g: g[index]


def _join_jvp(argnum: int, g: Any, ans: Any, args: tuple[Any, ...], kwargs: Any) -> Any:
    return put(g, _place_of(argnum, ans, args), anp.shape(ans), getval(ans).dtype)


defvjp_argnum(join, _join_vjp)
defjvp_argnum(join, _join_jvp)


def _number(x: Any) -> Any:
    """Let in the host arrays without axes that autograd has made of plain numbers, and no others."""
    return x.item() if np.ndim(x) == 0 else x


@primitive
def pile(*parts: Any) -> Any:
    """Stack arrays of one shape, or numbers, along a new first axis."""
    xp = _first_xp(parts)
    like = next(part for part in parts if on_device(part))
    return xp.stack([part if on_device(part) else xp.full(like.shape, _number(part), like.dtype) for part in parts])


defvjp_argnum(pile, lambda argnum, ans, args, kwargs: lambda g: g[argnum])
defjvp_argnum(pile, lambda argnum, g, ans, args, kwargs: put(g, argnum, anp.shape(ans), getval(ans).dtype))


@primitive
def copied(x: Any, ndmin: int) -> Any:
    """Fresh array with at least `ndmin` axes."""
    return _xp(x).array(x, copy=True, ndmin=ndmin)


defvjp(copied, lambda ans, x, ndmin: lambda g: anp.reshape(g, anp.shape(x)))
defjvp(copied, "same")


def _first_xp(parts: tuple[Any, ...]) -> Any:
    return next(_xp(part) for part in parts if on_device(part))


def _joins(host: Any) -> Any:
    def concatenate_args(axis: int, *parts: Any) -> Any:
        return join(axis, *parts) if any(map(on_device, parts)) else host(axis, *parts)

    return concatenate_args


def _piles(host: Any) -> Any:
    def array_from_args(args: Any, kwargs: Any, *parts: Any) -> Any:
        return pile(*parts) if any(map(on_device, parts)) else host(args, kwargs, *parts)

    return array_from_args


def _copies(host: Any) -> Any:
    def array_from_scalar_or_array(args: Any, kwargs: Any, x: Any) -> Any:
        if not on_device(x):
            return host(args, kwargs, x)
        if args or set(kwargs) - {"ndmin"}:
            raise LossError("f: `array` with a dtype has no derivative rule on device arrays; use x.astype(...)")
        return copied(x, kwargs.get("ndmin", 0))

    return array_from_scalar_or_array


BUILDERS = {
    "concatenate_args": _joins,
    "array_from_args": _piles,
    "_array_from_scalar_or_array": _copies,
}
"""Names of `autograd.numpy.numpy_wrapper` → their replacements, which look at the type of the parts."""
