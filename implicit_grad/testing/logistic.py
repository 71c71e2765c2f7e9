"""Logistic regression as a loss from outside the package: the smallest class that a `BilevelProblem` takes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from implicit_grad.objectives import Linearization
from implicit_grad.testing.matrices import Array


@dataclass(frozen=True, eq=False)
class LogisticLoss:
    r"""Mean logistic loss of labels y = ±1, linear in the parameters.

    .. math:: L(w) = \tfrac1n\sum_i \log(1 + e^{-y_i x_i^\top w}), \qquad
              \nabla^2 L = \tfrac1n X^\top \mathrm{diag}(\sigma(1-\sigma)) X

    Parameters
    ----------
    X : (n, d) array
    y : (n,) array of ±1
    """

    X: Array
    y: Array

    @property
    def size(self) -> int:
        """Number d of parameters."""
        return int(self.X.shape[1])

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """One problem."""
        return ()

    def _signed(self, x: Array) -> tuple[Array, Array]:
        """Return yᵢxᵢ and the margins yᵢxᵢᵀw, `(..., n)`."""
        rows = self.y[:, None] * self.X
        return rows, x @ rows.T

    def value(self, x: Array) -> Array:
        """Return L."""
        return np.asarray(np.mean(np.logaddexp(0.0, -self._signed(x)[1]), axis=-1))

    def gradient(self, x: Array) -> Array:
        """Return ∇L, with σ = (1 − tanh(m/2))/2."""
        rows, margins = self._signed(x)
        wrong: Array = 0.5 * (1 - np.tanh(0.5 * margins))
        return -(wrong @ rows) / len(self.y)

    def linearize(self, x: Array) -> Linearization:
        """Return value, gradient and products with XᵀDX/n at x."""
        rows, margins = self._signed(x)
        slope = np.tanh(0.5 * margins)
        weights = 0.25 * (1 - slope) * (1 + slope) / len(self.y)
        return Linearization(self.value(x), self.gradient(x), lambda v: (weights * (v @ rows.T)) @ rows)

    def curvature_bound(self) -> Array:
        """‖X‖²/(4n): a bound of the largest eigenvalue of ∇²L, anywhere."""
        return np.asarray(0.25 * np.linalg.norm(self.X, 2) ** 2 / len(self.y))

    def gradient_terms(self, x: Array) -> Array:
        """Norm of the sums of |summands| of ∇L."""
        return np.asarray(np.mean(np.linalg.norm(self.X, axis=1)) * np.ones(x.shape[:-1]))
