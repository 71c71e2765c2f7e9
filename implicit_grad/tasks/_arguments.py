"""Checks of constructor arguments that several sources share."""

from __future__ import annotations

from typing import Any

from implicit_grad import border
from implicit_grad.errors import ArgumentError, ArgumentTypeError


def non_negative(name: str, value: Any) -> float:
    """Return one finite float of at least zero."""
    number = border.finite(name, border.real_array(name, value))
    if number.ndim:
        raise ArgumentTypeError(f"{name}: expected one number, got shape {tuple(number.shape)}")
    if number < 0:
        raise ArgumentError(f"{name}: must be >= 0, got {float(number):g}")
    return float(number)


def ends(name: str, value: Any) -> tuple[float, float]:
    """Return the two ends of an interval, in order."""
    pair = border.finite(name, border.real_array(name, value))
    if pair.shape != (2,):
        raise ArgumentTypeError(f"{name}: expected two numbers (low, high), got {value!r}")
    if pair[0] > pair[1]:
        raise ArgumentError(f"{name}: expected low <= high, got {value!r}")
    return float(pair[0]), float(pair[1])


def layer_widths(name: str, value: Any) -> tuple[int, ...]:
    """Return the widths of hidden layers as a tuple of positive ints."""
    try:
        widths = tuple(value)
    except TypeError:
        raise ArgumentTypeError(f"{name}: expected a tuple of layer widths such as (40, 40), got {value!r}") from None
    return tuple(border.count(name, width, minimum=1) for width in widths)
