"""The losses once more, as plain `autograd.numpy` code, and gradient descent written as a loop to trace through."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import autograd.numpy as anp
from autograd import grad

Loss = Callable[[Any], Any]


def least_squares(X: Any, y: Any) -> Loss:
    """½·mean of (Xw − y)²."""
    return lambda w: 0.5 * anp.mean((anp.dot(X, w) - y) ** 2)


def cross_entropy(Z: Any, labels: Any) -> Any:
    """Mean of log Σ exp z − z_label."""
    top = anp.max(Z, axis=1, keepdims=True)
    log_sums = anp.log(anp.sum(anp.exp(Z - top), axis=1)) + top[:, 0]
    return anp.mean(log_sums - Z[anp.arange(len(labels)), labels])


def softmax(X: Any, labels: Any, n_classes: int) -> Loss:
    """Cross-entropy of softmax(XW), W row-major."""
    return lambda w: cross_entropy(anp.dot(X, anp.reshape(w, (-1, n_classes))), labels)


def network(X: Any, y: Any, widths: Sequence[int], activation: str, n_classes: int | None) -> Loss:
    """½·mean squared error (summed over outputs) or cross-entropy of a network."""
    activate = anp.tanh if activation == "tanh" else lambda z: anp.logaddexp(z, 0.0)

    def loss(w: Any) -> Any:
        start, a, layers = 0, X, len(widths) - 1
        for depth, (fan_in, fan_out) in enumerate(pairwise(widths)):
            W = anp.reshape(w[start : start + fan_in * fan_out], (fan_in, fan_out))
            start += fan_in * fan_out
            z = anp.dot(a, W) + w[start : start + fan_out]
            start += fan_out
            a = activate(z) if depth + 1 < layers else z
        if n_classes is not None:
            return cross_entropy(a, y)
        return 0.5 * anp.sum((a - anp.reshape(y, a.shape)) ** 2) / len(X)

    return loss


def hessian(loss: Loss, w: Any) -> Any:
    """Dense Hessian, one reverse pass through the gradient per row."""
    slope = grad(loss)
    return anp.stack([grad(lambda x, i=i: slope(x)[i])(w) for i in range(len(w))])


def descend(
    train: Loss, lam: float, alpha: float, steps: int, start: Any, theta: Any, *, proximal: bool = True
) -> Any:
    """`steps` steps of gradient descent on train(φ) + λ/2‖φ − θ‖² (or on train alone), traceable in θ and start."""
    slope, phi = grad(train), start
    for _ in range(steps):
        pull = lam * (phi - theta) if proximal else 0.0
        phi = phi - alpha * (slope(phi) + pull)
    return phi


def unrolled(
    train: Loss,
    test: Loss,
    lam: float,
    alpha: float,
    steps: int,
    theta: Any,
    *,
    proximal: bool = True,
    window: int | None = None,
) -> Any:
    """Gradient of test(φ_K(θ)) by autograd through the loop; with a window only through its last steps."""
    first = 0 if window is None else max(0, steps - window)
    constant = descend(train, lam, alpha, first, theta, theta, proximal=proximal)

    def outer(t: Any) -> Any:
        start = t if first == 0 else constant
        return test(descend(train, lam, alpha, steps - first, start, t, proximal=proximal))

    with warnings.catch_warnings():
        # Behind a window θ may not be seen at all; then autograd returns the right zero, and warns.
        warnings.filterwarnings("ignore", "Output seems independent of input", UserWarning)
        return grad(outer)(theta)
