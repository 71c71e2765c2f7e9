"""The implicit gradient after one Newton correction: an error of second order in the inner one."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from implicit_grad import border
from implicit_grad.backend import Array, norm
from implicit_grad.estimators._newton_step import newton_move
from implicit_grad.estimators.implicit import ImplicitGradient
from implicit_grad.linear import Cholesky, LinearSolver
from implicit_grad.problem import BilevelProblem
from implicit_grad.results import Card, Cost, Estimate, Solution, expect_solution
from implicit_grad.status import worst_status


@dataclass(frozen=True)
class SuperEfficientGradient:
    r"""The implicit gradient at φ corrected by one Newton step.

    .. math:: \varphi_N = \varphi - A(\varphi)^{-1}\nabla_\varphi G(\varphi;\theta), \qquad
              g = \lambda\, A(\varphi_N)^{-1} \nabla L_{\mathrm{test}}(\varphi_N)

    Newton squares the inner error, ‖φ_N − φ*‖ ≤ ρ/(2μ)·‖φ − φ*‖² for a ρ-Lipschitz Hessian and A(φ) ⪰ μI, and the
    implicit gradient is linear in it: an error of O(δ²) where the plain one has O(δ). On a quadratic train loss it is
    exact from any φ.

    Parameters
    ----------
    linear_solver : LinearSolver
        For both systems. With a truncated solver its own relative error ε adds O(εδ) and O(ε).

    Notes
    -----
    Two linear solves, two linearisations and two gradients after the inner solve. `Estimate.inner` is the corrected
    solution: its value is φ_N, its residual that at φ_N, and `Estimate.linear` is the solve there. Far from φ* one
    full Newton step may well lead away from it.

    References
    ----------
    Ye, Peyré, Cremers, Ablin, Enhancing hypergradients estimation: a study of preconditioning and
    reparameterization, 2024, arXiv:2402.16748.
    """

    linear_solver: LinearSolver = field(default_factory=Cholesky)
    card: ClassVar[Card] = Card(
        "2 linear solves + 4 gradients",
        "as the linear solver",
        "O(‖φ − φ*‖²)",
        "φ is outside Newton's basin: the full step leads away",
        saddle="NaN where the linear solver refuses it, before or after the step",
    )

    def __post_init__(self) -> None:
        border.strategy("linear_solver", self.linear_solver, "Cholesky()")

    @property
    def label(self) -> str:
        """Short name for legends."""
        return f"super-efficient, {getattr(self.linear_solver, 'label', repr(self.linear_solver))}"

    def __call__(self, problem: BilevelProblem, theta: Array, inner: Solution[Any]) -> Estimate:
        """Return the estimate one Newton step after `inner.value`."""
        expect_solution(inner)
        move = newton_move(problem, theta, inner.value, self.linear_solver)
        corrected = replace(
            inner,
            value=move.value,
            residual_norm=norm(problem.stationarity(move.value, theta)),
            status=worst_status(inner, move.linear, inner),
            path=None,
            # The linearisation of the step, and the residual after it.
            cost=inner.cost + move.linear.cost + Cost(gradients=2),
        )
        return ImplicitGradient(self.linear_solver)(problem, theta, corrected)
