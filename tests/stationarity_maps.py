"""Maps F(φ, θ) whose root and its derivative are known by construction."""

from dataclasses import dataclass

import autograd.numpy as anp
import numpy as np

from implicit_grad import AutodiffMap
from implicit_grad.testing.matrices import orthogonal

EPS = float(np.finfo(float).eps)


@dataclass(frozen=True)
class MapSpec:
    """F(φ, θ) = A(φ − φ₀) + ½κ(φ − φ₀)² − B(θ − θ₀), κ a curvature: φ₀ is the root at θ₀, with derivative A⁻¹B."""

    size: int = 3
    inputs: int = 2
    spread: int = 1
    log10_scale: int = 0
    seed: int = 5

    def build(self):
        rng = np.random.default_rng(self.seed)
        sigma = 10.0 ** (self.log10_scale - self.spread * np.arange(self.size) / max(1, self.size - 1))
        A = (orthogonal(rng, self.size) * sigma) @ orthogonal(rng, self.size).T
        B = rng.standard_normal((self.size, self.inputs)) * 10.0**self.log10_scale
        phi, theta = rng.standard_normal(self.size), rng.standard_normal(self.inputs)
        bend = rng.standard_normal(self.size) * 10.0**self.log10_scale

        def F(p, t):
            step = p - phi
            return anp.dot(A, step) + 0.5 * bend * step**2 - anp.dot(B, t - theta)

        return AutodiffMap(F), A, B, phi, theta

    @property
    def kappa(self):
        return 10.0 ** (self.spread if self.size > 1 else 0)


def square_root(p, t):
    return p**2 - t
