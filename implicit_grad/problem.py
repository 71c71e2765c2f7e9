"""The bilevel problem: a train loss with a proximal term, and a test loss at its minimum."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from implicit_grad import border
from implicit_grad.backend import Array, broadcast_shapes, device_of, dot, expand, namespace, norm
from implicit_grad.errors import ArgumentError, ArgumentTypeError
from implicit_grad.linear.operator import Operator
from implicit_grad.objectives import Autodiff, Linearization, SmoothFunction
from implicit_grad.results import Cost


@dataclass(frozen=True, eq=False)
class BilevelProblem:
    r"""Train by the inner loss near θ, test by the outer loss.

    .. math:: G(\varphi;\theta) = L_{\mathrm{train}}(\varphi) + \tfrac{\lambda}{2}\lVert\varphi-\theta\rVert^2,
              \qquad \varphi^*(\theta) = \arg\min_\varphi G, \qquad
              F(\theta) = L_{\mathrm{test}}(\varphi^*(\theta))

    .. math:: \nabla F(\theta) = \lambda A^{-1} \nabla L_{\mathrm{test}}(\varphi^*), \qquad
              A = \nabla^2 L_{\mathrm{train}}(\varphi^*) + \lambda I

    Parameters
    ----------
    inner : SmoothFunction
        Training loss `(..., d) → (...)`. Its Hessian enters A.
    outer : SmoothFunction
        Test loss. Its gradient is the right-hand side.
    lam : float or (...) array
        λ > 0, one number or one per problem; it broadcasts against the batch: with tasks `(T,)`, a `(L, 1)`
        array makes the batch `(L, T)`.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        For λ ≤ 0, NaN, infinite, complex or textual, and for losses of different size or dtype.

    References
    ----------
    Rajeswaran, Finn, Kakade, Levine, Meta-learning with implicit gradients, NeurIPS 2019, arXiv:1909.04630.
    """

    inner: SmoothFunction
    outer: SmoothFunction
    lam: Any
    _moved_lam: dict[tuple[str, str], Array] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("inner", "outer"):
            loss = getattr(self, name)
            if not isinstance(loss, SmoothFunction):
                hint = "; wrap a plain function in Autodiff(...)" if callable(loss) else ""
                raise ArgumentTypeError(
                    f"{name}: expected a loss with value, gradient and linearize, got {type(loss).__name__}{hint}"
                )
        object.__setattr__(self, "lam", border.positive("lam", self.lam))
        for what in ("size", "dtype"):
            first, second = getattr(self.inner, what, None), getattr(self.outer, what, None)
            if first is not None and second is not None and first != second:
                raise ArgumentError(f"outer: {what} {second} does not fit the inner loss's {what} {first}")
        try:
            _ = self.batch_shape
        except ValueError:
            shapes = [getattr(loss, "batch_shape", ()) for loss in (self.inner, self.outer)]
            raise ArgumentError(
                f"lam: shape {tuple(self.lam.shape)} and the losses' batch axes {shapes} do not broadcast"
            ) from None

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Leading axes known before θ: those of the data and of λ."""
        shapes = [getattr(loss, "batch_shape", ()) for loss in (self.inner, self.outer)]
        return broadcast_shapes(tuple(self.lam.shape), *shapes)

    def parameters(self, theta: Any, name: str = "theta") -> Array:
        """Check θ and give it every batch axis: a fresh `(..., d)` array.

        Raises
        ------
        ArgumentError, ArgumentTypeError
            If it is not finite, or of another length, dtype or batch than the losses; or if λ leaves the range of
        that dtype.
        """
        theta = border.vector(name, theta)
        for loss in (self.inner, self.outer):
            size, dtype = getattr(loss, "size", None), getattr(loss, "dtype", None)
            if size is not None and size != theta.shape[-1]:
                raise ArgumentError(
                    f"{name}: {type(loss).__name__} has {size} parameters, got shape {tuple(theta.shape)}"
                )
            if dtype is not None and (type(dtype) is not type(theta.dtype) or dtype != theta.dtype):
                raise ArgumentTypeError(
                    f"{name}: dtype {theta.dtype} mixed with data of dtype {dtype}; cast one of them"
                )
        try:
            shape = broadcast_shapes(self.batch_shape, tuple(theta.shape[:-1]))
        except ValueError:
            raise ArgumentError(
                f"{name}: shape {tuple(theta.shape)} does not broadcast with the batch {self.batch_shape}"
            ) from None
        self._check_range(theta)
        return expand(theta, (*shape, theta.shape[-1]))

    def _check_range(self, theta: Array) -> None:
        """Refuse a λ that is 0 or infinite in the dtype of θ, or with which λ(φ − θ) can overflow."""
        xp = namespace(theta)
        with np.errstate(over="ignore", under="ignore"):
            lam = self.lam_like(theta)
            pull = lam * (2 * norm(theta))
        if not bool(xp.all(lam > 0) & xp.all(xp.isfinite(pull))):
            raise ArgumentError(
                f"lam: λ or λ·‖θ‖ leaves the range of {theta.dtype}; it is lost to rounding beside the loss, or "
                f"the loss beside it"
            )

    def lam_like(self, x: Array) -> Array:
        """λ as an array in the namespace and dtype of x, without the vector axis: `(...)`."""
        # λ from the host goes where x is; λ from a device belongs with arrays of that device only.
        xp = namespace(x, None if device_of(self.lam) is None else self.lam)
        if xp is np:
            return np.asarray(self.lam, dtype=x.dtype)
        # Moved to a device once: a loop must not send it again at every step.
        place = (xp.__name__, str(x.dtype))
        if place not in self._moved_lam:
            self._moved_lam[place] = xp.asarray(self.lam, dtype=x.dtype)
        return self._moved_lam[place]

    def value(self, phi: Array, theta: Array) -> Array:
        """Return G(φ; θ): `(...)`."""
        step = phi - theta
        return self.inner.value(phi) + 0.5 * self.lam_like(phi) * dot(step, step)

    def stationarity(self, phi: Array, theta: Array) -> Array:
        """Return ∇_φ G(φ; θ) = ∇L_train(φ) + λ(φ − θ): `(..., d)`."""
        return self.inner.gradient(phi) + self.lam_like(phi)[..., None] * (phi - theta)

    def curvature(self, phi: Array) -> Operator:
        """Return A(φ): v ↦ ∇²L_train(φ) v + λ v, linearised once."""
        return self.operator(self.inner.linearize(phi), phi)

    def operator(self, linearization: Linearization, phi: Array, *, proximal: bool = True) -> Operator:
        """Return v ↦ H v + λ v (or H v alone) from a linearisation at φ."""
        lam = self.lam_like(phi)
        shape = broadcast_shapes(tuple(phi.shape[:-1]), tuple(linearization.gradient.shape[:-1]))
        if proximal:
            shape = broadcast_shapes(shape, tuple(lam.shape))

        def apply(v: Array) -> Array:
            Hv = linearization.hvp(v)
            return Hv + lam[..., None] * v if proximal else Hv

        def selector(index: tuple[int, ...]) -> Operator:
            own = index[len(index) - (phi.ndim - 1) :] if phi.ndim > 1 else ()
            point = phi[tuple(0 if n == 1 else i for i, n in zip(own, phi.shape[:-1], strict=True))]
            one = self.select(index, shape)
            return one.operator(one.inner.linearize(point), point, proximal=proximal)

        shift = lam if proximal else namespace(phi).zeros_like(lam)
        assemble = None
        if linearization.hessian is not None:
            assemble = partial(_plus_diagonal, linearization.hessian, shift)
        largest = getattr(self.inner, "curvature_bound", None)
        return Operator(
            apply,
            shape,
            int(phi.shape[-1]),
            phi,
            stacks=True,
            selector=selector,
            selection=Cost(gradients=1),
            shift=shift,
            assemble=assemble,
            factor=linearization.factor,
            bound=None if largest is None else lambda: largest() + shift,
            curvature=proximal,
        )

    def select(self, index: tuple[int, ...], batch_shape: tuple[int, ...]) -> BilevelProblem:
        """Return one problem of a batch of shape `batch_shape`."""
        lam = namespace(self.lam).broadcast_to(self.lam, batch_shape)[index]
        return BilevelProblem(
            select_loss(self.inner, index, batch_shape), select_loss(self.outer, index, batch_shape), lam
        )

    def with_lam(self, lam: Any) -> BilevelProblem:
        """Return the same losses under another λ."""
        return replace(self, lam=lam)

    def on_tree(self, unflatten: Callable[[Any], Any]) -> BilevelProblem:
        """Return the problem of the flat vector, for losses written for a parameter tree."""
        losses = [
            loss.on_tree(unflatten) if isinstance(loss, Autodiff) else loss for loss in (self.inner, self.outer)
        ]
        return BilevelProblem(losses[0], losses[1], self.lam)


def expect_problem(problem: Any) -> None:
    """Refuse what is no bilevel problem.

    Raises
    ------
    ArgumentTypeError
        Naming the type that came.
    """
    if not isinstance(problem, BilevelProblem):
        raise ArgumentTypeError(f"problem: expected a BilevelProblem, got {type(problem).__name__}")


def _plus_diagonal(hessian: Callable[[], Array], shift: Array) -> Array:
    """Return H + σI."""
    H = hessian()
    xp = namespace(H)
    return H + shift[..., None, None] * xp.eye(H.shape[-1], dtype=H.dtype)


@dataclass(frozen=True, eq=False)
class _Row:
    """One problem of a loss that only knows its whole batch: right, but as dear as the batch.

    Leading axes of x are several points of the one problem; the loss gets each of them as its whole batch, of shape
    `within`, which is no batch of this problem.
    """

    loss: SmoothFunction
    index: tuple[int, ...]
    within: tuple[int, ...]

    def _whole(self, x: Array) -> Array:
        lead, ones = tuple(x.shape[:-1]), (1,) * len(self.within)
        xp, d = namespace(x), x.shape[-1]
        return xp.broadcast_to(xp.reshape(x, (*lead, *ones, d)), (*lead, *self.within, d))

    def _own(self, values: Array) -> Array:
        return values[(..., *self.index)]

    def _own_rows(self, vectors: Array) -> Array:
        return vectors[(..., *self.index, slice(None))]

    def value(self, x: Array) -> Array:
        """Return the row's value."""
        return self._own(self.loss.value(self._whole(x)))

    def gradient(self, x: Array) -> Array:
        """Return the row's gradient."""
        return self._own_rows(self.loss.gradient(self._whole(x)))

    def linearize(self, x: Array) -> Linearization:
        """Return the row's linearisation."""
        whole = self.loss.linearize(self._whole(x))

        def hvp(v: Array) -> Array:
            if v.ndim > x.ndim:
                return namespace(v).stack([hvp(each) for each in v])
            return self._own_rows(whole.hvp(self._whole(v)))

        return Linearization(self._own(whole.value), self._own_rows(whole.gradient), hvp)

    def select(self, index: tuple[int, ...], batch_shape: tuple[int, ...]) -> _Row:
        """Return itself: the same function for every problem of a batch of points."""
        return self


def select_loss(loss: Any, index: tuple[int, ...], batch_shape: tuple[int, ...]) -> SmoothFunction:
    """Return one problem's loss, by the loss's own `select` where it has one."""
    select = getattr(loss, "select", None)
    one = select(index, batch_shape) if select is not None else NotImplemented
    return _Row(loss, index, batch_shape) if one is NotImplemented else one
