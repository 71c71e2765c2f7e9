"""Maps F(φ, θ) whose root in φ defines φ*(θ): value and products with both partial Jacobians."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from implicit_grad.backend import Array
from implicit_grad.errors import ArgumentTypeError
from implicit_grad.results import Cost

Product = Callable[[Array], Array]


@dataclass(frozen=True, eq=False)
class LinearizedMap:
    """F at one point (φ, θ): its value and its two partial Jacobians, known by their products.

    Attributes
    ----------
    value : (..., d) array
        F(φ, θ).
    phi_product, phi_adjoint : callable
        v ↦ ∂_φF v and u ↦ (∂_φF)ᵀ u, `(..., d) → (..., d)`.
    theta_product : callable
        w ↦ ∂_θF w, `(..., p) → (..., d)`.
    theta_adjoint : callable
        u ↦ (∂_θF)ᵀ u, `(..., d) → (..., p)`.
    stacks : bool
        Whether the products in φ take further leading axes before those of the batch, all at once.
    row : callable, optional
        `index → LinearizedMap` of one problem.
    selection : Cost
        What taking a row costs that problem; nothing where it is linearised already.
    curvature : bool
        Whether F is known to be the gradient in φ of what is minimised: ∂_φF is then symmetric, and positive definite
        at a strict minimum.
    """

    value: Array
    phi_product: Product
    phi_adjoint: Product
    theta_product: Product
    theta_adjoint: Product
    stacks: bool = False
    row: Callable[[tuple[int, ...]], LinearizedMap] | None = None
    selection: Cost = field(default_factory=Cost)
    curvature: bool = False


@runtime_checkable
class StationarityMap(Protocol):
    """A differentiable map F: φ (..., d), θ (..., p) → (..., d); leading axes are independent problems.

    ∂_φF must be invertible at the root; it is symmetric where F is a gradient, and need not be. The optional
    attribute `batch_shape` names the leading axes of what the map holds.
    """

    def value(self, phi: Array, theta: Array) -> Array:
        """Return F(φ, θ): `(..., d)`."""
        ...

    def linearize(self, phi: Array, theta: Array) -> LinearizedMap:
        """Return value and products at (φ, θ), sharing what they can."""
        ...


@dataclass(frozen=True, eq=False)
class FixedPoint:
    r"""The map whose roots are the fixed points of Φ.

    .. math:: F(\varphi, \theta) = \varphi - \Phi(\varphi, \theta), \qquad
              \frac{\mathrm d\varphi^*}{\mathrm d\theta} = (I - \partial_\varphi\Phi)^{-1}\,\partial_\theta\Phi

    Parameters
    ----------
    update : StationarityMap
        Φ, such as `AutodiffMap(lambda phi, theta: ...)`. One whose ∂_φΦ has no eigenvalue 1 will do; it need not be a
        contraction.

    Raises
    ------
    ArgumentTypeError
        If `update` is no map.
    """

    update: StationarityMap

    def __post_init__(self) -> None:
        check_map("update", self.update)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Leading axes of what Φ holds."""
        return tuple(getattr(self.update, "batch_shape", ()))

    def value(self, phi: Array, theta: Array) -> Array:
        """Return φ − Φ(φ, θ): `(..., d)`."""
        return phi - self.update.value(phi, theta)

    def linearize(self, phi: Array, theta: Array) -> LinearizedMap:
        """Return value and products at (φ, θ)."""
        return _minus(phi, self.update.linearize(phi, theta))


def _minus(phi: Array, at: LinearizedMap) -> LinearizedMap:
    row = at.row
    return LinearizedMap(
        phi - at.value,
        lambda v: v - at.phi_product(v),
        lambda u: u - at.phi_adjoint(u),
        lambda w: -at.theta_product(w),
        lambda u: -at.theta_adjoint(u),
        at.stacks,
        None if row is None else lambda index: _minus(phi[index], row(index)),
        at.selection,
    )


def check_map(name: str, value: Any) -> None:
    """Refuse what is no `StationarityMap`.

    Raises
    ------
    ArgumentTypeError
        With a hint for plain functions.
    """
    if isinstance(value, type) or not isinstance(value, StationarityMap):
        hint = "; wrap a plain function in AutodiffMap(...)" if callable(value) else ""
        raise ArgumentTypeError(
            f"{name}: expected a map with value(phi, theta) and linearize, got {type(value).__name__}{hint}"
        )
