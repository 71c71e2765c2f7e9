"""A bilevel problem with any separable regulariser in place of λ/2 ‖φ − θ‖²."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from implicit_grad import border
from implicit_grad.backend import Array, broadcast_shapes, namespace
from implicit_grad.errors import ArgumentError, ArgumentTypeError
from implicit_grad.objectives import Linearization, SmoothFunction
from implicit_grad.objectives.stationarity import LinearizedMap
from implicit_grad.problem import BilevelProblem, select_loss
from implicit_grad.regularizers import DiagonalQuadratic, Quadratic, Regularizer
from implicit_grad.results import Cost


@dataclass(frozen=True, eq=False)
class RegularizedProblem:
    r"""Train by the inner loss, held to θ by a regulariser; a `StationarityMap`.

    .. math:: F(\varphi, \theta) = \nabla L_{\mathrm{train}}(\varphi) + \partial_\varphi R(\varphi, \theta) = 0,
              \qquad g = C\,(H + D)^{-1}\,\nabla L_{\mathrm{test}}(\varphi^*)

    with the diagonals :math:`D = \partial^2 R/\partial\varphi^2` and
    :math:`C = -\partial^2 R/\partial\varphi\,\partial\theta`. For `Quadratic(lam)` it is `BilevelProblem`.

    Parameters
    ----------
    inner, outer : SmoothFunction
        Training and test loss.
    regularizer : Regularizer
        `Quadratic(lam)`, `DiagonalQuadratic(weights)`, `LogCosh(lam)`, `PseudoHuber(lam)`, `RelativeEntropy(lam)`, or
        any object with their five methods.

    Raises
    ------
    ArgumentTypeError
        For what is no loss and no regulariser.

    Examples
    --------
    >>> import numpy as np
    >>> from implicit_grad import Cholesky, ImplicitFunction, LeastSquares, NewtonRoot
    >>> train, test = LeastSquares(np.eye(2), np.array([1.0, 2.0])), LeastSquares(np.eye(2), np.zeros(2))
    >>> problem = RegularizedProblem(train, test, DiagonalQuadratic([1.5, 0.5]))
    >>> theta = np.zeros(2)
    >>> phi = NewtonRoot(linear_solver=Cholesky())(problem, theta, theta)
    >>> phi.value                                            # H = ½I: φ* = (H + Λ)⁻¹ (½y + Λθ)
    array([0.25, 1.  ])
    >>> ImplicitFunction(problem, Cholesky()).gradient(phi, theta, test).unwrap()      # Λ (H + Λ)⁻¹ ½φ*
    array([0.09375, 0.25   ])
    """

    inner: SmoothFunction
    outer: SmoothFunction
    regularizer: Regularizer

    def __post_init__(self) -> None:
        BilevelProblem(self.inner, self.outer, 1.0)  # checks the losses
        if isinstance(self.regularizer, type) or not isinstance(self.regularizer, Regularizer):
            raise ArgumentTypeError(f"regularizer: expected a value such as Quadratic(0.5), got {self.regularizer!r}")
        size, weights = getattr(self.inner, "size", None), getattr(self.regularizer, "weights", None)
        if size is not None and weights is not None and weights.shape[-1] not in (1, size):
            raise ArgumentError(f"regularizer: {weights.shape[-1]} weights for {size} parameters")
        try:
            _ = self.batch_shape
        except ValueError:
            parts = (self.inner, self.outer, self.regularizer)
            shapes = [tuple(getattr(part, "batch_shape", ())) for part in parts]
            raise ArgumentError(f"regularizer: the batch axes of losses and λ, {shapes}, do not broadcast") from None

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Leading axes of the data and of λ."""
        parts = (self.inner, self.outer, self.regularizer)
        return broadcast_shapes(*(tuple(getattr(part, "batch_shape", ())) for part in parts))

    def objective(self, phi: Array, theta: Array) -> Array:
        """Return G(φ; θ) = L_train(φ) + R(φ, θ): `(...)`."""
        return self.inner.value(phi) + self.regularizer.value(phi, theta)

    def value(self, phi: Array, theta: Array) -> Array:
        """Return F(φ, θ) = ∂_φ G: `(..., d)`."""
        return self.inner.gradient(phi) + self.regularizer.gradient(phi, theta)

    def linearize(self, phi: Array, theta: Array) -> LinearizedMap:
        """Return F with its products: ∂_φF = H + D is symmetric, ∂_θF = −C is diagonal."""
        at, penalty = self.inner.linearize(phi), self.regularizer
        value = at.gradient + penalty.gradient(phi, theta)
        xp, shape = namespace(value), tuple(value.shape)
        phi = xp.broadcast_to(phi, shape)
        D = xp.broadcast_to(penalty.curvature(phi, theta), shape)
        C = xp.broadcast_to(penalty.coupling(phi, theta), shape)

        def row(index: tuple[int, ...]) -> LinearizedMap:
            one = select_loss(self.inner, index, shape[:-1]).linearize(phi[index])
            return _with_diagonals(one, value[index], D[index], C[index])

        return replace(_with_diagonals(at, value, D, C), row=row, selection=Cost(gradients=1))

    def whitened(self) -> tuple[BilevelProblem, Array]:
        r"""Return an equivalent problem with λ = 1, and s = √Λ, for every inner solver and estimator there is.

        .. math:: \psi = s\varphi, \quad \eta = s\theta: \qquad
                  L(\psi/s) + \tfrac12\lVert\psi - \eta\rVert^2, \qquad g = s\, g_\eta

        Call it as `s * method(problem, s * theta).gradient`. The curvature becomes Λ^{−½}HΛ^{−½} + I: a
        preconditioner, free of charge. Tolerances and residuals are in the units of ψ, and what an iteration leaves
        of an entry of g_η is multiplied by its s.

        Raises
        ------
        ArgumentTypeError
            For regularisers that are not quadratic.
        """
        if isinstance(self.regularizer, Quadratic):
            weights = self.regularizer.lam[..., None]
        elif isinstance(self.regularizer, DiagonalQuadratic):
            weights = self.regularizer.weights
        else:
            raise ArgumentTypeError(
                f"regularizer: {type(self.regularizer).__name__} is not quadratic; use ImplicitFunction(problem)"
            )
        scale = namespace(weights).sqrt(weights)
        return BilevelProblem(Stretched(self.inner, scale), Stretched(self.outer, scale), 1.0), scale


def _with_diagonals(at: Linearization, value: Array, D: Array, C: Array) -> LinearizedMap:
    def curved(v: Array) -> Array:
        return at.hvp(v) + D * v

    def coupled(w: Array) -> Array:
        return -C * w

    return LinearizedMap(value, curved, curved, coupled, coupled, stacks=True, curvature=True)


@dataclass(frozen=True, eq=False)
class Stretched:
    """A loss in other units: ψ ↦ f(ψ/s), one s a parameter.

    Parameters
    ----------
    loss : SmoothFunction
    scale : (..., d) array
        s > 0.
    """

    loss: SmoothFunction
    scale: Array

    def __post_init__(self) -> None:
        if not isinstance(self.loss, SmoothFunction):
            raise ArgumentTypeError(f"loss: expected a SmoothFunction, got {type(self.loss).__name__}")
        scale = border.positive("scale", self.scale)
        size = getattr(self.loss, "size", None)
        if scale.ndim < 1 or (size is not None and scale.shape[-1] not in (1, size)):
            raise ArgumentError(f"scale: expected shape (..., {size or 'd'}), got {tuple(scale.shape)}")
        object.__setattr__(self, "scale", scale)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Leading axes of the data and of the scale."""
        return broadcast_shapes(getattr(self.loss, "batch_shape", ()), tuple(self.scale.shape[:-1]))

    @property
    def size(self) -> Any:
        """Number of parameters, where the loss knows it."""
        return getattr(self.loss, "size", None)

    @property
    def dtype(self) -> Any:
        """Floating point type, where the loss knows it."""
        return getattr(self.loss, "dtype", None)

    @property
    def curvature_bound(self) -> Callable[[], Array]:
        """Bound of λ_max of the Hessian: that of the loss over the smallest s²."""
        bound: Callable[[], Array] = self.loss.curvature_bound  # type: ignore[attr-defined]
        return lambda: bound() / namespace(self.scale).min(self.scale, axis=-1) ** 2

    def _scale(self, x: Array) -> Array:
        return namespace(x).asarray(self.scale, dtype=x.dtype)

    def value(self, x: Array) -> Array:
        """Return f(x/s): `(...)`."""
        return self.loss.value(x / self._scale(x))

    def gradient(self, x: Array) -> Array:
        """Return ∇f(x/s)/s: `(..., d)`."""
        return self.loss.gradient(x / self._scale(x)) / self._scale(x)

    def linearize(self, x: Array) -> Linearization:
        """Linearise f at x/s."""
        s = self._scale(x)
        at = self.loss.linearize(x / s)
        return replace(at, gradient=at.gradient / s, hvp=lambda v: at.hvp(v / s) / s, hessian=None, factor=None)

    def select(self, index: tuple[int, ...], batch_shape: tuple[int, ...]) -> Stretched:
        """Return the loss of one problem of the batch."""
        xp = namespace(self.scale)
        scale = xp.broadcast_to(self.scale, (*batch_shape, self.scale.shape[-1]))[index]
        return Stretched(select_loss(self.loss, index, batch_shape), scale)
