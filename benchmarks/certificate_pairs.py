"""Random problems, inner budgets and estimators of the audit of error bars: see `benchmarks/certificates.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from implicit_grad import (
    CG,
    BilevelProblem,
    Cholesky,
    FirstOrderGradient,
    GradientDescent,
    ImplicitGradient,
    LeastSquares,
    MetaGradient,
    Newton,
    SoftmaxCrossEntropy,
    UnrolledGradient,
)
from implicit_grad.objectives import Linearization
from implicit_grad.tasks import Digits

BUDGETS = (0, 1, 3, 10, 30, 100, 1000)
"""Gradient descent steps of step size 1/M̄ from θ."""
ESTIMATORS = {
    "first order": FirstOrderGradient(),
    "CG-1": ImplicitGradient(CG(1)),
    "CG-2": ImplicitGradient(CG(2)),
    "CG-5": ImplicitGradient(CG(5)),
    "exact": ImplicitGradient(Cholesky()),
    "unrolled": UnrolledGradient(),
}
REFERENCE = MetaGradient(Newton(1e-14), ImplicitGradient(Cholesky(refinements=3)))
Draw = Callable[[np.random.Generator, int], tuple[BilevelProblem, Any]]


def ridge(rng: np.random.Generator, count: int) -> tuple[BilevelProblem, Any]:
    """Gaussian features of scale 10^U(−1, 1), 2 to 8 of them, 2 to 19 samples, λ = 10^U(−2, 2)."""
    X, Z, lam = _features(rng, count)
    losses = (LeastSquares(F, rng.normal(size=F.shape[:2])) for F in (X, Z))
    return _problem(rng, *losses, lam)


def logistic(rng: np.random.Generator, count: int) -> tuple[BilevelProblem, Any]:
    """The same features with random labels, two classes."""
    return _classes(rng, count, 2)


def softmax(rng: np.random.Generator, count: int) -> tuple[BilevelProblem, Any]:
    """The same features with random labels, three or four classes."""
    return _classes(rng, count, int(rng.integers(3, 5)))


def digits(rng: np.random.Generator, count: int) -> tuple[BilevelProblem, Any]:
    """Images of digits: 2 or 3 ways, 1 to 5 shots, λ = 10^U(−2, 1), θ a random initialisation."""
    source = Digits(ways=int(rng.integers(2, 4)), shots=int(rng.integers(1, 6)), queries=10)
    problem = source.sample(rng, tasks=count, lam=10 ** rng.uniform(-2, 1, size=count))
    return problem, problem.parameters(source.initial_parameters(rng))


def _features(rng: np.random.Generator, count: int) -> tuple[Any, Any, Any]:
    d, n, n_test = (int(rng.integers(low, high)) for low, high in ((2, 9), (2, 20), (2, 20)))
    scale = 10 ** rng.uniform(-1, 1, size=(count, 1, 1))
    X, Z = rng.normal(size=(count, n, d)) * scale, rng.normal(size=(count, n_test, d)) * scale
    return X, Z, 10 ** rng.uniform(-2, 2, size=count)


def _classes(rng: np.random.Generator, count: int, classes: int) -> tuple[BilevelProblem, Any]:
    X, Z, lam = _features(rng, count)
    losses = (SoftmaxCrossEntropy(F, rng.integers(0, classes, size=F.shape[:2]), classes) for F in (X, Z))
    return _problem(rng, *losses, lam)


def _problem(rng: np.random.Generator, inner: Any, outer: Any, lam: Any) -> tuple[BilevelProblem, Any]:
    theta = rng.normal(size=(lam.size, inner.size)) * 10 ** rng.uniform(-1, 1, size=(lam.size, 1))
    return BilevelProblem(inner, outer, lam), theta


FAMILIES: dict[str, Draw] = {"ridge": ridge, "logistic": logistic, "softmax": softmax, "digits": digits}


@dataclass(frozen=True, eq=False)
class Pair:
    """All problems of a batch under one budget and one estimator, with the error of the estimate."""

    problem: BilevelProblem
    theta: Any
    phi: Any
    gradient: Any
    error: Any
    size: Any


def pairs(draw: Draw, rng: np.random.Generator, count: int, batch: int = 20) -> Iterator[Pair]:
    """Run every estimator on every budget of random problems; problems without a reference are left out."""
    done = 0
    while done < count:
        take = min(batch, count - done)
        problem, theta = draw(rng, take)
        exact = REFERENCE(problem, theta)
        if not np.all(exact.ok):  # the audit's problems are well posed: a missing reference is a bug, not a statistic
            raise RuntimeError("a reference did not converge")
        size = np.linalg.norm(exact.gradient, axis=-1)
        run = GradientDescent(None, BUDGETS[-1], record=True)(problem, theta)
        for steps in BUDGETS:
            inner = run.at(steps)
            for estimator in ESTIMATORS.values():
                g = estimator(problem, theta, inner).gradient
                yield Pair(problem, theta, inner.value, g, np.linalg.norm(g - exact.gradient, axis=-1), size)
        done += take


def linear_test(rng: np.random.Generator, count: int) -> tuple[BilevelProblem, Any]:
    """Logistic problems whose test loss is linear: β = 0, and no slack of its term hides that of ρ and R."""
    problem, theta = logistic(rng, count)
    return replace(problem, outer=Linear(rng.normal(size=theta.shape))), theta


@dataclass(frozen=True, eq=False)
class Linear:
    """L(φ) = cᵀφ, one c per problem."""

    c: Any

    def value(self, x: Any) -> Any:
        """Return cᵀφ."""
        return np.sum(x * self.c, axis=-1)

    def curvature_bound(self) -> Any:
        """Return 0."""
        return np.zeros(self.c.shape[:-1])

    def gradient(self, x: Any) -> Any:
        """Return c."""
        return np.broadcast_to(self.c, x.shape)

    def linearize(self, x: Any) -> Any:
        """Return all of it."""
        return Linearization(self.value(x), self.gradient(x), np.zeros_like)
