"""The losses a third time, from their definitions and in any arithmetic.

One fully connected network covers them all: least squares and softmax regression are one layer without a bias.
Nothing here is shared with the losses that are checked but the data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from implicit_grad.errors import ArgumentTypeError
from implicit_grad.objectives import LeastSquares, MultilayerPerceptron, SoftmaxCrossEntropy, Softplus, Tanh
from implicit_grad.reference._arithmetic import Arithmetic

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Activation:
    """σ, σ' and σ'' of an array."""

    value: Callable[[Array], Array]
    slopes: Callable[[Array], tuple[Array, Array]]


class ReferenceLoss:
    """One problem's loss on parameters in the given arithmetic.

    Parameters
    ----------
    name : str
        Of the argument, for messages.
    loss : LeastSquares, SoftmaxCrossEntropy or MultilayerPerceptron
        With `Tanh` or `Softplus`; one problem.
    arithmetic : Arithmetic

    Raises
    ------
    ArgumentTypeError
        For any other loss.
    """

    def __init__(self, name: str, loss: Any, arithmetic: Arithmetic) -> None:
        widths, self.bias, kind, classes = _shape(name, loss)
        self.widths, self.size = widths, _size(widths, self.bias)
        self.R, self.activation = arithmetic, _activation(arithmetic, kind)
        self.X, self.n = arithmetic.exact(loss.X), int(loss.X.shape[0])
        self.classes = classes is not None
        target = loss.labels if isinstance(loss, SoftmaxCrossEntropy) else loss.y
        if classes is not None:
            self.target = np.eye(classes, dtype=int)[np.asarray(target)].astype(object)
        else:
            self.target = arithmetic.exact(np.asarray(target).reshape(self.n, -1))
        if self.classes and self.X.dtype != object:
            self.target = self.target.astype(self.X.dtype)

    def value(self, x: Array) -> Any:
        """Return L(x)."""
        z = self._forward(x)[1][-1]
        if not self.classes:
            return ((z - self.target) ** 2).sum() / (2 * self.n)
        shift = _shift(z)
        terms = self.R.log(self.R.exp(z - shift).sum(axis=1)) - ((z - shift) * self.target).sum(axis=1)
        return terms.sum() / self.n

    def gradient(self, x: Array) -> Array:
        """Return ∇L(x): `(d,)`."""
        inputs, z, weights = self._forward(x)
        delta = self._output_slope(z[-1])[0]
        return self._pull(inputs, z, weights, delta)

    def product(self, x: Array) -> Callable[[Array], Array]:
        """Return v ↦ ∇²L(x) v: the gradient's forward and backward pass, differentiated along v."""
        inputs, z, weights = self._forward(x)
        delta, curve = self._output_slope(z[-1])
        slopes = [self.activation.slopes(each) for each in z[:-1]]
        deltas = [delta]
        for W, (slope, _) in zip(weights[:0:-1], slopes[::-1], strict=True):
            deltas.insert(0, self.R.matmul(deltas[0], W.T) * slope)

        def product(v: Array) -> Array:
            tangents = self._layers(v)
            da: Array | None = None
            moves: list[tuple[Array | None, Array]] = []
            for depth, (V, c) in enumerate(tangents):
                dz = self.R.matmul(inputs[depth], V)
                if c is not None:
                    dz = dz + c
                if da is not None:
                    dz = dz + self.R.matmul(da, weights[depth])
                moves.append((da, dz))
                if depth + 1 < len(tangents):
                    da = slopes[depth][0] * dz
            change = curve(moves[-1][1])
            parts: list[Array] = []
            for depth in reversed(range(len(tangents))):
                da = moves[depth][0]
                block = self.R.matmul(inputs[depth].T, change)
                if da is not None:
                    block = block + self.R.matmul(da.T, deltas[depth])
                parts[:0] = [block.ravel(), change.sum(axis=0)] if self.bias else [block.ravel()]
                if depth:
                    slope, bend = slopes[depth - 1]
                    pulled = self.R.matmul(deltas[depth], weights[depth].T)
                    moved = self.R.matmul(change, weights[depth].T)
                    moved = moved + self.R.matmul(deltas[depth], tangents[depth][0].T)
                    change = moved * slope + pulled * bend * moves[depth - 1][1]
            return np.concatenate(parts)

        return product

    def hessian(self, x: Array) -> Array:
        """Return ∇²L(x), column by column: `(d, d)`."""
        product, basis = self.product(x), self.R.exact(np.eye(self.size))
        return np.stack([product(e) for e in basis], axis=1)

    def _forward(self, x: Array) -> tuple[list[Array], list[Array], list[Array]]:
        inputs, outputs, weights = [self.X], [], []
        for depth, (W, c) in enumerate(self._layers(x)):
            z = self.R.matmul(inputs[-1], W)
            outputs.append(z if c is None else z + c)
            weights.append(W)
            if depth + 2 < len(self.widths):
                inputs.append(self.activation.value(outputs[-1]))
        return inputs, outputs, weights

    def _pull(self, inputs: list[Array], z: list[Array], weights: list[Array], delta: Array) -> Array:
        parts: list[Array] = []
        for depth in reversed(range(len(weights))):
            block = self.R.matmul(inputs[depth].T, delta).ravel()
            parts[:0] = [block, delta.sum(axis=0)] if self.bias else [block]
            if depth:
                delta = self.R.matmul(delta, weights[depth].T) * self.activation.slopes(z[depth - 1])[0]
        return np.concatenate(parts)

    def _output_slope(self, z: Array) -> tuple[Array, Callable[[Array], Array]]:
        """∂L/∂z, and R ↦ (∂²L/∂z²) R."""
        if not self.classes:
            return (z - self.target) / self.n, lambda move: move / self.n
        weights = self.R.exp(z - _shift(z))
        p = weights / weights.sum(axis=1)[:, None]

        def curve(move: Array) -> Array:
            return p * (move - (p * move).sum(axis=1)[:, None]) / self.n

        return (p - self.target) / self.n, curve

    def _layers(self, x: Array) -> list[tuple[Array, Array | None]]:
        layers, start = [], 0
        for fan_in, fan_out in pairwise(self.widths):
            W = x[start : start + fan_in * fan_out].reshape(fan_in, fan_out)
            start += fan_in * fan_out
            layers.append((W, x[start : start + fan_out] if self.bias else None))
            start += fan_out if self.bias else 0
        return layers


def _shift(z: Array) -> Any:
    """What is taken off the logits: nothing where exponents have no limit."""
    return z.max(axis=1)[:, None] if z.dtype != object else 0


def _size(widths: tuple[int, ...], bias: bool) -> int:
    return sum((fan_in + bias) * fan_out for fan_in, fan_out in pairwise(widths))


def _shape(name: str, loss: Any) -> tuple[tuple[int, ...], bool, Any, int | None]:
    """Layer widths, whether there are biases, the activation, and the number of classes."""
    if isinstance(loss, LeastSquares):
        return (int(loss.X.shape[-1]), 1), False, None, None
    if isinstance(loss, SoftmaxCrossEntropy):
        return (int(loss.X.shape[-1]), loss.n_classes), False, None, loss.n_classes
    if isinstance(loss, MultilayerPerceptron) and type(loss.activation) in (Tanh, Softplus):
        return loss.widths, True, loss.activation, loss.n_classes
    activation = getattr(loss, "activation", None)
    got = type(loss).__name__ + (f" with {activation!r}" if activation is not None else "")
    raise ArgumentTypeError(
        f"{name}: a reference needs a loss whose definition is known: LeastSquares, SoftmaxCrossEntropy, or "
        f"MultilayerPerceptron with Tanh or Softplus; got {got}"
    )


def _activation(R: Arithmetic, kind: Any) -> Activation:
    def logistic(z: Array) -> Array:
        return 1 / (1 + R.exp(-z))

    def tanh(z: Array) -> Array:
        # z stands once: an enclosure of the argument is not counted twice.
        return 1 - 2 / (1 + R.exp(2 * z))

    def tanh_slopes(z: Array) -> tuple[Array, Array]:
        a = tanh(z)
        return 1 - a * a, -2 * a * (1 - a * a)

    def softplus_slopes(z: Array) -> tuple[Array, Array]:
        s = logistic(z)
        return s, s * (1 - s)

    if isinstance(kind, Softplus):
        return Activation(lambda z: R.log(1 + R.exp(z)), softplus_slopes)
    return Activation(tanh, tanh_slopes)
