"""Lower bounds of λ_min(H + λI) at a point: each says how it knows.

Ritz values are missing on purpose: they lie inside the spectrum, so that a positive one proves nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from implicit_grad import border
from implicit_grad.backend import epsilon, to_numpy
from implicit_grad.certificates._constants import Kind
from implicit_grad.certificates._point import Point
from implicit_grad.errors import ArgumentError
from implicit_grad.linear import Operator, spectrum_ends
from implicit_grad.linear.lanczos import extreme_eigenvalues, tridiagonalize
from implicit_grad.results import Cost


@dataclass(frozen=True, eq=False)
class CurvatureBound:
    """A lower bound of λ_min(H + λI), per problem.

    Attributes
    ----------
    value : (...) array
        In the units of λ; it may be ≤ 0, and is −∞ where nothing could be proven.
    everywhere : bool
        Whether it holds at every φ, or at the given one only.
    kind : Kind
    origin : str
        How it is known, in words.
    failure : float
        Probability that it is wrong, for each problem; 0 for proofs.
    cost : Cost
    """

    value: Any
    everywhere: bool
    kind: Kind
    origin: str
    failure: float = 0.0
    cost: Cost = field(default_factory=Cost)


class CurvatureStrategy(Protocol):
    """Bound λ_min(H + λI) at a linearised point from below."""

    def __call__(self, point: Point) -> CurvatureBound:
        """Return the bound for every problem of the batch."""
        ...


@dataclass(frozen=True)
class Convexity:
    """m = λ + μ with ∇²L_train ⪰ μI at every φ.

    Parameters
    ----------
    mu : float or None
        0.0 says that the loss is convex; it is believed, and the certificate is `CONDITIONAL`. None takes the loss's
        own `strong_convexity()`.
    """

    mu: float | None = None

    def __post_init__(self) -> None:
        if self.mu is not None and not np.isfinite(np.asarray(border.real_array("mu", self.mu))).all():
            raise ArgumentError(f"mu: expected a finite number, got {self.mu!r}")

    def __call__(self, point: Point) -> CurvatureBound:
        """Return λ + μ.

        Raises
        ------
        ArgumentError
            If the loss knows nothing and nothing was said.
        """
        mu: Any = self.mu
        if mu is None:
            known = getattr(point.problem.inner, "strong_convexity", None)
            if known is None:
                raise ArgumentError(
                    f"curvature_bound: {type(point.problem.inner).__name__} knows no strong convexity; pass "
                    f"Convexity(0.0) if it is convex, or ShiftedCholesky() where d is moderate"
                )
            return CurvatureBound(
                point.lam + known(), True, Kind.RIGOROUS, "λ + the train loss's own strong convexity"
            )
        return CurvatureBound(point.lam + mu, True, Kind.CONDITIONAL, f"λ + {mu:g}, on the user's word")


@dataclass(frozen=True)
class Eigenvalues:
    """The smallest eigenvalue of the dense matrix, less the backward error of solver and matrix."""

    def __call__(self, point: Point) -> CurvatureBound:
        """Return eigvalsh's smallest value less 10·d·eps·‖A‖ and the rounding of A's entries."""

        def bound(A: Any) -> float:
            values = np.linalg.eigvalsh(A)
            size = float(np.abs(values).max())
            return float(values[0]) - 10 * len(A) * epsilon(A) * size - _assembly(A, point)

        value, cost = _each_dense(point, bound)
        return CurvatureBound(value, False, Kind.RIGOROUS, "smallest eigenvalue less its backward error", cost=cost)


@dataclass(frozen=True)
class ShiftedCholesky:
    r"""The largest τ tried for which the Cholesky factorisation of A − τI runs to its end.

    In floating point the factor is that of A − τI + Δ with
    :math:`\lVert\Delta\rVert \le \frac{\gamma_{d+1}}{1-\gamma_{d+1}}\,\mathrm{trace}(A - \tau I)`, whatever the
    condition number, so completion proves :math:`\lambda_{\min}(A) \ge \tau - \lVert\Delta\rVert`, less what rounding
    did to A itself. τ starts at `fraction` of a Lanczos estimate and is halved; it steers, it proves nothing.

    Parameters
    ----------
    fraction : float
        In (0, 1).
    trials : int
        Factorisations at most; where all of them break off the bound is −∞.

    References
    ----------
    Rump, Verification of positive definiteness, BIT 46 (2006); Higham, Accuracy and Stability, Theorem 10.3.
    """

    fraction: float = 0.9
    trials: int = 8

    def __post_init__(self) -> None:
        if not 0 < border.positive_float("fraction", self.fraction) < 1:
            raise ArgumentError(f"fraction: must lie in (0, 1), got {self.fraction:g}")
        border.count("trials", self.trials, minimum=1)

    def __call__(self, point: Point) -> CurvatureBound:
        """Return the bound."""
        value, cost = _each_dense(point, lambda A: self._bound(A, point))
        return CurvatureBound(value, False, Kind.RIGOROUS, "a completed Cholesky factorisation of A − τI", cost=cost)

    def _bound(self, A: Any, point: Point) -> float:
        d, eps = len(A), epsilon(A)
        gamma = (d + 2) * eps / (1 - (d + 2) * eps)
        seen = float(extreme_eigenvalues(Operator(lambda v: v @ A, (), d, A))[0])
        if not seen > 0:
            return -math.inf
        tau = self.fraction * seen
        for _ in range(self.trials):
            shifted = A - tau * np.eye(d, dtype=A.dtype)
            try:
                np.linalg.cholesky(shifted)
            except np.linalg.LinAlgError:
                tau /= 2
                continue
            entries = eps * (float(np.abs(np.diag(A)).max()) + tau)  # of the subtraction
            factor = gamma / (1 - gamma) * float(np.trace(shifted)) + d * float(np.finfo(A.dtype).tiny)
            return tau - factor - entries - _assembly(A, point)
        return -math.inf


@dataclass(frozen=True)
class RandomLanczos:
    r"""Lanczos from a random start, with a stated probability of failure.

    For a start that is uniform on the sphere, after k steps
    :math:`P\bigl(\theta_{\min} - \lambda_{\min} > \varepsilon\,(\lambda_{\max} - \lambda_{\min})\bigr)
    \le 1.648\,\sqrt{d}\,e^{-\sqrt\varepsilon\,(2k-1)}`, and alike at the other end. Half of `failure` pays for each
    end; the spread is then at most :math:`(\theta_{\max} - \theta_{\min})/(1 - 2\varepsilon)`.

    Parameters
    ----------
    steps : int
        k, each a Hessian-vector product. ε falls like 1/k²: with d = 1000 and a failure of 1e-6, k = 60 gives
        ε = 0.023 and k = 200 gives 0.002. With κ(A) above 1/ε the bound is negative.
    failure : float
        Probability, per problem, that the bound is wrong; the certificate says so.
    seed : int or None
        Of the start; None draws from the operating system, which is what the probability is over.

    References
    ----------
    Kuczyński and Woźniakowski, Estimating the largest eigenvalue by the power and Lanczos algorithms with a random
    start, SIAM J. Matrix Anal. Appl. 13 (1992), for a positive definite matrix; Lanczos does not see a shift.
    """

    steps: int = 100
    failure: float = 1e-9
    seed: int | None = None

    def __post_init__(self) -> None:
        border.count("steps", self.steps, minimum=1)
        if not 0 < border.positive_float("failure", self.failure) < 1:
            raise ArgumentError(f"failure: must lie in (0, 1), got {self.failure:g}")
        if self.seed is not None:
            border.count("seed", self.seed)

    def epsilon(self, d: int) -> float:
        """Return ε for d parameters."""
        return (math.log(2 * 1.648 * math.sqrt(d) / self.failure) / (2 * self.steps - 1)) ** 2

    def __call__(self, point: Point) -> CurvatureBound:
        """Return θ_min − ε·(θ_max − θ_min)/(1 − 2ε), less a rounding allowance; −∞ where 2ε ≥ 1."""
        phi = point.phi
        start = np.random.default_rng(self.seed).standard_normal(phi.shape).astype(phi.dtype)
        start /= np.linalg.norm(start, axis=-1)[..., None]
        A = point.problem.operator(point.linearization, phi)
        process = tridiagonalize(A, start, self.steps)
        values = to_numpy(process.eigh()[0])
        last = np.sum(to_numpy(process.exists), axis=-1) - 1
        lowest = values[..., 0]
        highest = np.take_along_axis(values, np.maximum(last, 0)[..., None], axis=-1)[..., 0]
        share = self.epsilon(A.size)
        value = np.full(phi.shape[:-1], -np.inf)
        if 2 * share < 1:
            rounding = point.unit * np.maximum(np.abs(lowest), np.abs(highest))
            value = lowest - share * (highest - lowest) / (1 - 2 * share) - rounding
        steps = min(self.steps, A.size)
        return CurvatureBound(
            value, False, Kind.PROBABILISTIC, "Lanczos from a random start", self.failure, Cost(hvps=steps)
        )


@dataclass(frozen=True)
class SeenSpectrum:
    """The smallest eigenvalue as computed (d ≤ 512) or seen by Lanczos: an estimate, for estimates."""

    def __call__(self, point: Point) -> CurvatureBound:
        """Return it; without allowance, and above d = 512 on the wrong side of λ_min."""
        A = point.problem.operator(point.linearization, point.phi)
        value = spectrum_ends(A)[0]
        cost = A.dense_cost + (A.selection if A.batch_shape else Cost()) if A.size <= 512 else Cost(hvps=60)
        return CurvatureBound(
            np.where(np.isnan(value), -np.inf, value), False, Kind.ESTIMATE, "spectrum at φ", cost=cost
        )


def _assembly(A: Any, point: Point) -> float:
    """Rounding of A's own entries: 8(N + n)·eps times the larger of trace and Frobenius norm."""
    return point.unit * max(float(np.abs(np.diag(A)).sum()), float(np.linalg.norm(A)))


def _each_dense(point: Point, bound: Any) -> tuple[Any, Cost]:
    """Apply `bound` to every dense A; NaN and infinities give −∞."""
    A = point.problem.operator(point.linearization, point.phi)
    value = np.full(A.batch_shape, -np.inf)
    for index in np.ndindex(A.batch_shape):
        matrix = to_numpy(A.select(index).dense())
        if np.isfinite(matrix).all():
            value[index] = bound(matrix)
    return value, A.dense_cost + (A.selection if A.batch_shape else Cost())
