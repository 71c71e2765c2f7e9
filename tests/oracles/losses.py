"""Losses for tests: a quadratic with a prescribed spectrum, a loss times a number, and one that counts its calls."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from implicit_grad import Linearization


@dataclass(frozen=True, eq=False)
class Diagonal:
    """½ xᵀ diag(h) x − cᵀx, convex or not; h and c may carry batch axes."""

    h: Any
    c: Any = 0.0

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return np.broadcast_shapes(np.shape(self.h), np.shape(self.c))[:-1]

    def select(self, index: tuple[int, ...], batch_shape: tuple[int, ...]) -> Diagonal:
        full = (*batch_shape, np.shape(self.h)[-1])
        return Diagonal(np.broadcast_to(self.h, full)[index], np.broadcast_to(self.c, full)[index])

    def value(self, x: Any) -> Any:
        return 0.5 * (self.h * x * x).sum(-1) - (self.c * x).sum(-1)

    def gradient(self, x: Any) -> Any:
        return self.h * x - self.c

    def linearize(self, x: Any) -> Linearization:
        return Linearization(self.value(x), self.gradient(x), lambda v: self.h * v)


@dataclass(frozen=True, eq=False)
class Scaled:
    """factor · loss."""

    loss: Any
    factor: float

    def value(self, x: Any) -> Any:
        return self.factor * self.loss.value(x)

    def gradient(self, x: Any) -> Any:
        return self.factor * self.loss.gradient(x)

    def linearize(self, x: Any) -> Linearization:
        at = self.loss.linearize(x)
        return Linearization(self.factor * at.value, self.factor * at.gradient, lambda v: self.factor * at.hvp(v))


class Counting:
    """A loss that counts for how many parameter vectors it was asked; rows selected from it count on."""

    def __init__(self, loss: Any, calls: Counter[str] | None = None) -> None:
        self.loss, self.calls = loss, Counter() if calls is None else calls

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.loss, name)
        # The loss of a minibatch counts on.
        return (lambda rows: Counting(found(rows), self.calls)) if name == "minibatch" else found

    def _count(self, what: str, *shapes: tuple[int, ...]) -> None:
        batch = getattr(self.loss, "batch_shape", ())
        self.calls[what] += int(np.prod(np.broadcast_shapes(batch, *shapes)))

    def value(self, x: Any) -> Any:
        self._count("values", x.shape[:-1])
        return self.loss.value(x)

    def gradient(self, x: Any) -> Any:
        self._count("gradients", x.shape[:-1])
        return self.loss.gradient(x)

    def linearize(self, x: Any) -> Linearization:
        return self._counted(self.loss.linearize(x), x)

    def linearize_gauss_newton(self, x: Any) -> Linearization:
        return self._counted(self.loss.linearize_gauss_newton(x), x)

    def _counted(self, at: Linearization, x: Any) -> Linearization:
        self._count("gradients", x.shape[:-1])

        def hvp(v: Any) -> Any:
            self._count("hvps", x.shape[:-1], v.shape[:-1])
            return at.hvp(v)

        def hessian() -> Any:
            self._count("hessians", x.shape[:-1])
            return at.hessian()

        return replace(at, hvp=hvp, hessian=None if at.hessian is None else hessian)

    def select(self, index: tuple[int, ...], batch_shape: tuple[int, ...]) -> Counting:
        return Counting(self.loss.select(index, batch_shape), self.calls)
