"""Meta-gradients in 50-digit arithmetic, from the definitions and nothing else.

Every loss is written out as plain sums over lists of `mpf`. Fifty digits leave more than thirty for conditioning,
so the numbers settle any dispute in float64. Hessians are central differences of the gradient with h = 1e-16: at
this precision both their errors, h² and 1e-50/h, are near 1e-32, and no second derivative is written down twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import mpmath

MP = mpmath.MPContext()
"""A context of its own: the precision of other users of mpmath stays as it is."""
MP.dps = 50

Vector = list[Any]
_STEP = MP.mpf(10) ** -16
_ZERO = MP.mpf(10) ** -44


class Loss(Protocol):
    """A loss with its gradient."""

    def value(self, x: Vector) -> Any: ...

    def gradient(self, x: Vector) -> Vector: ...


def exactly(values: Any) -> Any:
    """Turn nested floats into `mpf`, without rounding."""
    if hasattr(values, "__len__"):
        return [exactly(v) for v in values]
    return values if isinstance(values, MP.mpf) else MP.mpf(float(values))


def norm(x: Vector) -> Any:
    """Euclidean norm."""
    return MP.sqrt(MP.fsum(x, squared=True))


def relative_error(estimate: Any, exact: Vector) -> float:
    """‖estimate − exact‖/‖exact‖, the difference taken in 50 digits."""
    return float(norm([e - x for e, x in zip(exactly(estimate), exact, strict=True)]) / norm(exact))


@dataclass(frozen=True)
class Ridge:
    """½·mean of (xᵢᵀw − yᵢ)²."""

    X: Any
    y: Any

    def _residual(self, x: Vector) -> Vector:
        return [MP.fdot(row, x) - y for row, y in zip(exactly(self.X), exactly(self.y), strict=True)]

    def value(self, x: Vector) -> Any:
        return MP.fsum(self._residual(x), squared=True) / (2 * len(self.X))

    def gradient(self, x: Vector) -> Vector:
        rows, r = exactly(self.X), self._residual(x)
        return [MP.fdot(column, r) / len(rows) for column in zip(*rows, strict=True)]

    def normal_equations(self, lam: Any, theta: Vector) -> tuple[Any, Any]:
        """A = XᵀX/n + λI and Xᵀy/n + λθ."""
        rows, y = exactly(self.X), exactly(self.y)
        columns, n = list(zip(*rows, strict=True)), len(rows)
        d = len(columns)
        A = MP.matrix(d, d)
        for i in range(d):
            for j in range(d):
                A[i, j] = MP.fdot(columns[i], columns[j]) / n + (lam if i == j else 0)
        return A, [MP.fdot(columns[i], y) / n + lam * theta[i] for i in range(d)]


@dataclass(frozen=True)
class Softmax:
    """Mean cross-entropy of softmax(XW); the parameters are W (p, C), row-major."""

    X: Any
    labels: Any
    n_classes: int

    def _logits(self, x: Vector) -> list[Vector]:
        C = self.n_classes
        return [[MP.fdot(row, x[c::C]) for c in range(C)] for row in exactly(self.X)]

    def value(self, x: Vector) -> Any:
        return MP.fsum(map(_cross_entropy, self._logits(x), self.labels)) / len(self.X)

    def gradient(self, x: Vector) -> Vector:
        C, rows = self.n_classes, exactly(self.X)
        deltas = list(map(_cross_entropy_slope, self._logits(x), self.labels))
        return [
            MP.fdot([row[k] for row in rows], [delta[c] for delta in deltas]) / len(rows)
            for k in range(len(rows[0]))
            for c in range(C)
        ]


@dataclass(frozen=True)
class Network:
    """½·mean squared error, or mean cross-entropy with `n_classes`, of a network with "tanh" or "softplus".

    The parameters run layer by layer: W (in, out) row-major, then b.
    """

    X: Any
    y: Any
    widths: Sequence[int]
    activation: str
    n_classes: int | None = None

    def value(self, x: Vector) -> Any:
        layers = self._layers(x)
        outputs = [self._forward(layers, row)[2] for row in exactly(self.X)]
        if self.n_classes is not None:
            return MP.fsum(map(_cross_entropy, outputs, self.y)) / len(self.X)
        errors = map(self._output_slope, outputs, self.y)
        return MP.fsum(MP.fsum(e, squared=True) for e in errors) / (2 * len(self.X))

    def gradient(self, x: Vector) -> Vector:
        layers = self._layers(x)
        total = [MP.mpf(0)] * len(x)
        for row, target in zip(exactly(self.X), self.y, strict=True):
            activations, slopes, z = self._forward(layers, row)
            delta = self._output_slope(z, target)
            parts: Vector = []
            for depth in reversed(range(len(layers))):
                parts[:0] = [a * d for a in activations[depth] for d in delta] + delta
                if depth:
                    delta = [
                        slope * MP.fdot(weights, delta)
                        for slope, weights in zip(slopes[depth - 1], layers[depth][0], strict=True)
                    ]
            total = [t + p for t, p in zip(total, parts, strict=True)]
        return [t / len(self.X) for t in total]

    def _forward(self, layers: Any, row: Vector) -> tuple[list[Vector], list[Vector], Vector]:
        """Inputs of each layer, slopes of each hidden layer, outputs."""
        activations, slopes, z = [row], [], row
        for depth, (W, b) in enumerate(layers):
            z = [MP.fdot(activations[-1], [w[j] for w in W]) + b[j] for j in range(len(b))]
            if depth + 1 < len(layers):
                activations.append([self._activate(each) for each in z])
                slopes.append([self._slope(each) for each in z])
        return activations, slopes, z

    def _layers(self, x: Vector) -> list[tuple[list[Vector], Vector]]:
        start, layers = 0, []
        for fan_in, fan_out in pairwise(self.widths):
            W = [x[start + i * fan_out : start + (i + 1) * fan_out] for i in range(fan_in)]
            start += fan_in * fan_out
            layers.append((W, x[start : start + fan_out]))
            start += fan_out
        return layers

    def _activate(self, z: Any) -> Any:
        return MP.tanh(z) if self.activation == "tanh" else MP.log(1 + MP.exp(z))

    def _slope(self, z: Any) -> Any:
        return 1 / MP.cosh(z) ** 2 if self.activation == "tanh" else 1 / (1 + MP.exp(-z))

    def _output_slope(self, z: Vector, target: Any) -> Vector:
        if self.n_classes is not None:
            return _cross_entropy_slope(z, target)
        targets = exactly(target if hasattr(target, "__len__") else [target])
        return [each - t for each, t in zip(z, targets, strict=True)]


def _cross_entropy(z: Vector, label: Any) -> Any:
    return MP.log(MP.fsum(MP.exp(each) for each in z)) - z[int(label)]


def _cross_entropy_slope(z: Vector, label: Any) -> Vector:
    """Softmax(z) minus the indicator of the label."""
    weights = [MP.exp(each) for each in z]
    total = MP.fsum(weights)
    return [w / total - (c == int(label)) for c, w in enumerate(weights)]


def hessian(gradient: Callable[[Vector], Vector], x: Vector) -> Any:
    """Central differences of the gradient, symmetrised."""
    d = len(x)
    H = MP.matrix(d, d)
    for j in range(d):
        ahead, behind = list(x), list(x)
        ahead[j] += _STEP
        behind[j] -= _STEP
        for i, (up, down) in enumerate(zip(gradient(ahead), gradient(behind), strict=True)):
            H[i, j] = (up - down) / (2 * _STEP)
    return (H + H.T) / 2


def minimiser(loss: Loss, lam: float, theta: Any, start: Any) -> tuple[Vector, Any]:
    """Stationary point of loss + λ/2‖· − θ‖² that Newton reaches from `start`, and the curvature A there.

    Steps are halved until ‖∇G‖ falls; `start` only chooses among several minima, if there are any.
    """
    lam, theta, x = MP.mpf(float(lam)), exactly(theta), exactly(start)

    def stationarity(point: Vector) -> Vector:
        return [g + lam * (p - t) for g, p, t in zip(loss.gradient(point), point, theta, strict=True)]

    gradient = stationarity(x)
    scale = norm(gradient) + lam * (norm(x) + norm(theta)) + norm(loss.gradient(theta))
    while True:
        A = hessian(stationarity, x)
        if norm(gradient) <= _ZERO * scale:
            return x, A
        step = MP.lu_solve(A, MP.matrix([-g for g in gradient]))
        t = MP.mpf(1)
        while True:
            trial = [a + t * s for a, s in zip(x, step, strict=True)]
            there = stationarity(trial)
            if norm(there) < norm(gradient):
                break
            t /= 2
            assert t > _ZERO, "Newton stalled: the start lies in no basin"
        x, gradient = trial, there


def meta_gradient(train: Loss, test: Loss, lam: float, theta: Any, start: Any = None) -> Vector:
    """λ A⁻¹ ∇L_test at the minimiser; ridge by its normal equations, all else by Newton."""
    if isinstance(train, Ridge):
        A, rhs = train.normal_equations(MP.mpf(float(lam)), exactly(theta))
        phi = list(MP.lu_solve(A, MP.matrix(rhs)))
    else:
        phi, A = minimiser(train, lam, theta, theta if start is None else start)
    q = MP.lu_solve(A, MP.matrix(test.gradient(phi)))
    return [MP.mpf(float(lam)) * each for each in q]
