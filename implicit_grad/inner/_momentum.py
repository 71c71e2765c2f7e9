"""Both ways to put momentum into gradient descent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from implicit_grad import border
from implicit_grad.backend import Array, namespace
from implicit_grad.inner._first_order import FullGradient, State, descend
from implicit_grad.inner._recording import checked_record
from implicit_grad.inner._step_size import loss_curvature
from implicit_grad.inner.stopping import checked_distance
from implicit_grad.problem import BilevelProblem
from implicit_grad.results import Cost, Solution

Tuning = Callable[[Array, Array], tuple[Array, Array]]
"""λ and √κ → α and β, per problem."""


def check_settings(solver: Any) -> None:
    """Check and store the fields of a solver with momentum.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        Naming the field.
    """
    border.count("steps", solver.steps)
    checked = {
        "step_size": None if solver.step_size is None else border.positive_float("step_size", solver.step_size),
        "momentum": None if solver.momentum is None else border.tolerance("momentum", solver.momentum),
        "rtol": border.tolerance("rtol", solver.rtol),
        "distance": checked_distance(solver.distance),
        "record": checked_record(solver.record, solver.steps),
    }
    for name, value in checked.items():
        object.__setattr__(solver, name, value)


def accelerate(
    solver: Any, problem: BilevelProblem, theta: Array, start: Array | None, tuning: Tuning, *, ahead: bool
) -> Solution[Any]:
    """Run with the α and β given, or those of `tuning` for κ = M̄/λ: λ is what a convex loss leaves sure."""
    theta = problem.parameters(theta)
    xp, lam, like = namespace(theta), problem.lam_like(theta), theta[..., 0]
    curvature, extra = xp.zeros_like(like), Cost()
    if solver.step_size is None or solver.momentum is None:
        curvature, extra = loss_curvature(problem, theta)
    alpha, beta = tuning(lam, xp.sqrt((curvature + lam) / lam))
    alpha = alpha if solver.step_size is None else xp.full_like(like, solver.step_size)
    beta = beta if solver.momentum is None else xp.full_like(like, solver.momentum)
    rule = MomentumRule(problem, theta, alpha, beta, ahead=ahead)
    return descend(
        solver, problem, theta, start, rule, alpha=alpha, extra=extra, rtol=solver.rtol, distance=solver.distance
    )


class MomentumRule(FullGradient):
    """φ₊ = p − α∇G(q) with p = φ + β(φ − φ₋), the gradient taken at q = p (Nesterov) or q = φ (heavy ball)."""

    def __init__(self, problem: BilevelProblem, theta: Array, alpha: Array, beta: Array, *, ahead: bool) -> None:
        super().__init__(problem, theta)
        self.alpha, self.beta, self.ahead = alpha[..., None], beta[..., None], ahead

    @property
    def at_iterate(self) -> bool:
        """Whether the gradients are those at the iterates."""
        return not self.ahead

    def start(self, phi: Array) -> State:
        """Return φ without a velocity."""
        return phi, phi

    def _pushed(self, state: State) -> Array:
        return state[0] + self.beta * (state[0] - state[1])

    def point(self, state: State) -> Array:
        """Where the next gradient is taken."""
        return self._pushed(state) if self.ahead else state[0]

    def update(self, state: State, gradient: Array, step: int) -> State:
        """Return the state after one step."""
        return self._pushed(state) - self.alpha * gradient, state[0]
