"""What every linear solver does before and after its own work."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from implicit_grad import border
from implicit_grad.backend import (
    Array,
    broadcast_shapes,
    epsilon,
    expand,
    namespace,
    norm,
    power_of_two_scale,
    to_numpy,
)
from implicit_grad.linear.operator import Operator, as_operator
from implicit_grad.results import Path, Solution, Status, statuses


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
    **extra: Any,
) -> Solution[Any]:
    """Recompute the residual of the scaled x and say how the solve ended, per problem.

    A solve is CONVERGED if the recomputed ‖b − A x‖ ≤ max(rtol ‖b‖, 10·d·eps·(‖A‖‖x‖ + ‖b‖)): nothing
    smaller than the second can be told from zero in this precision. Without a tolerance (rtol = 0) that
    means an exact solve, and anything else is a spent budget.
    """
    xp = namespace(x)
    with np.errstate(over="ignore", invalid="ignore"):
        r = system.b - system.A(x)
        residual, size, rhs = norm(r), norm(x), norm(system.b)
        attainable = 10 * system.A.size * epsilon(x) * (operator_norm * size + rhs)
    met = residual <= xp.where(attainable > rtol * rhs, attainable, rtol * rhs)
    exact = residual == 0
    host = {name: to_numpy(value) for name, value in (("met", met), ("exact", exact), ("steps", steps))}
    spent = host["steps"] >= budget if budget is not None else np.zeros(system.shape, dtype=bool)
    codes = np.full(system.shape, Status.STAGNATED.code)
    codes[spent] = Status.MAX_STEPS.code if rtol > 0 else Status.BUDGET_SPENT.code
    codes[host["met"] & ~spent] = Status.CONVERGED.code
    codes[host["exact"] | (host["met"] & (rtol > 0))] = Status.CONVERGED.code
    for status, mask in failed.items():
        codes[to_numpy(mask)] = status.code
    codes[~np.isfinite(to_numpy(residual)) & (codes != Status.INDEFINITE.code)] = Status.NONFINITE.code
    codes[~to_numpy(system.finite)] = Status.NONFINITE.code
    nan = xp.full_like(x, float("nan"))
    return Solution(
        value=xp.where(system.finite[..., None], x * system.scale[..., None], nan),
        residual_norm=xp.where(system.finite, residual * system.scale, nan[..., 0]),
        steps=steps,
        status=statuses(codes),
        solver=solver,
        **extra,
    )


def recorded_path(system: System, points: Array) -> Path:
    """Return the iterates in the units of b, each with its recomputed residual (one stacked product)."""
    xp = namespace(points)
    with np.errstate(over="ignore", invalid="ignore"):
        if system.A.stacks:
            residuals = norm(system.b - system.A(points))
        else:
            residuals = xp.stack([norm(system.b - system.A(point)) for point in points], axis=0)
    steps = tuple(range(points.shape[0]))
    return Path(steps, points * system.scale[..., None], residuals * system.scale)


def _broadcast(A: Operator, shape: tuple[int, ...]) -> Operator:
    """Give A the batch axes of the system, so that `select` counts them alike."""
    if A.batch_shape == shape:
        return A

    def selector(index: tuple[int, ...]) -> Operator:
        own = index[len(shape) - len(A.batch_shape) :]
        return A.select(tuple(0 if n == 1 else i for i, n in zip(own, A.batch_shape, strict=True)))

    return Operator(A.apply, shape, A.size, A.like, A.stacks, selector)
