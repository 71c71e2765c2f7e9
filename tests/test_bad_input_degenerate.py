"""Input at the edge of what has an answer: finite, successful, and the same by every solver.

The numbers in the ids are those of the table of bad input in the project's reference notes.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from bad_input_scenes import D, Data, N, good_data
from oracles.scenes import EPS

from implicit_grad import CG, EXACT, BilevelProblem, Cholesky, ImplicitGradient, LeastSquares, ScipyCG


def _theta(loss: Any) -> Any:
    return 0.3 * np.cos(np.arange(float(loss.size)))


WORKS: list[tuple[int, str, Callable[[Data], tuple[Any, Any]]]] = [
    (3, "lam is a NumPy scalar", lambda d: (d.problem(np.float64(0.7)), d.theta)),
    (3, "lam is a 0-d array", lambda d: (d.problem(np.array(0.7)), d.theta)),
    (3, "lam is an integer", lambda d: (d.problem(2), d.theta)),
    (14, "theta is integer", lambda d: (d.problem(), np.arange(D))),
    (
        14,
        "data is integer",
        lambda d: (BilevelProblem(LeastSquares(np.eye(D, dtype=int), np.arange(D)), d.ridge(), 0.7), d.theta),
    ),
    (
        17,
        "lists",
        lambda d: (BilevelProblem(LeastSquares(d.X.tolist(), d.y.tolist()), d.ridge(), 0.7), d.theta.tolist()),
    ),
    (17, "np.matrix", lambda d: (BilevelProblem(LeastSquares(np.matrix(d.X), d.y), d.ridge(), 0.7), d.theta)),
    (
        17,
        "Fortran order",
        lambda d: (BilevelProblem(LeastSquares(np.asfortranarray(d.X), d.y), d.ridge(), 0.7), d.theta),
    ),
    (19, "one sample", lambda d: (BilevelProblem(d.ridge(d.X[:1], d.y[:1]), d.ridge(), 0.7), d.theta)),
    (19, "one class seen", lambda d: _pair(d.softmax(labels=np.zeros(N, dtype=int)))),
    (19, "one parameter", lambda d: (BilevelProblem(*[d.ridge(d.X[:, :1])] * 2, 0.7), d.theta[:1])),
    (
        19,
        "more parameters than samples",
        lambda d: (BilevelProblem(d.ridge(d.X[:2], d.y[:2]), d.ridge(), 0.7), d.theta),
    ),
    (23, "zero features", lambda d: (BilevelProblem(d.ridge(0 * d.X), d.ridge(), 0.7), d.theta)),
    (23, "constant features", lambda d: (BilevelProblem(d.ridge(0 * d.X + 3), d.ridge(), 0.7), d.theta)),
    (23, "equal features", lambda d: (BilevelProblem(d.ridge(d.X[:, [0, 0, 0]]), d.ridge(), 0.7), d.theta)),
    (23, "equal samples", lambda d: (BilevelProblem(d.ridge(d.X[[1] * N]), d.ridge(), 0.7), d.theta)),
    (23, "zero features, softmax", lambda d: _pair(d.softmax(0 * d.X))),
    (23, "zero inputs, network", lambda d: _pair(d.network(X=0 * d.X), 50.0)),
    (35, "lam = 1e-12", lambda d: (d.problem(1e-12), d.theta)),
    (35, "lam = 1e-300", lambda d: (d.problem(1e-300), d.theta)),
    (35, "lam = 1e155", lambda d: (d.problem(1e155), d.theta)),
    (35, "lam = 1e307", lambda d: (d.problem(1e307), d.theta)),
    (36, "tiny test loss", lambda d: (BilevelProblem(d.ridge(), d.ridge(1e-90 * d.X, 1e-90 * d.y), 0.7), d.theta)),
    (36, "huge test loss", lambda d: (BilevelProblem(d.ridge(), d.ridge(1e90 * d.X, 1e90 * d.y), 0.7), d.theta)),
    (
        37,
        "subnormal test loss",
        lambda d: (BilevelProblem(d.ridge(), d.ridge(1e-160 * d.X, 1e-155 * d.y), 0.7), d.theta),
    ),
]


def _pair(loss: Any, lam: float = 0.7) -> tuple[BilevelProblem, Any]:
    return BilevelProblem(loss, loss, lam), _theta(loss)


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@pytest.mark.parametrize("case", WORKS, ids=[f"{row}: {what}" for row, what, _ in WORKS])
def test_degenerate_input_works(case):
    """Exact, by conjugate gradient and by 4d + 4 of its steps: finite, successful, and the same vector.

    Both solve A q = b to a residual of 1e-12‖b‖, so they differ by 2e-12·κ(A) relative; κ comes from A at φ*.
    """
    problem, theta = case[2](good_data())
    exact = EXACT(problem, theta)
    g = exact.unwrap()
    assert g.dtype == np.float64
    assert np.isfinite(g).all()
    d = g.shape[-1]
    A = problem.curvature(exact.inner.value).divided(np.maximum(problem.lam, 1.0)).dense()
    condition = float(np.linalg.cond(A))
    for solver in (CG(20 * d + 20, 1e-12), ScipyCG(20 * d + 20, 1e-12)):
        estimate = ImplicitGradient(solver)(problem, theta, exact.inner)
        assert estimate.ok
        scale = 2e-12 * condition + 64 * d * condition * EPS
        smallest = float(np.finfo(float).smallest_subnormal)
        assert np.abs(estimate.gradient - g).max() <= scale * np.abs(g).max() + 4 * smallest


def test_row_36_what_scipy_gets_wrong():
    """‖b‖ ~ 1e-200 and 1e200: bitwise the scaled answer."""
    A, b = np.diag([1.0, 4.0, 9.0]), np.array([1.0, 2.0, 3.0])
    for solver in (CG(3), ScipyCG(3), Cholesky()):
        x = solver(A, b).value
        for exponent in (-664, 664):
            assert np.array_equal(solver(A, np.ldexp(b, exponent)).value, np.ldexp(x, exponent))
