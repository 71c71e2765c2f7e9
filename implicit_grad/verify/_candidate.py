"""Somebody's meta-gradient as it is called: what it returns, and how it misbehaves."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np

from implicit_grad.backend import Array
from implicit_grad.check import arrays_of
from implicit_grad.errors import ArgumentTypeError
from implicit_grad.objectives.autodiff import flatten, is_tree
from implicit_grad.status import Status


class Fault(Enum):
    """How a candidate can misbehave, whatever its numbers; the value is the help text."""

    RAISES = "it raises an exception"
    SHAPE = "the gradient has another shape than θ"
    DTYPE = "the gradient is no array of real floating point numbers"
    NONFINITE = "NaN or infinity where the gradient is finite"
    MUTATION = "it writes into its input: hand it copies, or let it work on a copy"
    SHARED = "it returns the same memory from call to call, so that an earlier result changes: return a copy"
    NONDETERMINISTIC = "two calls at the same θ differ: fix its random seed, and keep no state between calls"
    ZERO = "all zeros, silently: θ does not reach the loss (detached, or no prox term), or a solver gave up"
    PARTLY_ZERO = "some entries are exactly zero at every θ: parameters frozen, detached or forgotten"
    CONSTANT = "the same numbers at every θ: a cached result, or θ is not used"
    REFUSED = "its own status says that it failed"
    UNCONVERGED = "right where θ is the minimum already, wrong elsewhere: its inner solve stops before φ*"
    SINGLE_PRECISION = "every number fits into float32: it was computed, or passed on, in single precision"
    COARSE = "it returns single precision: the tolerance allows for that"

    @property
    def fatal(self) -> bool:
        """Whether no gradient is right that does this, however small its error."""
        return self in (Fault.RAISES, Fault.SHAPE, Fault.DTYPE, Fault.NONFINITE, Fault.MUTATION, Fault.SHARED)

    def __repr__(self) -> str:
        return f"Fault.{self.name}"


@dataclass(frozen=True)
class Observation:
    """One fault that was seen.

    Attributes
    ----------
    fault : Fault
    detail : str
        What was measured.
    point : int or None
        Index of θ; None where several were compared.
    """

    fault: Fault
    detail: str
    point: int | None = None

    def __str__(self) -> str:
        where = "" if self.point is None else f" at θ {self.point}"
        return f"{self.fault.name}{where}: {self.fault.value} ({self.detail})"


@dataclass(frozen=True, eq=False)
class Answer:
    """What came back at one θ.

    Attributes
    ----------
    gradients : tuple of (d,) arrays
        Of repeated calls, in float64; empty where there is no vector of the right length.
    epsilon : float
        Unit of the coarser of the precisions of θ and of the gradient.
    observations : tuple of Observation
    """

    gradients: tuple[Array, ...]
    epsilon: float
    observations: tuple[Observation, ...]

    @property
    def usable(self) -> bool:
        """Whether there is a finite vector to compare."""
        return bool(self.gradients) and all(np.isfinite(g).all() for g in self.gradients)


@dataclass(frozen=True, eq=False)
class Candidate:
    """`theta → gradient`, or `(problem, theta) → gradient`, with every call watched.

    Attributes
    ----------
    function : callable
    takes_problem : bool
    unflatten : callable or None
        Rebuilds the parameter tree that the function takes in place of a vector.
    name : str
    """

    function: Callable[..., Any]
    takes_problem: bool
    unflatten: Callable[[Array], Any] | None = None
    name: str = field(default="candidate")

    @classmethod
    def of(cls, function: Any, unflatten: Callable[[Array], Any] | None = None) -> Candidate:
        """Tell by the signature how it is to be called.

        Raises
        ------
        ArgumentTypeError
            For what cannot be called, and for other than one or two required arguments.
        """
        if not callable(function) or isinstance(function, type):
            raise ArgumentTypeError(
                f"candidate: expected a function theta -> gradient or (problem, theta) -> gradient, got {function!r}"
            )
        required = _required(function)
        if required not in (None, 1, 2):
            raise ArgumentTypeError(
                f"candidate: it takes {required} arguments, expected theta, or problem and theta; wrap it: "
                f"lambda theta: ..."
            )
        name = getattr(function, "__qualname__", None) or repr(function)
        return cls(function, required == 2, unflatten, str(name))

    def __call__(self, problem: Any, theta: Array) -> Any:
        """Call it once, on a copy of θ."""
        given = theta.copy() if self.unflatten is None else self.unflatten(theta.copy())
        return self.function(problem, given) if self.takes_problem else self.function(given)

    def ask(self, problem: Any, theta: Array, point: int | None, repeats: int = 2) -> Answer:
        """Call it `repeats` times at θ and look at all that comes back."""
        seen: list[Observation] = []
        gradients, coarsest = [], float(np.finfo(theta.dtype).eps)

        def note(fault: Fault, detail: str) -> None:
            if all(fault is not other.fault for other in seen):
                seen.append(Observation(fault, detail, point))

        data = {
            f"problem.{name}: {key}": array
            for name in ("inner", "outer")
            for key, array in arrays_of(getattr(problem, name))
        }
        before = {key: array.tobytes() for key, array in data.items()}
        for _ in range(repeats):
            given = theta.copy()
            tree = given if self.unflatten is None else self.unflatten(given)
            try:
                raw = self.function(problem, tree) if self.takes_problem else self.function(tree)
            except (Exception, SystemExit) as error:  # somebody else's code may do anything: it is the finding
                note(Fault.RAISES, f"{type(error).__name__}: {error}")
                break
            after = given if self.unflatten is None else flatten(tree)[0]
            if not np.array_equal(after, theta):
                note(Fault.MUTATION, "it changed θ")
            status = getattr(raw, "status", None)
            if isinstance(status, Status) and not status.ok:
                note(Fault.REFUSED, f"{status.name}: {status.value}")
            vector, eps = _vector(getattr(raw, "gradient", raw), theta, note)
            if vector is None:
                break
            gradients.append(vector)
            coarsest = max(coarsest, eps)
            if not np.isfinite(vector).all():
                place = int(np.argmax(~np.isfinite(vector)))
                note(Fault.NONFINITE, f"entry {place} is {vector[place]}")
        changed = [key for key, array in data.items() if array.tobytes() != before[key]]
        if changed:
            note(Fault.MUTATION, f"it changed {', '.join(changed)}")
        if len(gradients) > 1 and not np.array_equal(gradients[0], gradients[1], equal_nan=True):
            size = max(float(np.linalg.norm(gradients[0])), 5e-324)
            note(Fault.NONDETERMINISTIC, f"by {np.linalg.norm(gradients[0] - gradients[1]) / size:.1e} of its size")
        return Answer(tuple(gradients), coarsest, tuple(seen))

    def shares_memory(self, problem: Any, theta: Array, other: Array) -> bool:
        """Whether a result changes when the candidate is called at another θ."""
        try:
            first = self(problem, theta)
            array = np.asarray(getattr(first, "gradient", first))
            before = array.tobytes()
            self(problem, other)
        except (Exception, SystemExit):  # found, and named, where it was asked
            return False
        return bool(array.tobytes() != before)


def _required(function: Any) -> int | None:
    """Number of positional arguments without a default; None where that cannot be known."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    required = sum(p.kind in positional and p.default is p.empty for p in parameters)
    if required == 0 and any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return None
    return required


def _vector(gradient: Any, theta: Array, note: Callable[[Fault, str], None]) -> tuple[Array | None, float]:
    """Return the gradient as a float64 vector with its unit of precision; None where it is none."""
    if is_tree(gradient):
        try:
            gradient = flatten(gradient)[0]
        except (TypeError, ValueError) as error:
            note(Fault.DTYPE, str(error))
            return None, 0.0
    try:
        array = np.asarray(gradient)
    except Exception as error:  # arrays of other libraries refuse in ways of their own
        note(Fault.DTYPE, f"{type(gradient).__name__}: {error}")
        return None, 0.0
    if array.dtype.kind != "f":
        came = type(gradient).__name__ if array.dtype == object else f"dtype {array.dtype}"
        note(Fault.DTYPE, f"got {came}")
        if array.dtype.kind not in "iu":
            return None, 0.0
    if array.shape != theta.shape:
        note(Fault.SHAPE, f"got {array.shape}, θ has {theta.shape}")
        if array.size != theta.size:
            return None, 0.0
    eps = float(np.finfo(array.dtype).eps) if array.dtype.kind == "f" else float(np.finfo(float).eps)
    return array.reshape(theta.shape).astype(np.float64), eps
