"""Losses to state laws with: sums, turned coordinates, linear functions, and quadratics that need not be convex."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from implicit_grad.objectives import Linearization


@dataclass(frozen=True, eq=False)
class Combination:
    """Σ wᵢ fᵢ + constant."""

    parts: tuple[tuple[float, Any], ...]
    constant: float = 0.0

    def value(self, x: Any) -> Any:
        """Return the value."""
        return sum(w * f.value(x) for w, f in self.parts) + self.constant

    def gradient(self, x: Any) -> Any:
        """Return the gradient."""
        return sum(w * f.gradient(x) for w, f in self.parts)

    def gradient_terms(self, x: Any) -> Any:
        """Return the norm of the sums of |summands| of the gradient."""
        return sum(abs(w) * f.gradient_terms(x) for w, f in self.parts)

    def linearize(self, x: Any) -> Linearization:
        """Return the linearisation."""
        lines = [(w, f.linearize(x)) for w, f in self.parts]
        return Linearization(
            sum(w * line.value for w, line in lines) + self.constant,
            sum(w * line.gradient for w, line in lines),
            lambda v: sum(w * line.hvp(v) for w, line in lines),
        )


@dataclass(frozen=True, eq=False)
class Turned:
    """ψ ↦ f(Qψ) for an orthogonal Q."""

    f: Any
    Q: Any

    def value(self, x: Any) -> Any:
        """Return the value."""
        return self.f.value(x @ self.Q.T)

    def gradient(self, x: Any) -> Any:
        """Return the gradient."""
        return self.f.gradient(x @ self.Q.T) @ self.Q

    def gradient_terms(self, x: Any) -> Any:
        """Return the norm of the sums of |summands| of the gradient."""
        return self.f.gradient_terms(x @ self.Q.T)

    def linearize(self, x: Any) -> Linearization:
        """Return the linearisation."""
        line = self.f.linearize(x @ self.Q.T)
        return Linearization(line.value, line.gradient @ self.Q, lambda v: line.hvp(v @ self.Q.T) @ self.Q)


@dataclass(frozen=True, eq=False)
class Linear:
    """x ↦ cᵀx."""

    c: Any

    def value(self, x: Any) -> Any:
        """Return the value."""
        return x @ self.c

    def gradient(self, x: Any) -> Any:
        """Return the gradient."""
        return np.broadcast_to(self.c, x.shape)

    def linearize(self, x: Any) -> Linearization:
        """Return the linearisation."""
        return Linearization(self.value(x), self.gradient(x), np.zeros_like)


@dataclass(frozen=True, eq=False)
class Diagonal:
    """½ xᵀ diag(h) x − cᵀx, convex or not; h and c may carry batch axes."""

    h: Any
    c: Any = 0.0

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Leading axes of h and c."""
        return np.broadcast_shapes(np.shape(self.h), np.shape(self.c))[:-1]

    def select(self, index: tuple[int, ...], batch_shape: tuple[int, ...]) -> Diagonal:
        """Return one problem's loss."""
        full = (*batch_shape, np.shape(self.h)[-1])
        return Diagonal(np.broadcast_to(self.h, full)[index], np.broadcast_to(self.c, full)[index])

    def value(self, x: Any) -> Any:
        """Return the value."""
        return 0.5 * (self.h * x * x).sum(-1) - (self.c * x).sum(-1)

    def gradient(self, x: Any) -> Any:
        """Return the gradient."""
        return self.h * x - self.c

    def linearize(self, x: Any) -> Linearization:
        """Return the linearisation."""
        return Linearization(self.value(x), self.gradient(x), lambda v: self.h * v)
