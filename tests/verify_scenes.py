"""A small ridge problem under `verify`, asked of the quick oracles only."""

import numpy as np

from implicit_grad import BilevelProblem, LeastSquares, verify

QUICK = ("unrolled limit", "finite difference")
THETA = np.array([0.3, -1.2, 0.8])


def ridge(rng):
    X, y = rng.standard_normal((16, 3)), rng.standard_normal(16)
    return BilevelProblem(LeastSquares(X[:8], y[:8]), LeastSquares(X[8:], y[8:]), 0.6)


def look(candidate, problem, thetas=THETA, **settings):
    return verify(candidate, problem, thetas, **{"without": QUICK, "diagnosis": False, **settings})
