"""Bilevel problems made from a few small integers, and the tolerances of the laws.

The integers (shapes, rank, powers of ten, a seed) fix X = Q·diag·Vᵀ with random orthogonal factors, and with it
the spectrum: arrays drawn entry by entry are rank deficient more often than not, and hardly ever ill conditioned.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cached_property

import numpy as np

from implicit_grad.objectives import LeastSquares, MultilayerPerceptron, SoftmaxCrossEntropy, Softplus, Tanh
from implicit_grad.problem import BilevelProblem
from implicit_grad.testing.closed_forms import ClosedForm, Logistic, Ridge, Softmax, implicit_gradient, minimiser
from implicit_grad.testing.logistic import LogisticLoss
from implicit_grad.testing.matrices import UNIT, Array, Geometric, describe_matrix, orthogonal


class Twist(Enum):
    """Degenerate data, still without rejection."""

    NONE = "plain"
    DUPLICATE_ROWS = "every second sample repeats the one before"
    ZERO_COLUMN = "the first feature is zero"
    THETA_OPTIMAL = "theta is stationary for the train loss"


def design(rng: np.random.Generator, n: int, p: int, rank: int, top: float, spread: int) -> Array:
    """X (n, p) whose XᵀX/n has min(rank, n, p) eigenvalues from top down to top·10^−spread, and zeros."""
    r = min(rank, n, p)
    eigenvalues = top * Geometric(spread).eigenvalues(r)
    X: Array = (orthogonal(rng, n)[:, :r] * np.sqrt(n * eigenvalues)) @ orthogonal(rng, p)[:, :r].T
    return X


@dataclass(eq=False)
class Case:
    """A bilevel problem with its second, dense self and the constants of the tolerances."""

    problem: BilevelProblem
    theta: Array
    lam: float
    train: ClosedForm
    test: ClosedForm

    def __post_init__(self) -> None:
        # Past this the rounding alone is a hundredth of the answer, and no law says anything.
        assert 64 * self.size * self.kappa * UNIT <= 1e-2, "a strategy drew a problem beyond float64"

    @property
    def size(self) -> int:
        """N."""
        return self.theta.size

    @cached_property
    def curvature(self) -> float:
        """Global curvature bound M̄ = λ + λ_max(∇²L), over all φ."""
        return self.lam + self.train.curvature

    @property
    def kappa(self) -> float:
        """κ̄ = M̄/m with m = λ: the train losses are convex."""
        return self.curvature / self.lam

    @cached_property
    def star(self) -> Array:
        """φ* by the oracle."""
        return minimiser(self.train, self.lam, self.theta)

    @cached_property
    def A(self) -> Array:
        """H(φ*) + λI by the oracle."""
        return self.train.hessian(self.star) + self.lam * np.eye(self.size)

    @cached_property
    def b(self) -> Array:
        """∇L_test(φ*) by the oracle."""
        return self.test.gradient(self.star)

    @cached_property
    def g(self) -> Array:
        """The meta-gradient by the oracle."""
        return implicit_gradient(self.train, self.test, self.lam, self.star)

    def describe(self) -> str:
        """Return A at φ* and its spectrum, for a failure to show."""
        return describe_matrix("A", self.A)

    def tol_phi(self, *points: Array) -> float:
        """64·√N·κ̄·u·(‖∇L‖_abs/M̄ + ‖θ‖ + ‖φ*‖); further points count like φ*.

        ‖∇L‖_abs/M̄ is the length that rounding in ∇L stands for. A bare 1 in its place would be blind where
        parameters are tiny, and too strict where features and λ are.
        """
        length = self.train.gradient_abs(self.star) / self.curvature
        size = length + sum(float(np.linalg.norm(x)) for x in (self.theta, self.star, *points))
        return 64 * self.size**0.5 * self.kappa * UNIT * size

    def tol_g(self, phi: Array | None = None, residual: float = 0.0) -> float:
        """64·N·κ̄·u·‖b‖_abs·(1 + β_T/λ), plus what an inner residual ‖r_in‖ is worth."""
        at = self.star if phi is None else phi
        rounding = 64 * self.size * self.kappa * UNIT * self.test.gradient_abs(at)
        return rounding * (1 + self.test.curvature / self.lam) + self.inexact(residual)

    def tol_exact(self) -> float:
        """tol_g with what two inner solves at the rounding floor leave: ours and the oracle's."""
        phi = self.star
        terms = self.train.gradient_rounding(phi)
        pull = self.lam * float(np.linalg.norm(phi) + np.linalg.norm(self.theta))
        return self.tol_g(residual=2 * 20 * self.size**0.5 * UNIT * (terms + pull))

    def inexact(self, residual: float) -> float:
        """(β_T + ρ‖g‖/λ)·‖r_in‖/m·(λ/m), with m = λ: the error in g of an inner residual."""
        g = float(np.linalg.norm(self.g))
        return (self.test.curvature + self.train.hessian_lipschitz * g / self.lam) * residual / self.lam


@dataclass(frozen=True)
class RidgeSpec:
    """Integers that make a ridge problem. λ_max(XᵀX/n) = λ·10^log10_ratio, the test loss 10^log10_test of it."""

    size: int = 3
    n: int = 5
    n_test: int = 4
    rank: int = 10
    spread: int = 1
    log10_ratio: int = 1
    log10_lam: int = 1
    log10_test: int = 0
    seed: int = 5
    twist: Twist = Twist.NONE

    @property
    def lam(self) -> float:
        """λ."""
        return 10.0**self.log10_lam

    def data(self) -> tuple[Array, Array, Array, Array, Array]:
        """X, y, X_test, y_test, θ."""
        rng = np.random.default_rng(self.seed)
        top = self.lam * 10.0**self.log10_ratio
        X = design(rng, self.n, self.size, self.rank, top, self.spread)
        X_test = design(rng, self.n_test, self.size, self.size, top * 10.0**self.log10_test, 1)
        w, theta = rng.standard_normal((2, self.size))
        if self.twist is Twist.ZERO_COLUMN:
            X[:, 0] = 0
        y = X @ w + 0.3 * top**0.5 * rng.standard_normal(self.n)
        scale = (top * 10.0**self.log10_test) ** 0.5
        y_test = X_test @ w + 0.3 * scale * rng.standard_normal(self.n_test)
        if self.twist is Twist.DUPLICATE_ROWS:
            X, y = (np.repeat(v[::2], 2, axis=0)[: self.n] for v in (X, y))
        if self.twist is Twist.THETA_OPTIMAL:
            y = X @ theta
        return X, y, X_test, y_test, theta

    def case(self, X: Array, y: Array, X_test: Array, y_test: Array, theta: Array) -> Case:
        """Return the problem with these data instead of its own."""
        problem = BilevelProblem(LeastSquares(X, y), LeastSquares(X_test, y_test), self.lam)
        return Case(problem, theta, self.lam, Ridge(X, y), Ridge(X_test, y_test))

    def build(self) -> Case:
        """Return the problem."""
        return self.case(*self.data())

    def describe(self) -> str:
        """Return A at φ* and its spectrum."""
        return self.build().describe()


@dataclass(frozen=True)
class LogisticSpec:
    """Integers that make a logistic problem; ¼λ_max(XᵀX/n) = λ·10^log10_ratio, margins ~ 10^log10_margin at θ."""

    size: int = 3
    n: int = 5
    n_test: int = 4
    spread: int = 1
    log10_ratio: int = 1
    log10_lam: int = 1
    log10_test: int = 0
    log10_margin: int = 0
    seed: int = 5
    twist: Twist = Twist.NONE

    @property
    def lam(self) -> float:
        """λ."""
        return 10.0**self.log10_lam

    def data(self) -> tuple[Array, Array, Array, Array, Array]:
        """X, y, X_test, y_test, θ."""
        rng = np.random.default_rng(self.seed)
        top = 4 * self.lam * 10.0**self.log10_ratio
        X = design(rng, self.n, self.size, self.size, top, self.spread)
        X_test = design(rng, self.n_test, self.size, self.size, top * 10.0**self.log10_test, 1)
        y, y_test = (rng.choice([-1.0, 1.0], n) for n in (self.n, self.n_test))
        theta = rng.standard_normal(self.size) * 10.0**self.log10_margin / top**0.5
        if self.twist is Twist.ZERO_COLUMN:
            X[:, 0] = 0
        if self.twist is Twist.DUPLICATE_ROWS:
            X, y = (np.repeat(v[::2], 2, axis=0)[: self.n] for v in (X, y))
        if self.twist is Twist.THETA_OPTIMAL:  # every sample carries both labels: σ = ½ at 0
            X, y, theta = np.repeat(X, 2, axis=0), np.tile([-1.0, 1.0], self.n), np.zeros(self.size)
        return X, y, X_test, y_test, theta

    def case(self, X: Array, y: Array, X_test: Array, y_test: Array, theta: Array) -> Case:
        """Return the problem with these data instead of its own."""
        problem = BilevelProblem(LogisticLoss(X, y), LogisticLoss(X_test, y_test), self.lam)
        return Case(problem, theta, self.lam, Logistic(X, y), Logistic(X_test, y_test))

    def build(self) -> Case:
        """Return the problem."""
        return self.case(*self.data())

    def describe(self) -> str:
        """Return A at φ* and its spectrum."""
        return self.build().describe()


@dataclass(frozen=True)
class SoftmaxSpec:
    """Integers that make a softmax problem; ½λ_max(XᵀX/n) = λ·10^log10_ratio, logits ~ 10^log10_logit at θ."""

    features: int = 2
    classes: int = 3
    n: int = 5
    n_test: int = 4
    spread: int = 1
    log10_ratio: int = 1
    log10_lam: int = 1
    log10_test: int = 0
    log10_logit: int = 0
    seed: int = 5
    twist: Twist = Twist.NONE

    @property
    def lam(self) -> float:
        """λ."""
        return 10.0**self.log10_lam

    def data(self) -> tuple[Array, Array, Array, Array, Array]:
        """X, labels, X_test, test labels, θ."""
        rng = np.random.default_rng(self.seed)
        top = 2 * self.lam * 10.0**self.log10_ratio
        X = design(rng, self.n, self.features, self.features, top, self.spread)
        X_test = design(rng, self.n_test, self.features, self.features, top * 10.0**self.log10_test, 1)
        labels, test_labels = (rng.integers(self.classes, size=n) for n in (self.n, self.n_test))
        theta = rng.standard_normal(self.features * self.classes) * 10.0**self.log10_logit / top**0.5
        if self.twist is Twist.ZERO_COLUMN:
            X[:, 0] = 0
        if self.twist is Twist.DUPLICATE_ROWS:
            X, labels = (np.repeat(v[::2], 2, axis=0)[: self.n] for v in (X, labels))
        if self.twist is Twist.THETA_OPTIMAL:  # every sample carries every label: P = Y̅ at W = 0
            X, labels = np.repeat(X, self.classes, axis=0), np.tile(np.arange(self.classes), self.n)
            theta = np.zeros_like(theta)
        return X, labels, X_test, test_labels, theta

    def case(self, X: Array, labels: Array, X_test: Array, test_labels: Array, theta: Array) -> Case:
        """Return the problem with these data instead of its own."""
        C = self.classes
        inner, outer = SoftmaxCrossEntropy(X, labels, C), SoftmaxCrossEntropy(X_test, test_labels, C)
        problem = BilevelProblem(inner, outer, self.lam)
        return Case(problem, theta, self.lam, Softmax(X, labels, C), Softmax(X_test, test_labels, C))

    def build(self) -> Case:
        """Return the problem."""
        return self.case(*self.data())

    def describe(self) -> str:
        """Return A at φ* and its spectrum."""
        return self.build().describe()


@dataclass(frozen=True)
class MlpSpec:
    """Integers that make a small network; λ = (curvature scale at θ)·10^log10_lam."""

    inputs: int = 2
    hidden: tuple[int, ...] = (3,)
    n: int = 5
    n_test: int = 4
    classes: int = 0
    softplus: bool = False
    log10_lam: int = 1
    seed: int = 5

    def losses(self) -> tuple[MultilayerPerceptron, MultilayerPerceptron, Array]:
        """Train loss, test loss and θ."""
        rng = np.random.default_rng(self.seed)
        made = []
        for n in (self.n, self.n_test):
            X = rng.standard_normal((n, self.inputs))
            y = rng.integers(self.classes, size=n) if self.classes else rng.standard_normal(n)
            activation = Softplus() if self.softplus else Tanh()
            made.append(MultilayerPerceptron(X, y, self.hidden, activation, self.classes or None))
        return made[0], made[1], 0.7 * rng.standard_normal(made[0].size)

    def curvature_scale(self) -> float:
        """A bound of the terms of ∇²L at θ: mean(1 + ‖x‖²)·(1 + max|error|)·Π(1 + ‖W_l‖²)·widths."""
        train, _, theta = self.losses()
        X = np.asarray(train.X)
        error = 1.0 if self.classes else 1 + float(np.abs(train.outputs(theta)[..., 0] - train.y).max())
        growth = float(np.prod([1 + np.sum(np.asarray(W) ** 2) for W, _ in train.layers(theta)]))
        return float(np.mean(1 + np.sum(X**2, axis=1)) * error * growth * sum(train.widths))

    def build(self) -> tuple[BilevelProblem, Array]:
        """Return the problem and θ."""
        train, test, theta = self.losses()
        H = train.linearize(theta).hvp(np.eye(theta.size))
        lam = float(np.linalg.norm(H, 2) + np.linalg.norm(train.gradient(theta))) * 10.0**self.log10_lam
        return BilevelProblem(train, test, lam), theta

    def describe(self) -> str:
        """Return A at θ and its spectrum."""
        problem, theta = self.build()
        return describe_matrix("A", problem.curvature(theta).dense())


@dataclass(frozen=True, eq=False)
class NetworkCase:
    """What `MlpSpec` builds, with its name: a problem, θ, and the spec that is its `repr` in a failure."""

    spec: MlpSpec
    problem: BilevelProblem
    theta: Array

    def __repr__(self) -> str:
        return f"NetworkCase of {self.spec!r}"


ConvexSpec = RidgeSpec | SoftmaxSpec | LogisticSpec
"""A spec with a convex train loss: `build()` returns a `Case`."""
