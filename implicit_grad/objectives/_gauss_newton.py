"""Gauss–Newton products: the curvature of the output loss seen through a linearised model."""

from __future__ import annotations

from typing import Any

from implicit_grad.backend import Array
from implicit_grad.objectives._network import Forward


class GaussNewtonProduct:
    """v ↦ Jᵀ (∂²L/∂z²) J v of a network, on a stored forward pass: one tangent pass and one backward pass."""

    def __init__(self, forward: Forward, head: Any, state: Any) -> None:
        self.forward, self.head, self.state = forward, head, state
        self.slopes = [forward.derivatives(depth)[0] for depth in range(1, len(forward.matrices))]

    def outputs(self, v: Array) -> Array:
        """Return J v: `(..., n, m)`."""
        forward = self.forward
        move: Array = None
        for depth, V in enumerate(forward.layout.matrices(v)):
            turned = forward.augmented[depth] @ V
            if depth:
                turned = turned + (self.slopes[depth - 1] * move) @ forward.matrices[depth][..., :-1, :]
            move = turned
        return move

    def __call__(self, v: Array) -> Array:
        """Return the product."""
        return self.forward.gradient(self.head.curve(self.state, self.outputs(v)))
