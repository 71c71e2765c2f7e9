"""Forward, backward and tangent passes of a fully connected network, laid out for few and large matrix products.

A layer's weights and bias are adjacent in the parameter vector: W (in, out) row-major and then b (out) *are* the
(in + 1, out) matrix M = [W; b]. With a column of ones appended to the activations, one product [a, 1] M does the
affine map and one product [a, 1]ᵀ δ the gradients of weights and bias, straight into their place in the result.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from implicit_grad.backend import Array, broadcast_shapes, namespace, transpose


class Layout:
    """Where the layers' matrices M_l (in + 1, out) stand in a parameter vector."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        self.spans: list[tuple[int, int, int, int]] = []
        start = 0
        for fan_in, fan_out in pairwise(widths):
            stop = start + (fan_in + 1) * fan_out
            self.spans.append((start, stop, fan_in + 1, fan_out))
            start = stop
        self.size = start

    def matrices(self, x: Array) -> list[Array]:
        """Return the M_l of `(..., d)` parameters: views `(..., in + 1, out)` where the namespace allows."""
        reshape, batch = namespace(x).reshape, x.shape[:-1]
        return [reshape(x[..., start:stop], (*batch, rows, out)) for start, stop, rows, out in self.spans]

    def product_into(self, result: Array, layer: int, left: Array, right: Array) -> None:
        """Write leftᵀ right into the place of M_l in `result` (..., d)."""
        start, stop, rows, out = self.spans[layer]
        shape = (*result.shape[:-1], rows, out)
        if isinstance(result, np.ndarray):
            np.matmul(transpose(left), right, out=result[..., start:stop].reshape(shape))
            return
        xp = namespace(result)
        product = xp.broadcast_to(transpose(left) @ right, shape)
        result[..., start:stop] = xp.reshape(product, (*result.shape[:-1], stop - start))


def with_ones(a: Array) -> Array:
    """Append a column of ones: `(..., n, p) → (..., n, p + 1)`."""
    xp = namespace(a)
    augmented = xp.ones((*a.shape[:-1], a.shape[-1] + 1), dtype=a.dtype)
    augmented[..., :-1] = a
    return augmented


class Forward:
    """Activations [a_l, 1] and pre-activations z_l at one point."""

    def __init__(self, layout: Layout, inputs: Array, x: Array, activation: Any) -> None:
        self.layout, self.activation = layout, activation
        self.matrices = layout.matrices(x)
        self.augmented, self.z = [inputs], []
        for depth, M in enumerate(self.matrices):
            self.z.append(self.augmented[-1] @ M)
            if depth + 1 < len(self.matrices):
                self.augmented.append(with_ones(activation.value(self.z[-1])))

    def derivatives(self, depth: int) -> tuple[Array, Array]:
        """Return σ' and σ'' at z of the layer below `depth`."""
        return self.activation.derivatives(self.z[depth - 1], self.augmented[depth][..., :-1])

    def gradient(self, delta: Array) -> Array:
        """Pull δ = ∂L/∂z_L back to the parameters: `(..., d)`."""
        result = self.empty_like_parameters(delta)
        for depth in reversed(range(len(self.matrices))):
            self.layout.product_into(result, depth, self.augmented[depth], delta)
            if depth:
                delta = delta @ transpose(self.matrices[depth][..., :-1, :])
                delta *= self.derivatives(depth)[0]
        return result

    def empty_like_parameters(self, delta: Array, batch: tuple[int, ...] = ()) -> Array:
        """Uninitialised `(..., d)` with the batch of δ and of the inputs."""
        shape = broadcast_shapes(tuple(delta.shape[:-2]), tuple(self.augmented[0].shape[:-2]), batch)
        return namespace(delta).empty((*shape, self.layout.size), dtype=delta.dtype)


class Tangent:
    """v ↦ ∇²f v by Pearlmutter's R-operator on a stored forward and backward pass.

    For each inner layer two work arrays are kept, [a_l, 1; R{a_l}, 0] and [R{δ}; δ], half of each filled once: their
    product is the whole Hessian block row aᵀR{δ} + R{a}ᵀδ. They are reused by the next product, so one linearisation
    must not be applied from two threads at once.
    """

    def __init__(self, forward: Forward, head: Any, state: Any, delta: Array) -> None:
        self.forward, self.head, self.state = forward, head, state
        last = len(forward.matrices) - 1
        self.deltas: list[Array] = [delta]
        self.slopes: list[Array] = [None] * last
        self.bends: list[Array] = [None] * last
        self.weights = [M[..., :-1, :] for M in forward.matrices]
        xp = namespace(delta)
        # A copy of Wᵀ is paid for by the first product: BLAS is faster on it than on a transposed view.
        self.transposed = [None, *(xp.asarray(transpose(W), copy=True) for W in self.weights[1:])]
        self.result = forward.empty_like_parameters(delta)
        for depth in reversed(range(last + 1)):
            forward.layout.product_into(self.result, depth, forward.augmented[depth], self.deltas[0])
            if depth:
                slope, bend = forward.derivatives(depth)
                pulled = self.deltas[0] @ self.transposed[depth]
                self.slopes[depth - 1], self.bends[depth - 1] = slope, pulled * bend
                self.deltas.insert(0, pulled * slope)
        self._work: tuple[tuple[int, ...], list[Any]] | None = None

    def _work_arrays(self, batch: tuple[int, ...]) -> list[Any]:
        """Return [left, right] of every inner layer for results of this batch shape."""
        if self._work is None or self._work[0] != batch:
            xp = namespace(self.result)
            pairs: list[Any] = [None]
            for depth in range(1, len(self.deltas)):
                a, delta = self.forward.augmented[depth], self.deltas[depth]
                n = delta.shape[-2]
                left = xp.zeros((*batch, 2 * n, a.shape[-1]), dtype=a.dtype)
                right = xp.empty((*batch, 2 * n, delta.shape[-1]), dtype=a.dtype)
                left[..., :n, :] = a
                right[..., n:, :] = delta
                pairs.append((left, right))
            self._work = (batch, pairs)
        return self._work[1]

    def __call__(self, v: Array) -> Array:
        """Return ∇²f v."""
        forward = self.forward
        batch = broadcast_shapes(tuple(v.shape[:-1]), tuple(self.result.shape[:-1]))
        n = self.deltas[0].shape[-2]
        tangents, work = forward.layout.matrices(v), self._work_arrays(batch)
        moves: list[Array] = []  # R{z_l}
        for depth, V in enumerate(tangents):
            move = forward.augmented[depth] @ V
            if depth:
                left = work[depth][0]
                left[..., n:, :-1] = self.slopes[depth - 1] * moves[-1]  # R{a_l}
                move = left[..., n:, :-1] @ self.weights[depth] + move
            moves.append(move)
        change = self.head.curve(self.state, moves[-1])  # R{δ_L}
        result = namespace(v).empty((*batch, forward.layout.size), dtype=self.result.dtype)
        for depth in reversed(range(len(tangents))):
            if not depth:
                forward.layout.product_into(result, 0, forward.augmented[0], change)
                break
            left, right = work[depth]
            right[..., :n, :] = change
            forward.layout.product_into(result, depth, left, right)
            change = change @ self.transposed[depth] + self.deltas[depth] @ transpose(tangents[depth][..., :-1, :])
            change *= self.slopes[depth - 1]
            change += self.bends[depth - 1] * moves[depth - 1]
        return result
