"""The implicit gradient: one linear solve at the inner solution."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from implicit_grad import border
from implicit_grad._deferred import replaced
from implicit_grad.backend import Array, any_of, namespace
from implicit_grad.linear import CG, LinearSolver
from implicit_grad.problem import BilevelProblem
from implicit_grad.results import Card, Cost, Estimate, Solution, expect_solution
from implicit_grad.status import Status, worst_status


@dataclass(frozen=True)
class ImplicitGradient:
    r"""iMAML's meta-gradient at an inner solution φ.

    .. math:: g = \lambda\, q, \qquad \bigl(\nabla^2 L_{\mathrm{train}}(\varphi) + \lambda I\bigr)\, q
              = \nabla L_{\mathrm{test}}(\varphi)

    The right-hand side is the *test* loss, the Hessian is of the *train* loss, both at φ (not at θ). The system
    is divided by λ only where λ² would near overflow: neither tiny nor huge λ overflow, which I + H/λ does. φ
    enters only through its value, so any inner solver will do, and the error is first order in ‖φ − φ*‖.

    Parameters
    ----------
    linear_solver : LinearSolver
        `Cholesky()` for exact inversion, `CG(k)` for the paper's k conjugate gradient steps.
    require_minimum : bool
        Where the solver found H + λI not positive definite, φ is no strict minimum and there is no
        meta-gradient: the value is NaN. With False the formal number is kept, the derivative of a stationary
        point where that is what is wanted; the status says `INDEFINITE` either way.

    Notes
    -----
    Solvers that factor A see every saddle. Krylov methods and sketches see negative curvature only in the directions
    that they multiply: a few steps may end before they meet it, and where b is orthogonal to it they never do. A
    solver of your own has to look for itself: `Operator.curvature` says that A has to be positive definite.

    References
    ----------
    Rajeswaran et al. 2019, arXiv:1909.04630, Lemma 1 and Algorithm 2.
    """

    linear_solver: LinearSolver = field(default_factory=lambda: CG(10))
    require_minimum: bool = True

    card: ClassVar[Card] = Card(
        "the linear solve + 2 gradients",
        "of the linear solver",
        "O(‖φ − φ*‖) + the linear solver's",
        "φ is far from stationary; refuses a saddle",
        saddle="NaN where the linear solver refuses it (`require_minimum=False` keeps the formal number)",
    )

    def __post_init__(self) -> None:
        border.strategy("linear_solver", self.linear_solver, "CG(5)")
        border.flag("require_minimum", self.require_minimum)

    @property
    def label(self) -> str:
        """Short name for legends."""
        return str(getattr(self.linear_solver, "label", repr(self.linear_solver)))

    def __call__(self, problem: BilevelProblem, theta: Array, inner: Solution[Any]) -> Estimate:
        """Return the estimate at `inner.value`."""
        expect_solution(inner)
        phi = inner.value
        xp = namespace(phi)
        b = problem.outer.gradient(phi)
        lam = problem.lam_like(phi)
        A, divisor = problem.curvature(phi), xp.ones_like(lam)
        limit = float(xp.finfo(phi.dtype).max) ** (1 / 3)
        # λ as it was given: mostly the host's, and then no device has to be asked.
        huge = bool(namespace(problem.lam).any(problem.lam > limit))
        if huge:
            divisor = xp.where(lam > limit, lam, divisor)
            A = A.divided(divisor)
        linear = self.linear_solver(A, b)
        factor = (lam / divisor)[..., None]
        saddle = xp.zeros_like(linear.residual_norm) != 0
        if self.require_minimum:
            saddle = linear.codes == Status.INDEFINITE.code
        nan = float("nan")

        def gradient_of(q: Array) -> Array:
            g = factor * q
            return xp.where(saddle[..., None], xp.full_like(g, nan), g) if any_of(saddle) else g

        path = linear.path
        if path is not None:
            path = replace(path, points=gradient_of(path.points))
        if huge and linear.smallest_eigenvalue is not None:  # in the units of H + λI
            linear = replaced(linear, smallest_eigenvalue=linear.smallest_eigenvalue * divisor)
        return Estimate(
            gradient=gradient_of(linear.value),
            inner=inner,
            linear=linear,
            # One linearisation of the train loss and one gradient of the test loss.
            cost=inner.cost + linear.cost + Cost(gradients=2),
            status=worst_status(inner, linear),
            path=path,
        )
