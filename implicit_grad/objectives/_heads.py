"""Output losses over n samples: what stands between a model's outputs and one number.

A head knows its value, δ = ∂L/∂z and the curvature product R ↦ (∂²L/∂z²) R, all for outputs z (..., n, m).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from implicit_grad.backend import Array, dot, namespace

_FEW_CLASSES = 32


@dataclass(frozen=True, eq=False)
class SquaredErrorHead:
    """½·mean over samples of ‖z − y‖²; target (..., n, m)."""

    target: Array

    def value(self, z: Array) -> Array:
        """Return the loss: `(..., n, m) → (...)`."""
        xp = namespace(z)
        residual = z - self.target
        return 0.5 * xp.sum(residual * residual, axis=(-2, -1)) / z.shape[-2]

    def linearize(self, z: Array) -> tuple[Array, Array, None]:
        """Return loss, δ = (z − y)/n and no extra state: the curvature is 1/n."""
        xp = namespace(z)
        residual = z - self.target
        value = 0.5 * xp.sum(residual * residual, axis=(-2, -1)) / z.shape[-2]
        return value, residual / z.shape[-2], None

    def delta_terms(self, z: Array, z_terms: Array) -> Array:
        """Return the size of the terms of δ = (z − y)/n, given those of z."""
        return (z_terms + namespace(z).abs(self.target)) / z.shape[-2]

    def curve(self, state: None, tangent: Array) -> Array:
        """Return R/n."""
        return tangent / tangent.shape[-2]


@dataclass(frozen=True, eq=False)
class CrossEntropyHead:
    """Mean cross-entropy of softmax(z); target one-hot (..., n, C)."""

    target: Array

    def _shifted(self, z: Array) -> tuple[Array, Array, Array]:
        # Subtracting the largest logit keeps exp in (0, 1]: finite for logits of ±1e4 and beyond.
        xp = namespace(z)
        shifted = z - _largest(z)[..., None]
        weights = xp.exp(shifted)
        return shifted, weights, _total(weights)

    def _mean(self, z: Array, shifted: Array, total: Array) -> Array:
        xp = namespace(z)
        return xp.sum(xp.log(total) - dot(self.target, shifted), axis=-1) / z.shape[-2]

    def value(self, z: Array) -> Array:
        """Return the loss: `(..., n, C) → (...)`."""
        shifted, _, total = self._shifted(z)
        return self._mean(z, shifted, total)

    def linearize(self, z: Array) -> tuple[Array, Array, Any]:
        """Return loss, δ = (p − y)/n and, for `curve`, p with the weights of its largest entries."""
        xp = namespace(z)
        shifted, weights, total = self._shifted(z)
        p = weights / total[..., None]
        peak = xp.astype(shifted == 0, p.dtype)
        state = (p, peak / _total(peak)[..., None])
        return self._mean(z, shifted, total), (p - self.target) / z.shape[-2], state

    def delta_terms(self, z: Array, z_terms: Array) -> Array:
        """Return the size of the terms of δ = (p − y)/n, given those of z: an error in z moves p by p times it."""
        _, weights, total = self._shifted(z)
        p = weights / total[..., None]
        return (p * (1 + z_terms) + self.target) / z.shape[-2]

    def curve(self, state: Any, tangent: Array) -> Array:
        """Return (diag(p) − p pᵀ) R / n, row by row.

        diag(p) − p pᵀ does not see a constant added to R. Taking away R at the most probable class first leaves
        nothing to cancel where p is nearly an indicator, and the small curvature keeps its digits.
        """
        p, peak = state
        moved = tangent - dot(peak, tangent)[..., None]
        moved -= dot(p, moved)[..., None]
        moved *= p / tangent.shape[-2]
        return moved


def _largest(z: Array) -> Array:
    """Largest over the last axis: class by class where there are few, several times faster than a short reduction."""
    xp = namespace(z)
    if z.shape[-1] > _FEW_CLASSES:
        return xp.max(z, axis=-1)
    largest = z[..., 0]
    for c in range(1, z.shape[-1]):
        largest = xp.maximum(largest, z[..., c])
    return largest


def _total(z: Array) -> Array:
    """Sum over the last axis, as a product with ones: BLAS is faster than a short reduction."""
    return z @ namespace(z).ones(z.shape[-1], dtype=z.dtype)


Head = SquaredErrorHead | CrossEntropyHead


def one_hot(labels: Array, n_classes: int, like: Array) -> Array:
    """Return (..., n, C) indicator rows in the dtype of `like`."""
    xp = namespace(labels, like)
    return xp.astype(labels[..., None] == xp.arange(n_classes), like.dtype)
