"""Damped Newton to machine precision."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from implicit_grad import border
from implicit_grad.backend import Array, dot, epsilon, namespace, to_numpy
from implicit_grad.inner._line_search import Iterate
from implicit_grad.inner._protocol import start_point
from implicit_grad.inner.stopping import Distance, Stop, checked_distance
from implicit_grad.linear import Cholesky, LinearSolver
from implicit_grad.problem import BilevelProblem
from implicit_grad.results import Card, Cost, Solution, Status, status_codes, statuses


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
    distance : Distance, float or None
        And when ‖φ − φ*‖ is proven to be at most this; a number is `Distance(number)`.
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
    distance: Distance | float | None = field(default=None, kw_only=True)

    card: ClassVar[Card] = Card(
        "a linear solve a step",
        "of the linear solver",
        "quadratic, to rounding",
        "d is in the thousands, with Cholesky",
        saddle="shifts A near one; stops at an exact one, and says nothing",
    )

    def __post_init__(self) -> None:
        border.tolerance("rtol", self.rtol)
        object.__setattr__(self, "distance", checked_distance(self.distance))
        border.count("max_steps", self.max_steps)
        border.strategy("linear_solver", self.linear_solver, "Cholesky()")

    def __call__(self, problem: BilevelProblem, theta: Array, *, start: Array | None = None) -> Solution[Newton]:
        """Minimise G(·; θ) from `start` (default θ)."""
        theta = problem.parameters(theta)
        xp = namespace(theta)
        stop = Stop(problem, theta, self.rtol, self.distance)
        state = Iterate(problem, theta, start_point(problem, theta, start), stop)
        steps = np.zeros(theta.shape[:-1], dtype=np.int64)
        polishing = np.zeros(theta.shape[:-1], dtype=bool)
        active = np.ones(theta.shape[:-1], dtype=bool)
        # Sizing the rounding floor of a loss that cannot do it itself takes a product.
        check = Cost() if hasattr(problem.inner, "gradient_terms") else Cost(hvps=1)
        cost = Cost(gradients=1) + check
        smallest: Any = np.full(theta.shape[:-1], np.nan)
        for _ in range(self.max_steps):
            done = to_numpy(state.verdict()[0])
            cost += check
            active &= np.isfinite(to_numpy(state.residual)) & (to_numpy(state.residual) > 0) & ~(done & polishing)
            polishing |= done
            if not active.any():
                break
            direction, seen, spent = self._direction(state, active)
            cost += spent
            smallest = np.where(active & ~np.isnan(seen), seen, smallest)
            forward, trials = state.advance(direction, xp.asarray(active), xp.asarray(polishing))
            moved = to_numpy(forward)
            cost += Cost(gradients=trials)
            steps += moved
            active &= moved
        met = to_numpy(state.verdict()[1])
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

    def _direction(self, state: Iterate, active: Any) -> tuple[Array, Any, Cost]:
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
