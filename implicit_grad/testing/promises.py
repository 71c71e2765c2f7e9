"""What a solver or a meta-gradient promises; the laws hold it to that, and to nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from implicit_grad import border
from implicit_grad.errors import ArgumentTypeError
from implicit_grad.linear import CG, ScipyCG


@dataclass(frozen=True)
class Exact:
    """The answer, to rounding: the backward error is a small multiple of N·u."""

    @property
    def rtol(self) -> float:
        """No more than rounding."""
        return 0.0


@dataclass(frozen=True)
class Tolerance:
    """The answer to a relative tolerance, or a status (an exception, NaN) that says it was not reached.

    Attributes
    ----------
    rtol : float
        Of a linear solve ‖b − A x‖ ≤ rtol‖b‖; of an inner solve ‖∇G‖ ≤ rtol·(‖∇L(φ)‖ + λ(‖φ‖ + ‖θ‖)); of a
        meta-gradient ‖g − ∇F‖ ≤ rtol·‖∇L_test(φ*)‖.
    """

    rtol: float

    def __post_init__(self) -> None:
        border.tolerance("rtol", self.rtol)


@dataclass(frozen=True)
class Budget:
    """A number of steps, and no word about the answer: it must be honest, and behave under changes of scale."""


@dataclass(frozen=True)
class Krylov:
    """`steps` steps of conjugate gradient from zero: the best answer of its Krylov space in the energy norm."""

    steps: int

    def __post_init__(self) -> None:
        border.count("steps", self.steps)


Promise = Exact | Tolerance | Budget | Krylov


def agreed(promise: Any, otherwise: Promise) -> Promise:
    """Return the promise given, or the other one where none is.

    Raises
    ------
    ArgumentTypeError
        For anything else: a promise that no law knows would be held to nothing.
    """
    if promise is None:
        return otherwise
    if not isinstance(promise, Promise):
        raise ArgumentTypeError(
            f"promise: expected Exact(), Tolerance(rtol), Budget() or Krylov(steps), got {promise!r}"
        )
    return promise


def promise_of(solver: Any) -> Promise:
    """Return what a solver says of itself by its settings: `rtol`, `max_steps`, `steps`; without them, `Exact()`.

    A tolerance of zero with a number of steps is a budget, and of `CG` or `ScipyCG` a `Krylov` one.

    Examples
    --------
    >>> from implicit_grad.linear import Cholesky
    >>> promise_of(CG(5)), promise_of(CG(200, 1e-10)), promise_of(Cholesky())
    (Krylov(steps=5), Tolerance(rtol=1e-10), Exact())
    """
    rtol = getattr(solver, "rtol", None)
    steps = getattr(solver, "max_steps", getattr(solver, "steps", None))
    if rtol:
        return Tolerance(float(rtol))
    if steps is None:
        return Exact()
    return Krylov(steps) if isinstance(solver, (CG, ScipyCG)) and steps > 0 else Budget()
