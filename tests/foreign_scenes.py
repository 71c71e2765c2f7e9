"""What foreign candidates are asked for: a ridge problem, and a θ that is a tree."""

import numpy as np
import pytest

from implicit_grad import BilevelProblem, LeastSquares

EPS = np.finfo(float).eps
TREE = {"w": np.array([[1.0, -2.0], [0.5, 3.0]]), "b": np.array(0.25), "a": [np.array([4.0, 5.0]), np.array([-1.0])]}


def library(name):
    return pytest.importorskip(name, reason=f"{name} is not installed; it is no dependency, not even for tests")


def ridge(rng, lam):
    X, y = rng.normal(size=(24, 4)), rng.normal(size=24)
    return BilevelProblem(LeastSquares(X[:12], y[:12]), LeastSquares(X[12:], y[12:]), lam)
