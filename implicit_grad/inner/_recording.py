"""Iterates kept from a run: which, and whether they fit."""

from __future__ import annotations

from typing import Any

import numpy as np

from implicit_grad import border
from implicit_grad._memory import physical_memory
from implicit_grad.backend import Array
from implicit_grad.errors import ArgumentError, ArgumentTypeError


def checked_record(record: Any, steps: int) -> bool | tuple[int, ...]:
    """Return True, False or ascending step counts up to `steps`.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        For anything else.
    """
    if isinstance(record, bool):
        return record
    if not isinstance(record, tuple | list | range):
        raise ArgumentTypeError(f"record: expected True, False or step counts, got {record!r}")
    kept = tuple(sorted({border.count("record", step) for step in record}))
    if kept and kept[-1] > steps:
        raise ArgumentError(f"record: step {kept[-1]} lies beyond the last step {steps}")
    return kept


def kept_steps(record: bool | tuple[int, ...], steps: int) -> tuple[int, ...]:
    """Step counts whose iterates are recorded."""
    if isinstance(record, bool):
        return tuple(range(steps + 1)) if record else ()
    return record


def check_memory(theta: Array, kept: int) -> None:
    """Refuse to record more iterates than fit into this machine's memory.

    Raises
    ------
    ArgumentError
        With both sizes.
    """
    if not isinstance(theta, np.ndarray):
        return
    needed, available = kept * theta.nbytes, physical_memory()
    if available is not None and needed > available:
        raise ArgumentError(
            f"record: {kept} iterates of shape {theta.shape} need {needed / 2**30:.3g} GiB, more than the "
            f"{available / 2**30:.3g} GiB of this machine; record fewer steps, or use ImplicitGradient, "
            f"which needs none"
        )
