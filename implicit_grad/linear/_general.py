"""What solvers of nonsymmetric systems share: operators whose transpose is another operator."""

from __future__ import annotations

from typing import Any

import numpy as np

from implicit_grad import border
from implicit_grad.backend import device_of, namespace
from implicit_grad.errors import ArgumentError, ArgumentTypeError
from implicit_grad.linear._system import System, prepare
from implicit_grad.linear.operator import Operator


def prepare_general(A: Any, b: Any, name: str, *, on_device: bool = False) -> System:
    """Check and scale a system whose matrix need not be symmetric.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        For operators and right-hand sides that do not fit, are not real, or do not live on the host (or on a device,
        where the solver can go there).
    """
    if hasattr(A, "ndim") and hasattr(A, "shape") and not hasattr(A, "matvec"):
        A = square_operator(A)
    system = prepare(A, b)
    if namespace(system.b) is not np and not (on_device and device_of(system.b) is not None):
        raise ArgumentTypeError(f"b: {name} takes NumPy arrays only")
    if system.A.like.dtype != system.b.dtype:
        raise ArgumentTypeError(
            f"A: dtype {system.A.like.dtype} mixed with dtype {system.b.dtype} of b; cast one of them"
        )
    return system


def square_operator(A: Any) -> Operator:
    """Wrap an array `(..., d, d)`, symmetric or not."""
    A = border.real_array("A", A)
    if A.ndim < 2 or A.shape[-1] != A.shape[-2]:
        raise ArgumentError(f"A: expected a square array (..., d, d), got shape {tuple(A.shape)}")
    return Operator(
        lambda v: (A @ v[..., None])[..., 0],
        tuple(A.shape[:-2]),
        A.shape[-1],
        A,
        stacks=True,
        selector=lambda index: square_operator(A[index]),
    )
