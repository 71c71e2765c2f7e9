"""The closed-form losses once more, on complex parameters: analytic, written from their definitions.

The losses themselves are for real arrays, checked as such and laid out for speed; some of what makes them fast
(conjugating inner products, absolute values) is not analytic. Nothing here calls them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from implicit_grad.errors import ArgumentTypeError
from implicit_grad.objectives import LeastSquares, MultilayerPerceptron, SoftmaxCrossEntropy, Softplus, Tanh

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class ComplexLoss:
    """L as a function of complex parameters `(..., d)`.

    Attributes
    ----------
    outputs : callable
        x → z, with a function that pulls ∂L/∂z back to the parameters.
    head : callable
        z → L and ∂L/∂z.
    """

    outputs: Callable[[Array], tuple[Array, Callable[[Array], Array]]]
    head: Callable[[Array], tuple[Array, Array]]

    def value(self, x: Array) -> Array:
        """Return L(x): `(...)`."""
        return self.head(self.outputs(x)[0])[0]

    def gradient(self, x: Array) -> Array:
        """Return ∂L/∂x, without conjugation: `(..., d)`."""
        z, pull = self.outputs(x)
        return pull(self.head(z)[1])


def complex_loss(name: str, loss: Any) -> ComplexLoss:
    """Return the analytic continuation of a closed-form loss.

    Raises
    ------
    ArgumentTypeError
        For any other loss, and for activations other than `Tanh` and `Softplus`.
    """
    X, activation = getattr(loss, "X", None), getattr(loss, "activation", None)
    if not isinstance(loss, LeastSquares | SoftmaxCrossEntropy | MultilayerPerceptron) or (
        isinstance(loss, MultilayerPerceptron) and type(activation) not in (Tanh, Softplus)
    ):
        got = type(loss).__name__ if activation is None else f"{type(loss).__name__} with {activation!r}"
        raise ArgumentTypeError(
            f"{name}: complex steps need a loss whose analytic continuation is known: LeastSquares, "
            f"SoftmaxCrossEntropy, or MultilayerPerceptron with Tanh or Softplus; got {got}"
        )
    if not isinstance(X, np.ndarray):
        raise ArgumentTypeError(f"{name}: complex steps are taken on NumPy arrays only, got {type(X).__name__}")
    if isinstance(loss, LeastSquares):
        return ComplexLoss(_layers((X.shape[-1], 1), X, None, bias=False), _squares(loss.y[..., None]))
    if isinstance(loss, SoftmaxCrossEntropy):
        widths = (X.shape[-1], loss.n_classes)
        return ComplexLoss(_layers(widths, X, None, bias=False), _cross_entropy(loss.labels, loss.n_classes))
    if loss.n_classes is not None:
        head = _cross_entropy(loss.y, loss.n_classes)
    else:
        head = _squares(loss.y[..., None] if loss.n_outputs == 1 else loss.y)
    return ComplexLoss(_layers(loss.widths, X, _tanh if isinstance(activation, Tanh) else _softplus, bias=True), head)


def _tanh(z: Array) -> tuple[Array, Array]:
    a = np.tanh(z)
    return a, 1 - a * a


def _softplus(z: Array) -> tuple[Array, Array]:
    # The real part alone chooses the branch; both are the same analytic function.
    right = z.real > 0
    a = np.where(right, z, 0) + np.log1p(np.exp(np.where(right, -z, z)))
    return a, 0.5 * (1 + np.tanh(0.5 * z))


def _layers(widths: tuple[int, ...], X: Array, activation: Any, *, bias: bool) -> Any:
    """Outputs of a fully connected network with layers W (in, out) row-major, then b."""

    def outputs(x: Array) -> tuple[Array, Callable[[Array], Array]]:
        inputs, slopes, weights = [X], [], []
        start = 0
        for depth, (fan_in, fan_out) in enumerate(pairwise(widths)):
            stop = start + fan_in * fan_out
            W = x[..., start:stop].reshape(*x.shape[:-1], fan_in, fan_out)
            z = inputs[-1] @ W
            if bias:
                start, stop = stop, stop + fan_out
                z = z + x[..., None, start:stop]
            start = stop
            weights.append(W)
            if depth + 2 < len(widths):
                a, slope = activation(z)
                inputs.append(a)
                slopes.append(slope)

        def pull(delta: Array) -> Array:
            parts: list[Array] = []
            for depth in reversed(range(len(weights))):
                product = np.swapaxes(inputs[depth], -1, -2) @ delta
                block = [product.reshape(*product.shape[:-2], product.shape[-2] * product.shape[-1])]
                parts[:0] = [*block, delta.sum(axis=-2)] if bias else block
                if depth:
                    delta = (delta @ np.swapaxes(weights[depth], -1, -2)) * slopes[depth - 1]
            return np.concatenate(parts, axis=-1)

        return z, pull

    return outputs


def _squares(target: Array) -> Callable[[Array], tuple[Array, Array]]:
    def head(z: Array) -> tuple[Array, Array]:
        residual = z - target
        return 0.5 * (residual * residual).sum(axis=(-2, -1)) / z.shape[-2], residual / z.shape[-2]

    return head


def _cross_entropy(labels: Array, n_classes: int) -> Callable[[Array], tuple[Array, Array]]:
    target = np.eye(n_classes)[labels]

    def head(z: Array) -> tuple[Array, Array]:
        # A real shift leaves the function analytic.
        moved = z - z.real.max(axis=-1, keepdims=True)
        weights = np.exp(moved)
        total = weights.sum(axis=-1, keepdims=True)
        value = (np.log(total[..., 0]) - (target * moved).sum(axis=-1)).sum(axis=-1) / z.shape[-2]
        return value, (weights / total - target) / z.shape[-2]

    return head
