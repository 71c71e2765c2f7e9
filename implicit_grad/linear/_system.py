"""What every linear solver does before and after its own work."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from implicit_grad import border
from implicit_grad.backend import (
    Array,
    any_of,
    broadcast_shapes,
    epsilon,
    expand,
    join,
    namespace,
    norm,
    power_of_two_scale,
)
from implicit_grad.linear.operator import Operator, as_operator
from implicit_grad.results import Cost, Path, Solution
from implicit_grad.status import Status, all_codes, marked, statuses

_SMALL = 1e-2

_STACK = 2**18
"""Numbers of recorded iterates pushed through the operator at once."""


class LinearSolver(Protocol):
    """Solve A x = b for symmetric A; one small immutable value per method."""

    def __call__(self, A: Any, b: Array) -> Solution[Any]:
        """Return x with its recomputed residual and its status, per problem."""
        ...


@dataclass(frozen=True, eq=False)
class System:
    """A x = b, brought to one shape and scaled so that max|b| is in [1, 2).

    The scale is a power of two: dividing by it is exact, and iterates are the same numbers.
    """

    A: Operator
    b: Array
    scale: Array
    finite: Array

    @property
    def shape(self) -> tuple[int, ...]:
        """Batch axes."""
        return tuple(self.b.shape[:-1])

    @property
    def selection(self) -> Cost:
        """What `problems` costs each problem."""
        return self.A.selection if self.A.batch_shape else Cost()

    def problems(self) -> Iterator[tuple[tuple[int, ...], Operator, Array]]:
        """Iterate over the problems with a finite b: index, operator and right-hand side."""
        full = _broadcast(self.A, self.shape)
        for index in np.ndindex(self.shape):
            if bool(self.finite[index]):
                yield index, full.select(index), self.b[index]


def prepare(A: Any, b: Any) -> System:
    """Check and scale a system. A problem whose b is not finite is set aside with b = 0.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        For operators and right-hand sides that do not fit or are not real.
    """
    b = border.real_array("b", b, min_ndim=1)
    operator = as_operator(A, b)
    b = expand(b, (*broadcast_shapes(operator.batch_shape, tuple(b.shape[:-1])), operator.size))
    xp = namespace(b)
    finite = xp.all(xp.isfinite(b), axis=-1)
    b = xp.where(finite[..., None], b, xp.zeros_like(b))
    scale = power_of_two_scale(b)
    return System(operator, b / scale[..., None], scale, finite)


def verdict(
    system: System,
    x: Array,
    *,
    solver: Any,
    rtol: float,
    steps: Any,
    budget: int | None,
    operator_norm: Array,
    failed: dict[Status, Array],
    iterates: Array | None = None,
    costs: tuple[Cost, ...] = (),
    **extra: Any,
) -> Solution[Any]:
    """Recompute the residual of the scaled x and say how the solve ended, per problem.

    A solve is CONVERGED if the recomputed ‖b − A x‖ ≤ max(rtol ‖b‖, 10·d·eps·(‖A‖‖x‖ + ‖b‖)): nothing
    smaller than the second can be told from zero in this precision. Where the second is no longer small beside
    ‖b‖ the matrix is singular to this precision, and it excuses nothing. Without a tolerance (rtol = 0) that
    means an exact solve, and anything else is a spent budget.

    `iterates` (steps + 1, ..., d), with their `costs`, become the path; each is judged as the end of its own run.
    They are given away: their own array becomes that of the path.
    """
    ends, xp = _Ends(system, rtol, operator_norm), namespace(x)
    residual = ends.residual(x)
    never = xp.zeros_like(system.finite)
    codes = ends.codes(x, residual, never if budget is None else never | (steps >= budget))
    for status, mask in failed.items():
        codes = marked(codes, mask, status)
    codes = marked(codes, ~xp.isfinite(residual) & (codes != Status.INDEFINITE.code), Status.NONFINITE)
    codes = marked(codes, ~system.finite, Status.NONFINITE)
    path = None
    if iterates is not None:
        residuals = ends.residual(iterates)
        counts = xp.reshape(xp.arange(iterates.shape[0]), (-1, *[1] * len(system.shape)))
        # A run of k steps ends before whatever befell the longest one after its step k.
        before = (counts <= steps) & system.finite
        own = xp.where(before, ends.codes(iterates, residuals, xp.ones_like(before)), codes)
        with np.errstate(over="ignore"):
            iterates *= system.scale[..., None]
            points, norms = ends.masked(iterates, residuals * system.scale)
        own = marked(own, ends.overflowed(points) & (own != Status.INDEFINITE.code), Status.NONFINITE)
        path = Path(tuple(range(iterates.shape[0])), points, norms, codes=own, costs=costs)
    value, residual_norm = ends.unscaled(x, residual)
    codes = marked(codes, ends.overflowed(value) & (codes != Status.INDEFINITE.code), Status.NONFINITE)
    return Solution(value, residual_norm, steps, statuses(codes), solver, path, **extra)


@dataclass(frozen=True, eq=False)
class _Ends:
    """Judges where a solve of the scaled system ended; takes one end or a stack of them."""

    system: System
    rtol: float
    operator_norm: Array

    def residual(self, x: Array) -> Array:
        A, b = self.system.A, self.system.b
        with np.errstate(over="ignore", invalid="ignore"):
            if x.ndim == b.ndim:
                return norm(b - A(x))
            # A large stack goes through in parts: the temporaries of all of it at once cost more than the loop.
            part = max(1, _STACK // max(1, math.prod(b.shape))) if A.stacks else 1
            if part == 1:
                return namespace(x).stack([norm(b - A(x[i, ...])) for i in range(x.shape[0])], axis=0)
            count = x.shape[0]
            return join([norm(b - A(x[i : min(i + part, count), ...])) for i in range(0, count, part)])

    def codes(self, x: Array, residual: Array, spent: Array) -> Array:
        xp, rhs, rtol = namespace(x), norm(self.system.b), self.rtol
        with np.errstate(over="ignore", invalid="ignore"):
            attainable = 10 * self.system.A.size * epsilon(x) * (self.operator_norm * norm(x) + rhs)
            attainable = xp.where(attainable < _SMALL * rhs, attainable, xp.zeros_like(attainable))
            met = residual <= xp.where(attainable > rtol * rhs, attainable, rtol * rhs)
        codes = all_codes(met, Status.STAGNATED)
        codes = marked(codes, spent, Status.MAX_STEPS if rtol > 0 else Status.BUDGET_SPENT)
        return marked(codes, (residual == 0) | (met if rtol > 0 else met & ~spent), Status.CONVERGED)

    def unscaled(self, x: Array, residual: Array) -> tuple[Array, Array]:
        """In the units of b."""
        scale = self.system.scale
        with np.errstate(over="ignore"):
            return self.masked(x * scale[..., None], residual * scale)

    def masked(self, x: Array, residual: Array) -> tuple[Array, Array]:
        """With NaN where b was not finite."""
        xp, finite = namespace(x), self.system.finite
        if not any_of(~finite):
            return x, residual
        value = xp.where(finite[..., None], x, xp.full_like(x, float("nan")))
        return value, xp.where(finite, residual, xp.full_like(residual, float("nan")))

    def overflowed(self, value: Array) -> Array:
        """Whether A⁻¹b leaves the range of the dtype, although the scaled system was solved."""
        xp = namespace(value)
        return xp.any(xp.isinf(value), axis=-1)


def _broadcast(A: Operator, shape: tuple[int, ...]) -> Operator:
    """Give A the batch axes of the system, so that `select` counts them alike."""
    if A.batch_shape == shape:
        return A

    def selector(index: tuple[int, ...]) -> Operator:
        own = index[len(shape) - len(A.batch_shape) :]
        return A.select(tuple(0 if n == 1 else i for i, n in zip(own, A.batch_shape, strict=True)))

    return replace(A, batch_shape=shape, selector=selector)
