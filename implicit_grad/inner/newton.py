"""Damped Newton to machine precision."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from implicit_grad import border
from implicit_grad.backend import Array, dot, epsilon, namespace, norm, to_numpy
from implicit_grad.inner._protocol import attainable, gradient_scale, start_point
from implicit_grad.linear import Cholesky, LinearSolver, Operator
from implicit_grad.problem import BilevelProblem
from implicit_grad.results import Card, Cost, Solution, Status, status_codes, statuses

_HALVINGS = 40
_ARMIJO = 1e-4


@dataclass(frozen=True)
class Newton:
    r"""Newton's method with a backtracking line search, down to the rounding floor.

    .. math:: A(\varphi_k)\, s = -\nabla_\varphi G(\varphi_k;\theta), \qquad
              \varphi_{k+1} = \varphi_k + t\, s

    with the largest t ∈ {1, ½, ¼, …} that decreases G enough (Armijo), or, where rounding may hide that, that
    decreases ‖∇G‖. Where A is not positive definite, it is shifted until it is, so the iteration
    goes downhill and does not end in a saddle.

    Parameters
    ----------
    rtol : float
        A problem is done when ‖∇_φ G‖ ≤ rtol · (‖∇L(φ)‖ + λ(‖φ‖ + ‖θ‖)), the size of the terms that cancel.
    max_steps : int
        Newton steps.
    linear_solver : LinearSolver
        For the Newton systems; `CG(max_steps, rtol)` where d is too large for `Cholesky()`.

    Notes
    -----
    Each problem takes one last full step past the tolerance and keeps it if the residual shrinks: quadratic
    convergence makes that step the one that reaches the floor. On a quadratic one step is exact.
    """

    rtol: float = 1e-12
    max_steps: int = 100
    linear_solver: LinearSolver = field(default_factory=Cholesky)

    card: ClassVar[Card] = Card(
        "a linear solve a step",
        "of the linear solver",
        "quadratic, to rounding",
        "d is in the thousands, with Cholesky",
    )

    def __post_init__(self) -> None:
        border.tolerance("rtol", self.rtol)
        border.count("max_steps", self.max_steps)
        border.strategy("linear_solver", self.linear_solver, "Cholesky()")

    def __call__(self, problem: BilevelProblem, theta: Array, *, start: Array | None = None) -> Solution[Newton]:
        """Minimise G(·; θ) from `start` (default θ)."""
        theta = problem.parameters(theta)
        xp = namespace(theta)
        state = _State(problem, theta, start_point(problem, theta, start), self.rtol)
        steps = np.zeros(theta.shape[:-1], dtype=np.int64)
        polishing = np.zeros(theta.shape[:-1], dtype=bool)
        active = np.ones(theta.shape[:-1], dtype=bool)
        # Sizing the rounding floor of a loss that cannot do it itself takes a product.
        check = Cost() if hasattr(problem.inner, "gradient_terms") else Cost(hvps=1)
        cost = Cost(gradients=1) + check
        smallest: Any = np.full(theta.shape[:-1], np.nan)
        for _ in range(self.max_steps):
            met = to_numpy(state.met())
            cost += check
            active &= np.isfinite(to_numpy(state.residual)) & (to_numpy(state.residual) > 0) & ~(met & polishing)
            polishing |= met
            if not active.any():
                break
            direction, seen, spent = self._direction(state, active)
            cost += spent
            smallest = np.where(active & ~np.isnan(seen), seen, smallest)
            moved, trials = state.advance(direction, xp.asarray(active), xp.asarray(polishing))
            cost += Cost(gradients=trials)
            steps += moved
            active &= moved
        met = to_numpy(state.met())
        codes = np.full(met.shape, Status.STAGNATED.code)
        codes[steps >= self.max_steps] = Status.MAX_STEPS.code
        codes[met] = Status.CONVERGED.code
        codes[~np.isfinite(to_numpy(state.residual))] = Status.NONFINITE.code
        return Solution(
            value=state.phi,
            residual_norm=state.residual,
            steps=steps,
            status=statuses(codes),
            solver=self,
            cost=cost,
            smallest_eigenvalue=None if np.isnan(smallest).all() else smallest,
        )

    def _direction(self, state: _State, active: Any) -> tuple[Array, Any, Cost]:
        """Solve A s = −∇G, shifting A where it is not positive definite; fall back on −∇G."""
        xp = namespace(state.phi)
        keep = xp.asarray(active)[..., None]
        rhs = xp.where(keep, -state.gradient, xp.zeros_like(state.gradient))
        A = state.operator
        first = self.linear_solver(A, rhs)
        direction, cost = first.value, first.cost
        seen = np.full(active.shape, np.nan)
        indefinite = (status_codes(first.status) == Status.INDEFINITE.code) & active
        if indefinite.any() and first.smallest_eigenvalue is not None:
            lowest = to_numpy(first.smallest_eigenvalue)
            seen = np.where(indefinite, lowest, seen)
            # −2 λ_min puts the lowest eigenvalue at |λ_min|: as far above zero as it was below.
            shift = np.where(indefinite, np.maximum(-2 * lowest, np.sqrt(epsilon(rhs))), 0.0)
            again = self.linear_solver(A.shifted(xp.asarray(shift, dtype=rhs.dtype)), rhs)
            direction = xp.where(xp.asarray(indefinite)[..., None], again.value, direction)
            cost += again.cost
        # A solve that failed altogether leaves steepest descent, which is always downhill.
        finite = xp.all(xp.isfinite(direction), axis=-1)
        downhill = finite & (dot(xp.where(finite[..., None], direction, rhs), rhs) > 0)
        return xp.where(downhill[..., None], direction, rhs), seen, cost


class _State:
    """Current iterates with everything known about them."""

    def __init__(self, problem: BilevelProblem, theta: Array, phi: Array, rtol: float) -> None:
        self.problem, self.theta, self.rtol = problem, theta, rtol
        self._move_to(phi)

    def _move_to(self, phi: Array) -> None:
        with np.errstate(over="ignore", invalid="ignore"):
            linearization = self.problem.inner.linearize(phi)
            lam = self.problem.lam_like(phi)
            step = phi - self.theta
            self.phi = phi
            self.value = linearization.value + 0.5 * lam * dot(step, step)
            self.gradient = linearization.gradient + lam[..., None] * step
            self.residual = norm(self.gradient)
            scale = gradient_scale(self.problem, phi, self.theta, linearization.gradient)
            self.tolerance = self.rtol * scale
            self.linearization = linearization
            self.operator: Operator = self.problem.operator(linearization, phi)

    def met(self) -> Array:
        """Whether the residual meets the tolerance, or is down to what rounding leaves."""
        xp = namespace(self.phi)
        with np.errstate(over="ignore", invalid="ignore"):
            floor = attainable(self.problem, self.phi, self.theta, self.linearization)
        return self.residual <= xp.where(floor > self.tolerance, floor, self.tolerance)

    def advance(self, direction: Array, active: Array, polishing: Array) -> tuple[Any, int]:
        """Take the longest acceptable step of every active problem; say which problems moved."""
        xp = namespace(direction)
        old = self.phi, self.value, self.residual
        slope = dot(self.gradient, direction)
        t = xp.where(active, xp.ones_like(slope), xp.zeros_like(slope))
        pending, accepted, trials = active, ~active, 0
        for _ in range(_HALVINGS):
            self._move_to(old[0] + t[..., None] * direction)
            trials += 1
            # A change of G below its own rounding says nothing. How large that is depends on the terms that
            # cancel in G, which only the loss knows: below √eps relative the gradient may decide, too.
            eps, size = epsilon(direction), xp.abs(old[1]) + xp.abs(self.value)
            drop = old[1] - self.value
            enough = (drop >= -_ARMIJO * t * slope) & (drop > 8 * eps * size) & ~polishing
            blind = (xp.abs(drop) <= eps**0.5 * size) | polishing
            accepted = enough | (blind & (self.residual < old[2]))
            pending = pending & ~accepted & ~polishing
            if not bool(xp.any(pending)):
                break
            t = xp.where(pending, 0.5 * t, t)
        moved = active & accepted
        if not bool(xp.all(moved | ~active)):
            self._move_to(xp.where(moved[..., None], self.phi, old[0]))
            trials += 1
        return to_numpy(moved), trials
