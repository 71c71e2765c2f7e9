"""The one thing every floor above sees of a loss: value, gradient and cheap Hessian-vector products."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from implicit_grad.backend import Array, namespace
from implicit_grad.errors import ArgumentError


class LowRank(Protocol):
    """F (r, d) with H = FᵀF, one per problem of the batch; known by its products, never as an array."""

    @property
    def rank(self) -> int:
        """Number r of rows."""
        ...

    def apply(self, v: Array) -> Array:
        """Return F v: `(..., d) → (..., r)`."""
        ...

    def adjoint(self, w: Array) -> Array:
        """Return Fᵀ w: `(..., r) → (..., d)`."""
        ...

    def gram(self) -> Array:
        """Return F Fᵀ: `(..., r, r)`."""
        ...


@dataclass(frozen=True, eq=False)
class Linearization:
    """A loss linearised at one point x.

    Attributes
    ----------
    value : (...) array
        f(x).
    gradient : (..., d) array
        ∇f(x).
    hvp : callable
        v ↦ ∇²f(x) v. `v` may carry further leading axes before those of x; all of them go through at once.
    hessian : callable, optional
        Assembles ∇²f(x) `(..., d, d)` from the loss's structure, where that is cheaper than d products.
    factor : LowRank, optional
        F with ∇²f(x) = FᵀF and few rows, for losses linear in their parameters.
    """

    value: Array
    gradient: Array
    hvp: Callable[[Array], Array]
    hessian: Callable[[], Array] | None = None
    factor: LowRank | None = None


@runtime_checkable
class SmoothFunction(Protocol):
    """A twice differentiable loss `(..., d) → (...)`; leading axes are independent problems.

    Optional attributes are used where present: `size` (d), `batch_shape`, `dtype`,
    `select(index, batch_shape)` (one problem's loss), `curvature_bound()` (a global bound of λ_max(∇²f)) and
    `gradient_terms(x)` (norm of the sums of |summands| of ∇f(x): eps times it is what rounding leaves of a zero).
    A mean over samples may offer `n_samples` and `minibatch(indices)`, the mean over some of them, and
    `linearize_gauss_newton(x)`, whose products are those of the Gauss–Newton matrix.
    """

    def value(self, x: Array) -> Array:
        """Return f(x): `(...)`."""
        ...

    def gradient(self, x: Array) -> Array:
        """Return ∇f(x): `(..., d)`."""
        ...

    def linearize(self, x: Array) -> Linearization:
        """Return value, gradient and HVP at x, sharing one forward and backward pass."""
        ...


def take_row(array: Array, index: tuple[int, ...], batch_shape: tuple[int, ...], core: int) -> Array:
    """Return the entry of one problem of an array whose last `core` axes belong to a problem.

    The leading axes broadcast against `batch_shape`, as everywhere.
    """
    own = array.shape[: array.ndim - core]
    trailing = index[len(batch_shape) - len(own) :] if own else ()
    return array[(*(0 if size == 1 else i for i, size in zip(trailing, own, strict=True)), ...)]


def check_size(x: Array, size: int, owner: Any) -> None:
    """Refuse parameter vectors of another length, or of another backend than the data.

    Raises
    ------
    ArgumentError
        With both lengths.
    BackendError
        With both backends.
    """
    namespace(x, getattr(owner, "X", None))
    if x.ndim < 1 or x.shape[-1] != size:
        raise ArgumentError(
            f"parameters: {type(owner).__name__} expects vectors (..., {size}), got shape {tuple(x.shape)}"
        )
