"""The implicit gradient with the Gauss–Newton matrix in the place of the Hessian."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from implicit_grad import border
from implicit_grad.backend import Array
from implicit_grad.errors import ArgumentTypeError
from implicit_grad.estimators.implicit import ImplicitGradient
from implicit_grad.linear import CG, LinearSolver
from implicit_grad.objectives import Linearization
from implicit_grad.problem import BilevelProblem, select_loss
from implicit_grad.results import Card, Estimate, Solution, expect_solution


@dataclass(frozen=True)
class GaussNewtonGradient:
    r"""iMAML's formula with B = Jᵀ(∂²L/∂z²)J for the Hessian, z the outputs of the model and J their Jacobian.

    .. math:: g = \lambda\, q, \qquad \bigl(B(\varphi) + \lambda I\bigr)\, q = \nabla L_{\mathrm{test}}(\varphi)

    B leaves out Σᵢ (∂L/∂zᵢ)·∇²zᵢ. It is positive semidefinite, so that g exists at any φ and λ > 0, saddles included,
    and every CG iterate of it descends along ∇L_test; that φ is a saddle of the problem itself cannot show. It is the
    Hessian for models linear in their parameters, and where every sample is fitted exactly.

    Parameters
    ----------
    linear_solver : LinearSolver
        `CG(k)` or `Cholesky()`.

    Raises
    ------
    ArgumentTypeError
        When called on a train loss without `linearize_gauss_newton`: `LeastSquares`, `SoftmaxCrossEntropy` and
        `MultilayerPerceptron` have it.

    Notes
    -----
    A product costs about what a Hessian-vector product does, and is counted as one. `Estimate.linear` is the solve
    with B + λI.

    References
    ----------
    Schraudolph, Fast curvature matrix-vector products for second-order gradient descent, 2002.
    """

    linear_solver: LinearSolver = field(default_factory=lambda: CG(10))
    card: ClassVar[Card] = Card(
        "as implicit, with Gauss–Newton products",
        "as implicit",
        "‖B − H‖‖g‖/λ at most: does not vanish",
        "the network bends and its errors are large: B is not H even at φ*",
        saddle="does not look: B ⪰ 0 everywhere",
    )

    def __post_init__(self) -> None:
        border.strategy("linear_solver", self.linear_solver, "CG(5)")

    @property
    def label(self) -> str:
        """Short name for legends."""
        return f"Gauss–Newton, {getattr(self.linear_solver, 'label', repr(self.linear_solver))}"

    def __call__(self, problem: BilevelProblem, theta: Array, inner: Solution[Any]) -> Estimate:
        """Return the estimate at `inner.value`."""
        expect_solution(inner)
        if not hasattr(problem.inner, "linearize_gauss_newton"):
            raise ArgumentTypeError(
                f"problem: the Gauss–Newton matrix needs a train loss with linearize_gauss_newton, such as "
                f"MultilayerPerceptron; got {type(problem.inner).__name__}"
            )
        flattened = replace(problem, inner=_GaussNewton(problem.inner))
        return ImplicitGradient(self.linear_solver)(flattened, theta, inner)


@dataclass(frozen=True, eq=False)
class _GaussNewton:
    """A loss whose linearisation has the products of its Gauss–Newton matrix."""

    loss: Any

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Leading axes of the data."""
        return getattr(self.loss, "batch_shape", ())

    def value(self, x: Array) -> Array:
        """Return f(x)."""
        return self.loss.value(x)

    def gradient(self, x: Array) -> Array:
        """Return ∇f(x)."""
        return self.loss.gradient(x)

    def linearize(self, x: Array) -> Linearization:
        """Return value, gradient and Gauss–Newton products."""
        return self.loss.linearize_gauss_newton(x)

    def select(self, index: tuple[int, ...], batch_shape: tuple[int, ...]) -> _GaussNewton:
        """Return the loss of one problem of the batch."""
        return _GaussNewton(select_loss(self.loss, index, batch_shape))
