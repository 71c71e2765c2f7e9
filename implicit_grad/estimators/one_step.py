"""One-step differentiation: the derivative of a single inner step, all before it held constant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from implicit_grad import border
from implicit_grad.backend import Array, namespace
from implicit_grad.estimators._newton_step import newton_move
from implicit_grad.inner._step_size import step_sizes
from implicit_grad.linear import Cholesky, LinearSolver
from implicit_grad.problem import BilevelProblem
from implicit_grad.results import Card, Cost, Estimate, Solution, expect_solution
from implicit_grad.status import Status, status_codes, worst_status


@dataclass(frozen=True, eq=False)
class Taken:
    """One inner step φ⁺ = T(φ, θ) and the product with its derivative.

    Attributes
    ----------
    value : (..., d) array
        φ⁺.
    pull : callable
        v ↦ (∂T/∂θ)ᵀ v, what it cost, and the status of its solve or None.
    cost : Cost
        Of φ⁺ alone.
    status : Status, (...) object array of Status, a result that has them, or None
        Of φ⁺, where taking the step can fail.
    """

    value: Array
    pull: Callable[[Array], tuple[Array, Cost, Any]]
    cost: Cost
    status: Any = None


class InnerStep(Protocol):
    """One step of an inner solver, as a differentiable map."""

    def __call__(self, problem: BilevelProblem, theta: Array, phi: Array) -> Taken:
        """Take the step from φ."""
        ...


@dataclass(frozen=True)
class GradientStep:
    r"""φ⁺ = φ − α∇G(φ; θ), whose derivative in θ is αλI.

    Parameters
    ----------
    step_size : float or None
        α > 0; None takes 1/M̄ as `GradientDescent` does.
    """

    step_size: float | None = None

    def __post_init__(self) -> None:
        if self.step_size is not None:
            object.__setattr__(self, "step_size", border.positive_float("step_size", self.step_size))

    def __call__(self, problem: BilevelProblem, theta: Array, phi: Array) -> Taken:
        """Take the step from φ."""
        alpha, cost = step_sizes(problem, theta, self.step_size)
        value = phi - alpha[..., None] * problem.stationarity(phi, theta)
        factor = (alpha * problem.lam_like(phi))[..., None]
        return Taken(value, lambda v: (factor * v, Cost(), None), cost + Cost(gradients=1))


@dataclass(frozen=True)
class NewtonStep:
    r"""φ⁺ = φ − A(φ)⁻¹∇G(φ; θ), whose derivative in θ is λA(φ)⁻¹.

    Parameters
    ----------
    linear_solver : LinearSolver
        For the step and for its derivative, which share A(φ).
    """

    linear_solver: LinearSolver = field(default_factory=Cholesky)

    def __post_init__(self) -> None:
        border.strategy("linear_solver", self.linear_solver, "Cholesky()")

    def __call__(self, problem: BilevelProblem, theta: Array, phi: Array) -> Taken:
        """Take the step from φ."""
        move = newton_move(problem, theta, phi, self.linear_solver)

        def pull(v: Array) -> tuple[Array, Cost, Any]:
            linear = self.linear_solver(move.operator, v)
            status = worst_status(move.linear, linear)
            # Where A is not positive definite φ is near no minimum, and there is no derivative to speak of.
            saddle = (status_codes(status) == Status.INDEFINITE.code)[..., None]
            g = problem.lam_like(phi)[..., None] * linear.value
            return namespace(g).where(saddle, namespace(g).full_like(g, float("nan")), g), linear.cost, status

        return Taken(move.value, pull, move.linear.cost + Cost(gradients=1), move.linear)


@dataclass(frozen=True)
class OneStepGradient:
    r"""One-step ("Jacobian-free") differentiation of an inner step T taken at φ.

    .. math:: \varphi^+ = T(\varphi, \theta), \qquad
              g = \Bigl(\frac{\partial T}{\partial \theta}(\varphi, \theta)\Bigr)^{\!\top}
              \nabla L_{\mathrm{test}}(\varphi^+)

    with φ held constant. After a gradient step that is αλ∇L_test(φ⁺): the first-order gradient times αλ. After a
    Newton step it is λA(φ)⁻¹∇L_test(φ⁺): exact on quadratic train losses whatever φ is, and first order in ‖φ − φ*‖
    otherwise (`SuperEfficientGradient` takes A at φ⁺ and is second order). The faster T contracts, the better: at φ*
    the error is at most q times the exact Jacobian's norm times ‖∇L_test‖ if T contracts by q.

    Parameters
    ----------
    step : InnerStep
        `GradientStep(step_size)` or `NewtonStep(linear_solver)`.

    Notes
    -----
    Where the linear solver of a Newton step finds A(φ) not positive definite the value is NaN and the status
    `INDEFINITE`. A gradient step asks for no curvature, and a saddle goes unnoticed.

    References
    ----------
    Bolte, Pauwels, Vaiter, One-step differentiation of iterative algorithms, 2023, arXiv:2305.13768; Fung et al.,
    JFB: Jacobian-free backpropagation for implicit networks, 2022, arXiv:2103.12803.
    """

    step: InnerStep = field(default_factory=GradientStep)
    card: ClassVar[Card] = Card(
        "2 gradients (Newton step: and 2 linear solves)",
        "O(d) (Newton step: as the linear solver)",
        "αλ instead of λA⁻¹: does not vanish (Newton step: O(‖φ − φ*‖), 0 on quadratics)",
        "the step contracts slowly: gradient steps at κ ≫ 1",
        saddle="Newton step: as implicit; gradient step: does not look",
    )

    def __post_init__(self) -> None:
        border.strategy("step", self.step, "NewtonStep()")

    @property
    def label(self) -> str:
        """Short name for legends."""
        return "one Newton step" if isinstance(self.step, NewtonStep) else "one step"

    def __call__(self, problem: BilevelProblem, theta: Array, inner: Solution[Any]) -> Estimate:
        """Return the derivative of one step from `inner.value`."""
        expect_solution(inner)
        taken = self.step(problem, theta, inner.value)
        gradient, cost, status = taken.pull(problem.outer.gradient(taken.value))
        stages = [stage for stage in (inner, taken.status, status) if stage is not None]
        total = inner.cost + taken.cost + cost + Cost(gradients=1)
        return Estimate(gradient, inner, None, total, worst_status(*stages))
