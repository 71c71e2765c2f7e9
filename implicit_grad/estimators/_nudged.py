"""The train loss nudged by the test loss: what contrastive estimators minimise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from implicit_grad.backend import Array, broadcast_shapes, namespace
from implicit_grad.objectives import Linearization, SmoothFunction
from implicit_grad.problem import select_loss


@dataclass(frozen=True, eq=False)
class Nudged:
    """L_train + s·L_test for one strength s a problem; every call asks each of the two losses once.

    What the losses can do together this sum can: optional attributes are there where both have them.
    """

    train: SmoothFunction
    test: SmoothFunction
    strength: Array

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Leading axes of the strengths and of the data."""
        shapes = [getattr(loss, "batch_shape", ()) for loss in (self.train, self.test)]
        return broadcast_shapes(tuple(self.strength.shape), *shapes)

    @property
    def size(self) -> Any:
        """Number of parameters, where a loss knows it."""
        return getattr(self.train, "size", getattr(self.test, "size", None))

    @property
    def dtype(self) -> Any:
        """Floating point type, where a loss knows it."""
        return getattr(self.train, "dtype", getattr(self.test, "dtype", None))

    @property
    def curvature_bound(self) -> Callable[[], Array]:
        """Bound of λ_max of the Hessian, for either sign of s."""
        train, test = self.train.curvature_bound, self.test.curvature_bound  # type: ignore[attr-defined]
        return lambda: train() + abs(self.strength) * test()

    @property
    def gradient_terms(self) -> Callable[[Array], Array]:
        """Size of the terms that cancel in the gradient."""
        train, test = self.train.gradient_terms, self.test.gradient_terms  # type: ignore[attr-defined]
        return lambda x: train(x) + abs(self.strength) * test(x)

    def value(self, x: Array) -> Array:
        """Return the sum's value: `(...)`."""
        return self.train.value(x) + self.strength * self.test.value(x)

    def gradient(self, x: Array) -> Array:
        """Return the sum's gradient: `(..., d)`."""
        return self.train.gradient(x) + self.strength[..., None] * self.test.gradient(x)

    def linearize(self, x: Array) -> Linearization:
        """Linearise both losses at x."""
        train, test, s = self.train.linearize(x), self.test.linearize(x), self.strength

        def hvp(v: Array) -> Array:
            return train.hvp(v) + s[..., None] * test.hvp(v)

        assembled = train.hessian, test.hessian
        return Linearization(
            train.value + s * test.value,
            train.gradient + s[..., None] * test.gradient,
            hvp,
            None if None in assembled else lambda: assembled[0]() + s[..., None, None] * assembled[1](),  # type: ignore[misc]
        )

    def select(self, index: tuple[int, ...], batch_shape: tuple[int, ...]) -> Nudged:
        """Return the sum of one problem of the batch."""
        strength = namespace(self.strength).broadcast_to(self.strength, batch_shape)[index]
        return Nudged(
            select_loss(self.train, index, batch_shape),
            select_loss(self.test, index, batch_shape),
            namespace(self.strength).asarray(strength),
        )
