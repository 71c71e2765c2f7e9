"""Ridge, softmax and logistic regression written a second time, in plain dense NumPy: the oracles of the laws.

Nothing here is shared with the package. Every function is analytic, so it also takes complex parameters: the
imaginary part of f(x + ihv)/h is then a derivative without any subtraction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Ridge:
    """½·mean of (xᵢᵀφ − yᵢ)²."""

    X: Array
    y: Array

    def value(self, phi: Array) -> Any:
        """Return the value."""
        r = self.X @ phi - self.y
        return 0.5 * np.mean(r * r)

    def gradient(self, phi: Array) -> Array:
        """Return the gradient."""
        return np.mean(self.X * (self.X @ phi - self.y)[:, None], axis=0)

    def hessian(self, phi: Array) -> Array:
        """Return the Hessian."""
        return np.einsum("ni,nj->ij", self.X, self.X) / len(self.y)

    def _residual_abs(self, phi: Array) -> Array:
        return np.linalg.norm(self.X, axis=1) * np.linalg.norm(phi) + np.abs(self.y)

    def value_abs(self, phi: Array) -> float:
        """Sum of the sizes of the terms that make up the value."""
        return float(0.5 * np.mean(self._residual_abs(phi) ** 2))

    def gradient_abs(self, phi: Array) -> float:
        """Sum of the sizes of the terms that make up the gradient."""
        return float(np.mean(np.linalg.norm(self.X, axis=1) * self._residual_abs(phi)))

    def gradient_rounding(self, phi: Array) -> float:
        """What multiplies u in the rounding of the gradient."""
        return self.gradient_abs(phi)

    def extended(self) -> Ridge:
        """The same loss in extended precision."""
        return Ridge(self.X.astype(np.longdouble), self.y.astype(np.longdouble))

    @property
    def curvature(self) -> float:
        """Largest eigenvalue of the Hessian, anywhere."""
        return float(np.linalg.norm(self.X, 2) ** 2 / len(self.y))

    @property
    def hessian_lipschitz(self) -> float:
        """Lipschitz constant of the Hessian."""
        return 0.0


@dataclass(frozen=True, eq=False)
class Softmax:
    """Mean cross-entropy of softmax regression; the parameters are W (p, C), row-major."""

    X: Array
    labels: Array
    n_classes: int

    def _logits(self, phi: Array) -> Array:
        z = self.X @ phi.reshape(self.X.shape[1], self.n_classes)
        return z - z.real.max(axis=1, keepdims=True)

    def probabilities(self, phi: Array) -> Array:
        """Return the softmax probabilities."""
        e = np.exp(self._logits(phi))
        return e / e.sum(axis=1, keepdims=True)

    def value(self, phi: Array) -> Any:
        """Return the value."""
        z = self._logits(phi)
        return np.mean(np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(z)), self.labels])

    def gradient(self, phi: Array) -> Array:
        """Return the gradient."""
        delta = self.probabilities(phi) - np.eye(self.n_classes)[self.labels]
        return np.einsum("np,nc->pc", self.X, delta).reshape(-1) / len(self.labels)

    def hessian(self, phi: Array) -> Array:
        """Return the Hessian."""
        p = self.probabilities(phi)
        blocks = p[:, :, None] * np.eye(self.n_classes) - p[:, :, None] * p[:, None, :]
        H = np.einsum("na,nb,ncd->acbd", self.X, self.X, blocks) / len(self.labels)
        return H.reshape(phi.size, phi.size)

    def value_abs(self, phi: Array) -> float:
        """Sum of the sizes of the terms that make up the value."""
        sizes = np.linalg.norm(self.X, axis=1) * np.linalg.norm(phi)
        return float(np.mean(2 * sizes + np.log(self.n_classes)))

    def gradient_abs(self, phi: Array) -> float:
        """Sum of the sizes of the terms that make up the gradient: |P − Y| is O(1) however small the sum."""
        return float(np.mean(np.linalg.norm(self.X, axis=1)))

    def gradient_rounding(self, phi: Array) -> float:
        """What multiplies u in the rounding of the gradient: rounding in a logit z moves p by |z|·p."""
        sizes = np.linalg.norm(self.X, axis=1)
        return float(np.mean(sizes * (2 + sizes * np.linalg.norm(phi))))

    def extended(self) -> Softmax:
        """The same loss in extended precision."""
        return Softmax(self.X.astype(np.longdouble), self.labels, self.n_classes)

    @property
    def curvature(self) -> float:
        """Bound of the Hessian's largest eigenvalue, anywhere: ‖diag(p) − p pᵀ‖ ≤ ½."""
        return float(0.5 * np.linalg.norm(self.X, 2) ** 2 / len(self.labels))

    @property
    def hessian_lipschitz(self) -> float:
        """Third derivative along v: the third cumulant of logits that span at most √2 ‖x‖ ‖v‖.

        A random variable on an interval of length R has |E(Z − EZ)³| ≤ R³/(6√3).
        """
        return float(np.mean(np.linalg.norm(self.X, axis=1) ** 3) * 2**1.5 / (6 * 3**0.5))


@dataclass(frozen=True, eq=False)
class Logistic:
    """Mean of log(1 + exp(−yᵢ xᵢᵀφ)) with labels y = ±1."""

    X: Array
    y: Array

    def _margins(self, phi: Array) -> tuple[Array, Array]:
        """Return z = −y·Xφ, and its positive part, real, by which exponentials are shifted."""
        z = -self.y * (self.X @ phi)
        return z, np.maximum(z.real, 0)

    def probabilities(self, phi: Array) -> Array:
        """σ(−yᵢ xᵢᵀφ): how wrong each sample is."""
        z, shift = self._margins(phi)
        high = np.exp(z - shift)
        wrong: Array = high / (np.exp(-shift) + high)
        return wrong

    def value(self, phi: Array) -> Any:
        """Return the loss."""
        z, shift = self._margins(phi)
        return np.mean(shift + np.log(np.exp(-shift) + np.exp(z - shift)))

    def gradient(self, phi: Array) -> Array:
        """Return ∇L."""
        g: Array = -np.einsum("ni,n->i", self.X, self.y * self.probabilities(phi)) / len(self.y)
        return g

    def hessian(self, phi: Array) -> Array:
        """Return ∇²L."""
        p = self.probabilities(phi)
        H: Array = np.einsum("ni,nj,n->ij", self.X, self.X, p * (1 - p)) / len(self.y)
        return H

    def value_abs(self, phi: Array) -> float:
        """Sum of the sizes of the terms that make up the value."""
        return float(np.mean(np.linalg.norm(self.X, axis=1)) * np.linalg.norm(phi) + np.log(2))

    def gradient_abs(self, phi: Array) -> float:
        """Sum of the sizes of the terms that make up the gradient, σ taken as 1."""
        return float(np.mean(np.linalg.norm(self.X, axis=1)))

    def gradient_rounding(self, phi: Array) -> float:
        """What multiplies u in the rounding of the gradient: rounding in a margin z moves σ by |z|·σ."""
        sizes = np.linalg.norm(self.X, axis=1)
        return float(np.mean(sizes * (2 + sizes * np.linalg.norm(phi))))

    def extended(self) -> Logistic:
        """Return the same loss in extended precision."""
        return Logistic(self.X.astype(np.longdouble), self.y)

    @property
    def curvature(self) -> float:
        """Bound of the Hessian's largest eigenvalue, anywhere: σ(1 − σ) ≤ ¼."""
        return float(0.25 * np.linalg.norm(self.X, 2) ** 2 / len(self.y))

    @property
    def hessian_lipschitz(self) -> float:
        """Bound of the third derivative along unit vectors: |σ(1 − σ)(1 − 2σ)| ≤ 1/(6√3)."""
        return float(np.mean(np.linalg.norm(self.X, axis=1) ** 3) / (6 * 3**0.5))


ClosedForm = Ridge | Softmax | Logistic


def minimiser(train: ClosedForm, lam: float, theta: Array) -> Array:
    """Return argmin L(φ) + λ/2 ‖φ − θ‖²: QR of the stacked system for ridge, damped Newton otherwise."""
    if isinstance(train, Ridge):
        n, d = train.X.shape
        stacked = np.concatenate([train.X / n**0.5, lam**0.5 * np.eye(d)])
        target = np.concatenate([train.y / n**0.5, lam**0.5 * theta])
        Q, R = np.linalg.qr(stacked)
        phi: Array = np.linalg.solve(R, Q.T @ target)
        return phi
    return _damped_newton(train, lam, theta)


def _damped_newton(train: ClosedForm, lam: float, theta: Array) -> Array:
    """Newton with step halving: down F while F can be told apart, then down ‖∇F‖ while that still shrinks."""
    phi = theta.copy()

    def F(x: Array) -> float:
        return float(train.value(x) + 0.5 * lam * np.sum((x - theta) ** 2))

    def gradient(x: Array) -> Array:
        return train.gradient(x) + lam * (x - theta)

    for _ in range(500):
        g = gradient(phi)
        step = -np.linalg.solve(train.hessian(phi) + lam * np.eye(phi.size), g)
        noise = 2.0**-46 * (train.value_abs(phi) + 0.5 * lam * np.sum((np.abs(phi) + np.abs(theta)) ** 2))
        t = 1.0
        if -g @ step > noise:
            while F(phi + t * step) > F(phi) + 1e-4 * t * (g @ step):
                t /= 2
        else:
            while t > 0.01 and np.linalg.norm(gradient(phi + t * step)) > (1 - t / 2) * np.linalg.norm(g):
                t /= 2
            if t <= 0.01:
                break
        phi = phi + t * step
    return phi


def implicit_gradient(train: ClosedForm, test: ClosedForm, lam: float, phi: Array) -> Array:
    """λ A(φ)⁻¹ ∇L_test(φ) by a dense solve."""
    A = train.hessian(phi) + lam * np.eye(phi.size)
    g: Array = lam * np.linalg.solve(A, test.gradient(phi))
    return g


def accurate_solve(A: Array, b: Array) -> Array:
    """A⁻¹ b by LU with refinement in extended precision: every digit of float64, for κ(A) well below 1/u."""
    wide, rhs = A.astype(np.longdouble), b.astype(np.longdouble)
    x = np.linalg.solve(A, b).astype(np.longdouble)
    for _ in range(6):
        x = x + np.linalg.solve(A, (rhs - wide @ x).astype(np.float64))
    return x


def outer_value(train: ClosedForm, test: ClosedForm, lam: Any, theta: Array, star: Array) -> Any:
    """L_test(φ*(θ, λ)) with the inner problem solved again for complex θ or λ, from the real solution `star`.

    Newton with the real A(φ*) as fixed preconditioner; the complex perturbations are so small (1e-30) that two
    steps reach rounding.
    """
    A = train.hessian(star) + np.real(lam) * np.eye(star.size)
    phi = star.astype(complex)
    for _ in range(4):
        phi = phi - np.linalg.solve(A, train.gradient(phi) + lam * (phi - theta))
    return test.value(phi)
