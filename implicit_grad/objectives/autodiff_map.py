"""Both partial Jacobians of any map F(φ, θ) by HIPS autograd."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from autograd import make_vjp
from autograd.tracer import getval, isbox

from implicit_grad import border
from implicit_grad.backend import Array, broadcast_shapes, device_of, namespace
from implicit_grad.errors import ArgumentTypeError, LossError
from implicit_grad.objectives.autodiff import make_known, naming_the_function
from implicit_grad.objectives.stationarity import LinearizedMap, Product

INDEPENDENT = "F does not depend on theta: every derivative by theta is zero"


@dataclass(frozen=True, eq=False)
class AutodiffMap:
    """A map F(φ, θ) written with `autograd.numpy`, with products of ∂_φF, ∂_θF and of their transposes.

    Products with a transpose are vector-Jacobian products of F. The plain ones are vjps of those in their cotangent,
    in which they are linear: no rule of forward mode is needed. F is evaluated once for each argument that products
    are asked of, however many there are.

    Parameters
    ----------
    F : callable
        `F(phi, theta)` of one problem, φ `(d,)` and θ `(p,)`, returns a real vector `(d,)`.
    broadcasts : bool
        With True, F takes `(..., d)` and `(..., p)` to `(..., d)` and is called once for the whole batch; row i of
        the result must depend on rows i of the arguments only. With False a batch is a loop.

    Raises
    ------
    LossError
        When evaluated, if F returns anything but a real array of the shape of φ.

    Warns
    -----
    UserWarning
        If F does not depend on θ: all derivatives of φ* are zero.

    Examples
    --------
    >>> import autograd.numpy as anp
    >>> at = AutodiffMap(lambda phi, theta: theta[0] * phi**2 - theta).linearize(np.array([1.0]), np.array([3.0]))
    >>> at.phi_product(np.array([1.0])), at.theta_adjoint(np.array([1.0]))
    (array([6.]), array([0.]))
    """

    F: Callable[[Any, Any], Any]
    broadcasts: bool = False

    def __post_init__(self) -> None:
        if not callable(self.F):
            raise ArgumentTypeError(f"F: expected a callable map, got {type(self.F).__name__}")
        border.flag("broadcasts", self.broadcasts)

    def value(self, phi: Array, theta: Array) -> Array:
        """Return F(φ, θ): `(..., d)`."""
        phi, theta = _together(phi, theta)
        if self.broadcasts:
            return _owned(self._checked(_frozen(phi), _frozen(theta)), phi)
        indices = np.ndindex(phi.shape[:-1])
        return _joined([self._checked(_frozen(phi[index]), _frozen(theta[index])) for index in indices], phi)

    def linearize(self, phi: Array, theta: Array) -> LinearizedMap:
        """Return value and products at (φ, θ)."""
        phi, theta = _together(phi, theta)
        if self.broadcasts or phi.ndim == 1:
            return _Traced(self._checked, phi, theta).linearized()
        rows = np.empty(phi.shape[:-1], dtype=object)
        for index in np.ndindex(rows.shape):
            rows[index] = _Traced(self._checked, phi[index], theta[index]).linearized()

        def each(name: str) -> Product:
            def apply(v: Array) -> Array:
                parts = [getattr(rows[index], name)(v[index]) for index in np.ndindex(rows.shape)]
                xp = namespace(v)
                return xp.reshape(xp.stack(parts, axis=0), (*rows.shape, parts[0].shape[-1]))

            return apply

        value = _joined([row.value for row in rows.flat], phi)
        return LinearizedMap(
            value,
            each("phi_product"),
            each("phi_adjoint"),
            each("theta_product"),
            each("theta_adjoint"),
            row=lambda index: rows[index],
        )

    def _checked(self, phi: Any, theta: Any) -> Any:
        place = getval(phi)
        with naming_the_function("F", place):
            value = self.F(phi, theta)
        raw, wanted, device = getval(value), tuple(place.shape), device_of(place)
        same = isinstance(raw, np.ndarray) if device is None else device_of(raw) is device
        if not same or raw.dtype.kind not in "fiu":
            raise LossError(f"F: expected a real array of the shape of phi, {wanted}, got {raw!r}")
        if raw.shape != wanted:
            raise LossError(
                f"F: returned shape {raw.shape} where {wanted} was expected: as many equations as unknowns"
            )
        return value


class _Traced:
    """One evaluation of F by tracing, an argument at a time and only when it is asked for."""

    def __init__(self, F: Callable[[Any, Any], Any], phi: Array, theta: Array) -> None:
        self.F, self.phi, self.theta = F, _frozen(phi), _frozen(theta)
        self.phi_pull, value = _pull(lambda p: F(p, self.theta), self.phi)
        self.value = _owned(value, phi)

    @cached_property
    def phi_push(self) -> Product:
        return _pull(self.phi_pull, namespace(self.value).zeros_like(self.value))[0]

    @cached_property
    def theta_pull(self) -> Product:
        depends = False

        def traced(t: Any) -> Any:
            nonlocal depends
            value = self.F(self.phi, t)
            depends |= isbox(value)
            return value

        pull = _pull(traced, self.theta)[0]
        if not depends:
            warnings.warn(INDEPENDENT, UserWarning, stacklevel=3)
        return pull

    @cached_property
    def theta_push(self) -> Product:
        return _pull(self.theta_pull, namespace(self.value).zeros_like(self.value))[0]

    def linearized(self) -> LinearizedMap:
        phi, theta = self.phi, self.theta
        return LinearizedMap(
            self.value,
            lambda v: _shaped(self.phi_push(v), phi),
            lambda u: _shaped(self.phi_pull(u), phi),
            lambda w: _shaped(self.theta_push(w), phi),
            lambda u: _shaped(self.theta_pull(u), theta),
        )


def _pull(f: Callable[[Any], Any], x: Any) -> tuple[Product, Any]:
    with warnings.catch_warnings():
        # A map that does not depend on one of its arguments has a zero Jacobian there.
        warnings.filterwarnings("ignore", "Output seems independent of input", UserWarning)
        pull, value = make_vjp(f)(x)
    return pull, value


def _shaped(result: Any, like: Array) -> Array:
    if tuple(result.shape) != tuple(like.shape):
        # autograd's rule of `where` does not sum over broadcast axes.
        raise LossError(
            f"F: autograd returned a product of shape {np.shape(result)} where {like.shape} was expected; broadcast "
            "the arguments of `where` before calling it"
        )
    return namespace(like).asarray(result, dtype=like.dtype)


def _owned(value: Any, like: Array) -> Array:
    """What F returned, in the precision of φ and as nobody else's."""
    return namespace(like).array(value, dtype=like.dtype, copy=True)


def _joined(rows: list[Any], like: Array) -> Array:
    xp = namespace(like)
    return xp.reshape(xp.stack([_owned(row, like) for row in rows], axis=0), like.shape)


def _frozen(x: Array) -> Array:
    if (device := device_of(x)) is not None:
        return device.xp.array(x, copy=True)
    view = x.view()
    view.flags.writeable = False
    return view


def _together(phi: Array, theta: Array) -> tuple[Array, Array]:
    """Give both every batch axis."""
    for name, x in (("phi", phi), ("theta", theta)):
        make_known(x)
        if not isinstance(x, np.ndarray) and device_of(x) is None:
            raise ArgumentTypeError(f"{name}: AutodiffMap differentiates NumPy arrays, got {type(x).__name__}")
    xp, shape = namespace(phi, theta), broadcast_shapes(phi.shape[:-1], theta.shape[:-1])
    return xp.broadcast_to(phi, (*shape, phi.shape[-1])), xp.broadcast_to(theta, (*shape, theta.shape[-1]))
