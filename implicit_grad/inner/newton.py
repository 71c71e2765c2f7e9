"""Damped Newton to machine precision."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from implicit_grad import border
from implicit_grad._deferred import replaced
from implicit_grad.backend import Array, any_of, dot, epsilon, namespace
from implicit_grad.inner._line_search import Iterate
from implicit_grad.inner._search import Search
from implicit_grad.inner.stopping import Distance, Stop, checked_distance
from implicit_grad.linear import Cholesky, LinearSolver
from implicit_grad.problem import BilevelProblem
from implicit_grad.results import Card, Cost, Solution
from implicit_grad.status import Status


@dataclass(frozen=True)
class Newton:
    r"""Newton's method with a backtracking line search, down to the rounding floor.

    .. math:: A(\varphi_k)\, s = -\nabla_\varphi G(\varphi_k;\theta), \qquad
              \varphi_{k+1} = \varphi_k + t\, s

    with t = 1, or the first shorter one, found by interpolation, that decreases G enough (Armijo), or, where rounding
    may hide that, decreases ‖∇G‖. Where A is not positive definite, it is shifted until it is, so the iteration goes
    downhill and does not end in a saddle.

    Parameters
    ----------
    rtol : float
        A problem is done when ‖∇_φ G‖ ≤ rtol · (‖∇L(φ)‖ + λ(‖φ‖ + ‖θ‖)), the size of the terms that cancel.
    distance : Distance, float or None
        And when ‖φ − φ*‖ is proven to be at most this; a number is `Distance(number)`.
    max_steps : int
        Largest number of steps, each of them one t tried.
    linear_solver : LinearSolver
        For the Newton systems; `CG(max_steps, rtol)` where d is too large for `Cholesky()`.

    Notes
    -----
    Each problem takes one last full step past the tolerance and keeps it if the residual shrinks: quadratic
    convergence makes that step the one that reaches the floor. On a quadratic one step is exact. A step costs one
    linearisation, and a solve unless every problem goes on with the direction it has. With a tolerance a device is
    asked twice a step, whether all are done and whether A is indefinite anywhere; without one (`rtol=0`) never, and
    the eigenvalues and the solve for a shift are always made.
    """

    rtol: float = 1e-12
    max_steps: int = 300
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
        stop = Stop(problem, theta, self.rtol, self.distance)
        systems = _Systems(self.linear_solver, theta, ask=stop.asked)
        # A step may take a factorisation: worth asking a device for.
        search = Search(problem, theta, start, stop, steps=self.max_steps, tolerant=True, polish=True, looks=1)
        return replaced(search.run(self, systems), smallest_eigenvalue=systems.smallest)


class _Systems:
    """Directions from A s = −∇G, with A shifted where it is not positive definite; −∇G where that fails, too."""

    def __init__(self, solver: LinearSolver, theta: Array, *, ask: bool) -> None:
        self.solver, self.ask = solver, ask
        self._seen: Array = namespace(theta).full_like(theta[..., 0], float("nan"))
        self._any = False

    @property
    def smallest(self) -> Array | None:
        """The last smallest eigenvalue below zero that was met, NaN where none was."""
        return self._seen if self._any else None

    def restart(self, failed: Array) -> Array:
        """Say that there is nothing to forget."""
        return namespace(failed).zeros_like(failed)

    def __call__(self, here: Iterate, fresh: Array) -> tuple[Array, Cost]:
        xp = namespace(here.phi)
        rhs = xp.where(fresh[..., None], -here.gradient, xp.zeros_like(here.gradient))
        first = self.solver(here.operator, rhs)
        direction, cost = first.value, first.cost
        indefinite = (first.codes == Status.INDEFINITE.code) & fresh
        if any_of(indefinite, ask=self.ask) and first.smallest_eigenvalue is not None:
            lowest, self._any = first.smallest_eigenvalue, True
            self._seen = xp.where(indefinite & ~xp.isnan(lowest), lowest, self._seen)
            # −2 λ_min puts the lowest eigenvalue at |λ_min|: as far above zero as it was below.
            root = xp.full_like(lowest, epsilon(rhs) ** 0.5)
            shift = xp.where(-2 * lowest > root, -2 * lowest, root)
            shift = xp.where(indefinite, shift, xp.zeros_like(shift))
            again = self.solver(here.operator.shifted(shift), rhs)
            direction = xp.where(indefinite[..., None], again.value, direction)
            cost += again.cost
        # A solve that failed altogether leaves steepest descent, which is always downhill.
        finite = xp.all(xp.isfinite(direction), axis=-1)
        downhill = finite & (dot(xp.where(finite[..., None], direction, rhs), rhs) > 0)
        return xp.where(downhill[..., None], direction, rhs), cost
