"""Checks at the border: every public value object and entry point validates here, once, before any work.

Inside the border arrays are real, floating point, finite and of agreeing shapes.
"""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np

from implicit_grad.backend import Array, is_array, namespace, to_numpy
from implicit_grad.errors import ArgumentError, ArgumentTypeError, NonFiniteError

MAX_COUNT = 10_000_000
"""Largest step count accepted: beyond it a typing slip is likelier than a wish."""


def _as_array(name: str, value: Any) -> tuple[Any, Any]:
    if isinstance(value, np.ma.MaskedArray):
        raise ArgumentTypeError(f"{name}: masked arrays are not supported; fill or drop the masked entries")
    if hasattr(value, "toarray"):
        raise ArgumentTypeError(f"{name}: sparse arrays are not supported; pass {name}.toarray()")
    if isinstance(value, np.ndarray):
        return np, np.asarray(value)  # np.asarray: np.matrix and other subclasses lose their own rules
    if is_array(value):
        return namespace(value), value
    try:
        return np, np.asarray(value)
    except ValueError as error:
        raise ArgumentTypeError(f"{name}: expected a rectangular array of numbers ({error})") from None


def real_array(name: str, value: Any, *, min_ndim: int = 0) -> Array:
    """Return `value` as a real floating point array; integers are cast to float64, float32 is kept.

    NumPy arrays come back in C order: sums run in the order of memory, so equal input of another layout would
    give results that differ in the last digit.

    Raises
    ------
    ArgumentTypeError
        For complex, boolean, object, text, float16, longdouble, masked and sparse input.
    ArgumentError
        If it has fewer than `min_ndim` axes.
    """
    xp, array = _as_array(name, value)
    dtype = array.dtype
    if _is_kind(xp, dtype, "integral"):
        array = xp.astype(array, xp.float64)
    elif _is_kind(xp, dtype, "complex floating"):
        raise ArgumentTypeError(f"{name}: complex input ({dtype}) is not supported; pass real arrays")
    elif not _is_kind(xp, dtype, "real floating"):
        raise ArgumentTypeError(f"{name}: expected real numbers, got dtype {dtype}")
    elif xp.finfo(dtype).bits == 16:
        raise ArgumentTypeError(f"{name}: {dtype} is too coarse to verify with; cast to float32 or float64")
    elif xp.finfo(dtype).bits > 64:
        raise ArgumentTypeError(f"{name}: {dtype} has no linear algebra here; cast to float64")
    if xp is np:
        array = np.asarray(array, order="C")
    if array.ndim < min_ndim:
        raise ArgumentError(
            f"{name}: expected at least {min_ndim} axes (the last ones belong to one problem, leading ones are "
            f"the batch), got shape {tuple(array.shape)}"
        )
    return array


def _is_kind(xp: Any, dtype: Any, kind: str) -> bool:
    # CuPy's dtypes are NumPy's.
    return bool(getattr(xp, "isdtype", np.isdtype)(dtype, kind))


def finite(name: str, array: Array) -> Array:
    """Return `array`, or raise `NonFiniteError` naming the first place that is NaN or infinite."""
    xp = namespace(array)
    good = xp.isfinite(array)
    if not bool(xp.all(good)):
        where = np.argwhere(~to_numpy(good))[0].tolist()
        raise NonFiniteError(f"{name}: {float(array[tuple(where)])} at index {where}; every entry must be finite")
    return array


def vector(name: str, value: Any) -> Array:
    """Return a finite `(..., d)` array with d ≥ 1."""
    array = real_array(name, value, min_ndim=1)
    if array.shape[-1] == 0:
        raise ArgumentError(f"{name}: needs at least one parameter, got shape {tuple(array.shape)}")
    return finite(name, array)


def positive(name: str, value: Any) -> Array:
    """Return finite, positive numbers, one or one per problem.

    The test is `not (isfinite(x) and x > 0)`: `x <= 0` is False for NaN.
    """
    if isinstance(value, bool | np.bool_ | str | bytes) or value is None:
        raise ArgumentTypeError(f"{name}: expected a positive real number, got {value!r}")
    array = real_array(name, value)
    xp = namespace(array)
    bad = ~(xp.isfinite(array) & (array > 0))
    if bool(xp.any(bad)):
        shown = to_numpy(array)[to_numpy(bad)].ravel()[0]
        raise ArgumentError(f"{name}: must be finite and > 0, got {shown}")
    return array


def positive_float(name: str, value: Any) -> float:
    """Return one finite, positive Python float."""
    array = positive(name, value)
    if array.ndim:
        raise ArgumentTypeError(f"{name}: expected one number, got an array of shape {tuple(array.shape)}")
    return float(array)


def tolerance(name: str, value: Any) -> float:
    """Return a relative tolerance: 0 ≤ value < 1."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise ArgumentTypeError(f"{name}: expected a number with 0 <= {name} < 1, got {value!r}")
    number = float(value)
    if not 0 <= number < 1:  # False for NaN, too
        raise ArgumentError(f"{name}: expected 0 <= {name} < 1, got {value}")
    return number


def count(name: str, value: Any, *, minimum: int = 0) -> int:
    """Return a step count as int.

    Raises
    ------
    ArgumentTypeError
        For bools and anything that is not an integer.
    ArgumentError
        Below `minimum` or above 10⁷.
    """
    if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Integral):
        raise ArgumentTypeError(f"{name}: expected a whole number >= {minimum}, got {value!r}")
    number = int(value)
    if number < minimum or number > MAX_COUNT:
        raise ArgumentError(f"{name}: expected {minimum} <= {name} <= {MAX_COUNT}, got {value}")
    return number


def seed(name: str, value: Any) -> int:
    """Return a seed as int: a whole number of any size, as NumPy's generators take it.

    Raises
    ------
    ArgumentTypeError
        For bools and anything that is not an integer.
    ArgumentError
        Below 0.
    """
    if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Integral):
        raise ArgumentTypeError(f"{name}: expected a whole number >= 0, got {value!r}")
    if value < 0:
        raise ArgumentError(f"{name}: expected a whole number >= 0, got {value}")
    return int(value)


def flag(name: str, value: Any) -> bool:
    """Return True or False, and nothing that merely looks like it."""
    if not isinstance(value, bool):
        raise ArgumentTypeError(f"{name}: expected True or False, got {value!r}")
    return value


def strategy(name: str, value: Any, example: str) -> None:
    """Refuse what cannot be called, and a class where one of its instances is wanted."""
    if not callable(value) or isinstance(value, type):
        raise ArgumentTypeError(f"{name}: expected a strategy object such as {example}, got {value!r}")


def labels(name: str, value: Any, n_classes: int) -> Array:
    """Return integer class labels in [0, n_classes).

    Negative labels are refused, too: -1 would silently index the last class. So are floats and one-hot rows.
    """
    xp, array = _as_array(name, value)
    if not _is_kind(xp, array.dtype, "integral"):
        raise ArgumentTypeError(f"{name}: expected integer class labels, got dtype {array.dtype}")
    if 0 in array.shape:
        raise ArgumentError(f"{name}: needs at least one label, got shape {tuple(array.shape)}")
    low, high = int(xp.min(array)), int(xp.max(array))
    if low < 0 or high >= n_classes:
        raise ArgumentError(
            f"{name}: labels must lie in [0, {n_classes}), got values from {low} to {high}; "
            f"one-hot rows are not labels: pass their argmax"
        )
    return array
