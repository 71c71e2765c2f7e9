"""The two comparisons laws are made of. Tolerances are absolute here: the law derives them."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
from hypothesis import currently_in_test_context, target
from hypothesis.errors import InvalidArgument


def at_most(lhs: Any, rhs: Any, tolerance: Any, what: str) -> None:
    """Check lhs ≤ rhs + tolerance, element by element; NaN fails."""
    lhs, rhs, tolerance = (np.asarray(x) for x in (lhs, rhs, tolerance))
    excess = lhs - rhs
    if not np.all(excess <= tolerance):
        raise AssertionError(f"{what}: {lhs} exceeds {rhs} by {excess}, tolerance {tolerance}")
    _hunt(excess, tolerance, what)


def same(lhs: Any, rhs: Any, tolerance: Any, what: str) -> None:
    """Check ‖lhs − rhs‖₂ ≤ tolerance over the last axis (|·| for numbers); NaN fails."""
    difference = np.asarray(lhs) - np.asarray(rhs)
    distance = np.linalg.norm(difference, axis=-1) if difference.ndim else np.abs(difference)
    if not np.all(distance <= tolerance):
        raise AssertionError(f"{what}: {lhs} and {rhs} differ by {distance}, tolerance {tolerance}")
    _hunt(distance, tolerance, what)


def holds(condition: Any, what: str) -> None:
    """Check a plain truth."""
    if not np.all(condition):
        raise AssertionError(what)


def _hunt(excess: Any, tolerance: Any, what: str) -> None:
    """Lead Hypothesis towards the worst ratio of error to tolerance."""
    if not currently_in_test_context():
        return
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = float(np.max(np.divide(excess, tolerance, dtype=np.float64), initial=1e-30))
    if np.isfinite(ratio):
        with contextlib.suppress(InvalidArgument):  # the same label twice in one example: the first counts
            target(float(np.log10(max(ratio, 1e-30))), label=what)
