"""Bilevel problems that the package and the oracles see as the same data, at any λ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from implicit_grad import BilevelProblem, LeastSquares, SoftmaxCrossEntropy
from implicit_grad.testing.problems import MlpSpec, RidgeSpec, SoftmaxSpec
from oracles import fifty_digits, traced

LAMS = tuple(float(lam) for lam in 10 ** np.random.default_rng(20190910).uniform(-3, 3, 5))
"""Five λ, log-uniform in [1e-3, 1e3]."""

EPS = float(np.finfo(np.float64).eps)
CLASSES = 3


@dataclass(frozen=True, eq=False)
class Scene:
    """A problem, θ, the same losses in 50 digits and under autograd, and a global bound of λ_max(∇²L_train)."""

    problem: BilevelProblem
    theta: Any
    exact: tuple[Any, Any]
    traced: tuple[Any, Any]
    curvature: float = np.nan

    @property
    def lam(self) -> float:
        """λ."""
        return float(self.problem.lam)

    @property
    def condition(self) -> float:
        """κ̄ = (M + λ)/λ of a convex train loss."""
        return (self.curvature + self.lam) / self.lam

    def error(self, gradient: Any, start: Any = None) -> float:
        """Relative error of a meta-gradient against fifty digits."""
        exact = fifty_digits.meta_gradient(*self.exact, self.lam, self.theta, start)
        return fifty_digits.relative_error(gradient, exact)


def ridge(lam: float, seed: int = 5) -> Scene:
    """Six parameters, nine samples, spectrum over two decades."""
    X, y, X_test, y_test, theta = RidgeSpec(size=6, n=9, n_test=7, spread=2, log10_lam=0, seed=seed).data()
    return Scene(
        BilevelProblem(LeastSquares(X, y), LeastSquares(X_test, y_test), lam),
        theta,
        (fifty_digits.Ridge(X, y), fifty_digits.Ridge(X_test, y_test)),
        (traced.least_squares(X, y), traced.least_squares(X_test, y_test)),
        np.linalg.norm(X, 2) ** 2 / len(y),
    )


def softmax(lam: float, seed: int = 5) -> Scene:
    """Three features, three classes, eight samples."""
    spec = SoftmaxSpec(features=3, classes=CLASSES, n=8, n_test=6, log10_lam=0, seed=seed)
    X, labels, X_test, test_labels, theta = spec.data()
    data = ((X, labels, CLASSES), (X_test, test_labels, CLASSES))
    train, test = (SoftmaxCrossEntropy(*each) for each in data)
    return Scene(
        BilevelProblem(train, test, lam),
        theta,
        (fifty_digits.Softmax(*data[0]), fifty_digits.Softmax(*data[1])),
        (traced.softmax(*data[0]), traced.softmax(*data[1])),
        0.5 * np.linalg.norm(X, 2) ** 2 / len(labels),
    )


def network(lam: float, hidden: tuple[int, ...], activation: str, classes: int, seed: int = 17) -> Scene:
    """Two inputs and one output, or `classes` of them; not convex."""
    spec = MlpSpec(2, hidden, n=6, n_test=5, classes=classes, softplus=activation == "softplus", seed=seed)
    train, test, theta = spec.losses()
    shape = (train.widths, activation, classes or None)
    return Scene(
        BilevelProblem(train, test, lam),
        theta,
        tuple(fifty_digits.Network(loss.X, loss.y, *shape) for loss in (train, test)),
        tuple(traced.network(loss.X, loss.y, *shape) for loss in (train, test)),
    )
