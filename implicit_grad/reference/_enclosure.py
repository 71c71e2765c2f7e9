"""Newton in many digits, and the proof that a minimum and its meta-gradient lie in the box that it leaves."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from implicit_grad.reference._arithmetic import Array, Verified
from implicit_grad.reference._losses import ReferenceLoss

_NEWTON_STEPS = 60
_ATTEMPTS = 6


class NotProven(ArithmeticError):
    """The box could not be shown to hold exactly one stationary point."""


class NoMinimum(ArithmeticError):
    """The stationary point was proven to be a saddle or a maximum, or could not be told from one."""


@dataclass(frozen=True, eq=False)
class Enclosure:
    """Mid-points of φ* and of ∇F as exact fractions, and a proven bound of ‖g − ∇F‖."""

    phi: Array
    gradient: Array
    radius: Fraction
    size: Fraction


@dataclass(frozen=True, eq=False)
class Stationarity:
    """∇L_train(φ) + λ(φ − θ) and its derivative, in one arithmetic."""

    train: ReferenceLoss
    lam: Any
    theta: Array

    def __call__(self, x: Array) -> Array:
        return self.train.gradient(x) + (x - self.theta) * self.lam

    def derivative(self, x: Array) -> Array:
        """Return A(φ) = ∇²L_train(φ) + λI."""
        return self.train.hessian(x) + np.eye(self.train.size, dtype=int).astype(object) * self.lam


def enclose(
    R: Verified, train: ReferenceLoss, test: ReferenceLoss, lam: float, theta: Array, start: Array, digits: int
) -> Enclosure:
    r"""Enclose φ* and λ A(φ*)⁻¹∇L_test(φ*), in the precision that R is set to.

    With C ≈ A(φ̃)⁻¹, X = φ̃ + [−r, r]^d and ε ≥ ‖I − C A(X)‖_∞ < 1 the Krawczyk operator maps X into its inside if

    .. math:: \lVert C F(\tilde\varphi)\rVert_\infty + \varepsilon r < r,

    and then there is exactly one stationary point in X. The curvature is nonsingular all over X, so that it is
    positive definite everywhere if it is so at φ̃; and any q solving A(φ) q = b(φ) with φ ∈ X lies within
    ‖C(b(X) − A(X) q̃)‖_∞/(1 − ε) of q̃.

    Raises
    ------
    NotProven, NoMinimum

    References
    ----------
    Krawczyk 1969; Rump, Verification methods: rigorous results using floating-point arithmetic, Acta Numerica (2010).
    """
    F = Stationarity(train, R.exact(lam)[()], R.exact(theta))
    x, C, unit = _newton(R, F, R.exact(start))
    size = max(R.largest(x), Fraction(1, 10**300))
    moved = R.largest(R.matmul(C, F(x)[:, None]))
    r = 4 * moved + size / 10 ** (digits + 12)
    for _ in range(_ATTEMPTS):
        X = R.widened(x, r)
        A = F.derivative(X)
        epsilon = R.largest(abs(unit - R.matmul(C, A)).sum(axis=1))
        if moved + epsilon * r < r and epsilon < 1:
            break
        r *= 16
    else:
        raise NotProven("Krawczyk's condition fails")
    _prove_minimum(R, F.derivative(x))
    b = test.gradient(X)
    q = _solve(R, C, R.middle(A), R.middle(b))
    off = R.largest(R.matmul(C, (b - R.matmul(A, q[:, None])[:, 0])[:, None])) / (1 - epsilon)
    g = q * F.lam
    values = R.fractions(g)
    # The product's own rounding is in the ball of g.
    slack = R.largest(g - R.middle(g)) + off * Fraction(lam)
    length = Fraction(np.nextafter(len(g) ** 0.5, np.inf))
    return Enclosure(R.fractions(x), values, length * slack, R.largest(g))


def _newton(R: Verified, F: Stationarity, x: Array) -> tuple[Array, Array, Array]:
    """Full steps from x with a derivative that is renewed when they stop shrinking fast; also return C and I."""
    unit = np.eye(len(x), dtype=int).astype(object)
    C, before, renewed = _inverse(R, F, x), None, 0
    for _ in range(_NEWTON_STEPS):
        step = R.middle(R.matmul(C, R.middle(F(x))[:, None])[:, 0])
        size = R.largest(step)
        if size == 0 or (before is not None and size >= before):
            if renewed >= 2:
                break
            C, renewed, before = _inverse(R, F, x), renewed + 1, None
            continue
        x = R.middle(x - step)
        if before is not None and size > before / 1000:
            C, before = _inverse(R, F, x), None
            continue
        before = size
    return x, _inverse(R, F, x), unit


def _inverse(R: Verified, F: Stationarity, x: Array) -> Array:
    try:
        return R.inverse(R.middle(F.derivative(x)))
    except ZeroDivisionError:
        raise NotProven("the curvature cannot be told from a singular one") from None


def _solve(R: Verified, C: Array, A: Array, b: Array) -> Array:
    """Refine q ≈ A⁻¹b until the steps stop shrinking."""
    q = R.middle(R.matmul(C, b[:, None])[:, 0])
    before = None
    for _ in range(_NEWTON_STEPS):
        step = R.middle(R.matmul(C, (b - R.matmul(A, q[:, None])[:, 0])[:, None])[:, 0])
        size = R.largest(step)
        if size == 0 or (before is not None and 2 * size >= before):
            break
        q, before = R.middle(q + step), size
    return q


def _prove_minimum(R: Verified, A: Array) -> None:
    """Factor A without roots; every pivot has to be positive for certain."""
    A = A.copy()
    for k in range(len(A)):
        pivot = A[k, k]
        if not R.positive(pivot):
            raise NoMinimum("is no strict minimum" if R.positive(-pivot) else "cannot be told from a saddle")
        column = A[k + 1 :, k]
        A[k + 1 :, k + 1 :] = A[k + 1 :, k + 1 :] - np.outer(column / pivot, column)
