"""Damped Newton for F(φ, θ) = 0."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from implicit_grad import border
from implicit_grad.backend import Array, broadcast_shapes, epsilon, expand, namespace, norm, to_numpy
from implicit_grad.errors import ArgumentError, ArgumentTypeError
from implicit_grad.linear import LinearSolver, Operator
from implicit_grad.linear.general_lu import GeneralLU
from implicit_grad.objectives.stationarity import LinearizedMap, StationarityMap, check_map
from implicit_grad.results import Card, Cost, Solution
from implicit_grad.status import Status, all_codes, marked, statuses

_HALVINGS = 40


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
        Newton steps.
    linear_solver : LinearSolver
        For the Newton systems: `GeneralLU()`, or where ∂_φF is symmetric any solver for curvatures.

    Notes
    -----
    Steps go on past the tolerance until ‖F‖ no longer shrinks; convergence is quadratic, so they are few. A step
    costs one linearisation, one linear solve, two products for the verdict, and as many evaluations of F as step
    lengths are tried.
    """

    rtol: float = 1e-10
    max_steps: int = 50
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
        xp = namespace(phi)
        steps = np.zeros(phi.shape[:-1], dtype=np.int64)
        active = np.ones(phi.shape[:-1], dtype=bool)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            at = F.linearize(phi, theta)
            residual = norm(at.value)
            met, cost = self._met(at, phi, theta, residual), Cost(gradients=1, hvps=2)
            for _ in range(self.max_steps):
                active &= np.isfinite(to_numpy(residual)) & (to_numpy(residual) > 0)
                if not active.any():
                    break
                keep = xp.asarray(active)[..., None]
                linear = self.linear_solver(operator(at, phi), xp.where(keep, -at.value, xp.zeros_like(phi)))
                s = xp.where(keep & xp.isfinite(linear.value), linear.value, xp.zeros_like(phi))
                phi, residual, moved, trials = _advance(F, theta, phi, residual, s, xp.asarray(met))
                steps += moved
                active &= moved
                cost += linear.cost + Cost(gradients=trials)
                if not active.any():
                    break
                at = F.linearize(phi, theta)
                met = self._met(at, phi, theta, residual)
                cost += Cost(gradients=1, hvps=2)
        codes = marked(all_codes(residual, Status.STAGNATED), xp.asarray(steps >= self.max_steps), Status.MAX_STEPS)
        codes = marked(codes, xp.asarray(met), Status.CONVERGED)
        codes = marked(codes, ~xp.isfinite(residual), Status.NONFINITE)
        return Solution(phi, residual, steps, statuses(codes), self, cost=cost)

    def _met(self, at: LinearizedMap, phi: Array, theta: Array, residual: Array) -> Any:
        return to_numpy(residual <= tolerance(at, phi, theta, self.rtol))


def _advance(
    F: StationarityMap, theta: Array, phi: Array, residual: Array, s: Array, met: Array
) -> tuple[Array, Array, Any, int]:
    """Take the longest step that makes ‖F‖ smaller, and say which problems moved; where ‖F‖ is small try one only."""
    xp = namespace(phi)
    t = xp.ones_like(residual)
    pending, trials = xp.any(s != 0, axis=-1), 0
    new, size = phi, residual
    while trials < _HALVINGS and bool(xp.any(pending)):
        new = phi + t[..., None] * s
        size = norm(F.value(new, theta))
        trials += 1
        pending = pending & ~(size < residual) & ~met
        t = xp.where(pending, 0.5 * t, t)
    better = size < residual
    moved = xp.where(better[..., None], new, phi)
    return moved, xp.where(better, size, residual), to_numpy(better), trials


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
