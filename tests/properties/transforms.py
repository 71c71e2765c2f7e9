"""Losses made of other losses, to state invariances: sums, turned coordinates, linear functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from strategies import MlpSpec

from implicit_grad import Autodiff, Linearization


@dataclass(frozen=True, eq=False)
class Combination:
    """Σ wᵢ fᵢ + constant."""

    parts: tuple[tuple[float, Any], ...]
    constant: float = 0.0

    def value(self, x: Any) -> Any:
        return sum(w * f.value(x) for w, f in self.parts) + self.constant

    def gradient(self, x: Any) -> Any:
        return sum(w * f.gradient(x) for w, f in self.parts)

    def gradient_terms(self, x: Any) -> Any:
        return sum(abs(w) * f.gradient_terms(x) for w, f in self.parts)

    def linearize(self, x: Any) -> Linearization:
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
        return self.f.value(x @ self.Q.T)

    def gradient(self, x: Any) -> Any:
        return self.f.gradient(x @ self.Q.T) @ self.Q

    def gradient_terms(self, x: Any) -> Any:
        return self.f.gradient_terms(x @ self.Q.T)

    def linearize(self, x: Any) -> Linearization:
        line = self.f.linearize(x @ self.Q.T)
        return Linearization(line.value, line.gradient @ self.Q, lambda v: line.hvp(v @ self.Q.T) @ self.Q)


@dataclass(frozen=True, eq=False)
class Linear:
    """x ↦ cᵀx."""

    c: Any

    def value(self, x: Any) -> Any:
        return x @ self.c

    def gradient(self, x: Any) -> Any:
        return np.broadcast_to(self.c, x.shape)

    def linearize(self, x: Any) -> Linearization:
        return Linearization(self.value(x), self.gradient(x), np.zeros_like)


def traced(spec: MlpSpec, loss: Any) -> Autodiff:
    """The network's loss written with autograd.numpy: reverse over reverse against the closed form."""
    import autograd.numpy as anp

    def f(x: Any) -> Any:
        a, start = loss.X, 0
        for depth, (fan_in, fan_out) in enumerate(zip(loss.widths[:-1], loss.widths[1:], strict=True)):
            W = anp.reshape(x[start : start + fan_in * fan_out], (fan_in, fan_out))
            start += fan_in * fan_out
            z = anp.dot(a, W) + x[start : start + fan_out]
            start += fan_out
            a = z if depth + 2 == len(loss.widths) else (anp.logaddexp(0.0, z) if spec.softplus else anp.tanh(z))
        if not spec.classes:
            return 0.5 * anp.mean((a[:, 0] - loss.y) ** 2)
        top = anp.max(a, axis=1, keepdims=True)
        norms = anp.log(anp.sum(anp.exp(a - top), axis=1)) + top[:, 0]
        return anp.mean(norms - a[anp.arange(len(loss.y)), loss.y])

    return Autodiff(f)
