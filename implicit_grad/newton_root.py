"""Damped Newton for F(φ, θ) = 0."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from implicit_grad import border
from implicit_grad.backend import Array, any_of, broadcast_shapes, epsilon, expand, look_again, namespace, norm
from implicit_grad.errors import ArgumentError, ArgumentTypeError
from implicit_grad.linear import LinearSolver, Operator
from implicit_grad.linear.general_lu import GeneralLU
from implicit_grad.objectives.stationarity import LinearizedMap, StationarityMap, check_map
from implicit_grad.results import Card, Cost, Solution
from implicit_grad.status import Status, all_codes, marked, statuses

_MOST_LENGTHS = 40


@dataclass(frozen=True)
class NewtonRoot:
    r"""Newton's method for a root of F(·, θ), down to the rounding floor.

    .. math:: \partial_\varphi F(\varphi_k, \theta)\, s = -F(\varphi_k, \theta), \qquad
              \varphi_{k+1} = \varphi_k + t\,s

    with the largest t ∈ {1, ½, ¼, …} that makes ‖F‖ smaller; points where F is not finite are stepped back from. It
    finds roots, and where F is a gradient a saddle is one: `ImplicitFunction(F, Cholesky())` tells.

    Parameters
    ----------
    rtol : float
        `CONVERGED` means ‖F‖ ≤ rtol · (‖∂_φF φ‖ + ‖∂_θF θ‖), the size of the terms that cancel.
    max_steps : int
        Largest number of steps, each of them one t tried.
    linear_solver : LinearSolver
        For the Newton systems: `GeneralLU()`, or where ∂_φF is symmetric any solver for curvatures.

    Notes
    -----
    Steps go on past the tolerance until ‖F‖ no longer shrinks; convergence is quadratic, so they are few. A step
    costs one linearisation and two products for the verdict, and a linear solve unless every problem goes on with the
    direction it has.
    """

    rtol: float = 1e-10
    max_steps: int = 100
    linear_solver: LinearSolver = field(default_factory=GeneralLU)
    card: ClassVar[Card] = Card(
        "a linear solve a step",
        "as the linear solver",
        "rounding",
        "∂_φF is singular nearby",
        saddle="a root like any other",
    )

    def __post_init__(self) -> None:
        border.tolerance("rtol", self.rtol)
        border.count("max_steps", self.max_steps)
        border.strategy("linear_solver", self.linear_solver, "GeneralLU()")

    def __call__(self, F: StationarityMap, theta: Array, start: Array) -> Solution[NewtonRoot]:
        """Find φ with F(φ, θ) = 0 from `start` (..., d).

        Raises
        ------
        ArgumentError, ArgumentTypeError
            For arguments that are no map, or not finite, or of shapes that do not fit.
        """
        phi, theta = point(F, start, theta, name="start")
        xp, cost = namespace(phi), Cost(gradients=1, hvps=2)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            at, tried = F.linearize(phi, theta), phi
            residual = norm(at.value)
            met = residual <= tolerance(at, phi, theta, self.rtol)
            active = fresh = xp.isfinite(residual) & (residual > 0)
            step, lengths = xp.zeros_like(phi), xp.zeros(residual.shape, dtype=xp.int64)
            taken = lengths
            for count in range(self.max_steps):
                if not look_again(active, count, tolerance=self.rtol > 0, every=1):
                    break
                fresh = fresh & active
                if any_of(fresh):
                    way, spent = self._direction(at, tried, fresh)
                    step = xp.where(fresh[..., None], way, step)
                    lengths = xp.where(fresh, xp.zeros_like(lengths), lengths)
                    cost += spent
                step = xp.where(active[..., None], step, xp.zeros_like(step))
                tried = phi + step
                at = F.linearize(tried, theta)
                size = norm(at.value)
                fresh = moved = active & (size < residual)
                good = size <= tolerance(at, tried, theta, self.rtol)
                cost += Cost(gradients=1, hvps=2)
                taken, lengths = taken + xp.astype(active, xp.int64), lengths + 1
                # Where ‖F‖ is small rounding has the last word: the whole step or none.
                failed = ~moved & (met | (lengths >= _MOST_LENGTHS) | ~xp.any(step != 0, axis=-1))
                phi = xp.where(moved[..., None], tried, phi)
                residual, met = xp.where(moved, size, residual), xp.where(moved, good, met)
                active = active & ~failed & (residual > 0)
                step = 0.5 * step
        codes = marked(all_codes(residual, Status.STAGNATED), taken >= self.max_steps, Status.MAX_STEPS)
        codes = marked(codes, met, Status.CONVERGED)
        codes = marked(codes, ~xp.isfinite(residual), Status.NONFINITE)
        return Solution(phi, residual, taken, statuses(codes), self, cost=cost)

    def _direction(self, at: LinearizedMap, phi: Array, fresh: Array) -> tuple[Array, Cost]:
        """Solve ∂_φF s = −F for the problems that just got to φ; no step where there is no solution."""
        xp = namespace(phi)
        rhs = xp.where(fresh[..., None], -at.value, xp.zeros_like(phi))
        linear = self.linear_solver(operator(at, phi), rhs)
        return xp.where(xp.isfinite(linear.value), linear.value, xp.zeros_like(phi)), linear.cost


def point(F: StationarityMap, phi: Any, theta: Any, *, name: str = "phi") -> tuple[Array, Array]:
    """Check a point and give φ and θ every batch axis.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        For arguments that are no map, or not finite, or of shapes or dtypes that do not fit.
    """
    check_map("F", F)
    phi, theta = border.vector(name, phi), border.vector("theta", theta)
    if phi.dtype != theta.dtype:
        raise ArgumentTypeError(
            f"{name}: dtype {phi.dtype} mixed with dtype {theta.dtype} of theta; cast one of them"
        )
    batches = tuple(phi.shape[:-1]), tuple(theta.shape[:-1]), tuple(getattr(F, "batch_shape", ()))
    try:
        shape = broadcast_shapes(*batches)
    except ValueError:
        raise ArgumentError(f"{name}: batch axes of {name}, theta and the map, {batches}, do not broadcast") from None
    return expand(phi, (*shape, phi.shape[-1])), expand(theta, (*shape, theta.shape[-1]))


def operator(at: LinearizedMap, phi: Array, *, transposed: bool = False) -> Operator:
    """Return v ↦ ∂_φF v, or its transpose; symmetric or not is for the solver to know."""

    def selector(index: tuple[int, ...]) -> Operator:
        return operator(at.row(index), phi[index], transposed=transposed)  # type: ignore[misc]

    return Operator(
        at.phi_adjoint if transposed else at.phi_product,
        tuple(phi.shape[:-1]),
        int(phi.shape[-1]),
        phi,
        stacks=at.stacks,
        selector=None if at.row is None else selector,
        selection=at.selection,
        curvature=at.curvature,
    )


def tolerance(at: LinearizedMap, phi: Array, theta: Array, rtol: float) -> Array:
    """Largest ‖F‖ that passes for zero: `rtol`, and at least 10·√d·eps, of ‖∂_φF φ‖ + ‖∂_θF θ‖.

    Those are the terms that cancel in an affine F, constants among them. It takes one product each.
    """
    size = norm(at.phi_product(phi)) + norm(at.theta_product(theta))
    return max(rtol, 10 * float(phi.shape[-1]) ** 0.5 * epsilon(phi)) * size
