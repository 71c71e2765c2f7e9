"""Losses for tests: a quadratic with a prescribed spectrum, a loss times a number, and one that counts its calls."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from implicit_grad import Linearization
from implicit_grad.testing.transforms import Diagonal as Diagonal


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
