"""Broken Hessian-vector products, losses and Ritz values, each with one fault, of published code or one slip away."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from implicit_grad.linear import extreme_eigenvalues
from implicit_grad.objectives import SoftmaxCrossEntropy
from implicit_grad.problem import BilevelProblem


def scaled_rows(loss: Any, x: Any) -> Any:
    """A diagonal weight on one side of the Hessian only."""
    hvp = loss.linearize(x).hvp
    return lambda v: hvp(v) * np.linspace(1, 2, x.size)


def in_place(loss: Any, x: Any) -> Any:
    """Uses v as scratch space."""
    hvp = loss.linearize(x).hvp

    def product(v: Any) -> Any:
        result = hvp(v)
        v *= 0.5
        return result

    return product


def long_difference(loss: Any, x: Any) -> Any:
    """Forward differences with a fixed step."""
    return lambda v: (loss.gradient(x + 1e-2 * v) - loss.gradient(x)) / 1e-2


def always_double(loss: Any, x: Any) -> Any:
    """Returns float64 whatever came in."""
    hvp = loss.linearize(x).hvp
    return lambda v: hvp(v).astype(np.float64)


def gauss_newton(loss: Any, x: Any) -> Any:
    """Drops the curvature of the network: JᵀJv/n for one regression output."""

    def outputs(z: Any) -> Any:
        return loss.outputs(z)[..., 0]

    columns = [outputs(x + 1e-30j * e).imag / 1e-30 for e in np.eye(x.size)]
    J = np.array(columns).T
    return lambda v: J.T @ (J @ v) / len(J)


def without_coupling(loss: Any, x: Any) -> Any:
    """Softmax curvature without the −p pᵀ."""
    W = x.reshape(loss.X.shape[1], loss.n_classes)
    z = loss.X @ W
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)

    def product(v: Any) -> Any:
        moved = loss.X @ v.reshape(*v.shape[:-1], *W.shape)
        return (loss.X.T @ (p * moved) / len(p)).reshape(v.shape)

    return product


def negated(loss: Any, x: Any) -> Any:
    """−H."""
    hvp = loss.linearize(x).hvp
    return lambda v: -hvp(v)


def summed(loss: Any, x: Any) -> Any:
    """The curvature of a sum over samples."""
    hvp = loss.linearize(x).hvp
    return lambda v: len(loss.X) * hvp(v)


def no_graph(loss: Any, x: Any) -> Any:
    """The gradient was detached: no second derivative at all."""
    return np.zeros_like


def doubled_lam(problem: BilevelProblem, x: Any) -> Any:
    """H + 2λI."""
    A = problem.curvature(x)
    return lambda v: A(v) + float(problem.lam) * v


class NaiveSoftmax(SoftmaxCrossEntropy):
    """exp of the bare logits."""

    def value(self, x: Any) -> Any:
        """Return the value."""
        z = self.X @ x.reshape(self.X.shape[1], self.n_classes)
        with np.errstate(over="ignore", invalid="ignore"):
            e = np.exp(z)
            return -np.mean(np.log((e / e.sum(axis=1, keepdims=True))[np.arange(len(z)), self.labels]))

    def linearize(self, x: Any) -> Any:
        """Return the linearisation."""
        return replace(super().linearize(x), value=self.value(x))


def padded_ritz(operator: Any, steps: int) -> Any:
    """Ritz values widened by a safety factor, which then bound nothing."""
    smallest, largest = extreme_eigenvalues(operator, steps)
    return smallest / 1.1, largest * 1.1
