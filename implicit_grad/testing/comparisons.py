"""The comparisons laws are made of. Tolerances are absolute here: the law derives them."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
from hypothesis import currently_in_test_context, target
from hypothesis.errors import InvalidArgument


class Violation(AssertionError):
    """A law does not hold; the message says what was measured and what was allowed."""


class NotApplicable(Exception):
    """The law says nothing about this subject, and the message says why."""


def at_most(lhs: Any, rhs: Any, tolerance: Any, what: str) -> None:
    """Check lhs ≤ rhs + tolerance, element by element; NaN fails.

    Raises
    ------
    Violation
        With the worst element.
    """
    lhs, rhs, tolerance = np.broadcast_arrays(lhs, rhs, tolerance)
    excess = lhs - rhs
    if not np.all(excess <= tolerance):
        at = _worst(excess, tolerance)
        raise Violation(
            f"{what}: measured {float(lhs[at]):.6g}, allowed {float(rhs[at]):.6g} + {float(tolerance[at]):.3g}"
        )
    _hunt(excess, tolerance, what)


def same(lhs: Any, rhs: Any, tolerance: Any, what: str) -> None:
    """Check ‖lhs − rhs‖₂ ≤ tolerance over the last axis (|·| for numbers); NaN fails.

    Raises
    ------
    Violation
        With the worst distance, and both sides where they are short.
    """
    difference = np.asarray(lhs) - np.asarray(rhs)
    distance, tolerance = np.broadcast_arrays(
        np.linalg.norm(difference, axis=-1) if difference.ndim else np.abs(difference), tolerance
    )
    if not np.all(distance <= tolerance):
        at = _worst(distance, tolerance)
        sides = f"\n    {lhs}\nis not\n    {rhs}" if difference.size <= 12 else ""
        measured, allowed = float(distance[at]), float(tolerance[at])
        raise Violation(f"{what}: measured a distance of {measured:.3g}, allowed {allowed:.3g}{sides}")
    _hunt(distance, tolerance, what)


def holds(condition: Any, what: str) -> None:
    """Check a plain truth.

    Raises
    ------
    Violation
        If it is none.
    """
    if not np.all(condition):
        raise Violation(what)


def _worst(measured: Any, tolerance: Any) -> tuple[Any, ...]:
    """Return the index of the first NaN, else of the largest excess."""
    margin = np.where(np.isnan(measured), np.inf, measured - tolerance)
    return np.unravel_index(int(np.argmax(margin)), margin.shape)


def _hunt(excess: Any, tolerance: Any, what: str) -> None:
    """Lead Hypothesis towards the worst ratio of error to tolerance."""
    if not currently_in_test_context():
        return
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = float(np.max(np.divide(excess, tolerance, dtype=np.float64), initial=1e-30))
    if np.isfinite(ratio):
        with contextlib.suppress(InvalidArgument):  # the same label twice in one example: the first counts
            target(float(np.log10(max(ratio, 1e-30))), label=what)
