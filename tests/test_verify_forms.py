"""Forms of candidates, problems and θ that `verify` takes, and those that it refuses."""

import autograd.numpy as anp
import numpy as np
import pytest
from verify_scenes import look, ridge

from implicit_grad import (
    EXACT,
    ArgumentError,
    ArgumentTypeError,
    Autodiff,
    BilevelProblem,
    DiagonalQuadratic,
    LeastSquares,
    LogCosh,
    MetaGradient,
    RegularizedProblem,
    Verdict,
)


@pytest.fixture
def problem(rng):
    return ridge(rng)


def test_the_signature_says_how_it_is_called(problem):
    assert look(lambda theta: EXACT(problem, theta).gradient, problem).verdict is Verdict.PASS
    assert look(lambda p, theta: EXACT(p, theta).gradient, problem).verdict is Verdict.PASS
    assert look(lambda theta, steps=5: EXACT(problem, theta).gradient, problem).verdict is Verdict.PASS
    for wrong in (lambda: 0, lambda a, b, c: 0, 3.0, MetaGradient):
        with pytest.raises(ArgumentTypeError, match="candidate"):
            look(wrong, problem)


def test_parameter_trees(rng):
    x, y = rng.standard_normal(12), rng.standard_normal(12)

    def loss(rows):
        return Autodiff(lambda p: anp.mean((anp.tanh(p["w"] * x[rows] + p["b"]) - y[rows]) ** 2))

    tree = BilevelProblem(loss(slice(0, 6)), loss(slice(6, 12)), 1.7)
    theta = {"w": np.array([1.0]), "b": np.array([0.2])}
    assert look(EXACT, tree, theta).verdict is Verdict.PASS
    assert look(EXACT, tree, [theta, {"w": np.array([0.5]), "b": np.array([0.1])}]).verdict is Verdict.PASS
    assert look(lambda p, t: {"w": t["w"], "b": t["b"]}, tree, theta).verdict is Verdict.FAIL


def test_float32_data(problem):
    losses = [LeastSquares(a.X.astype(np.float32), a.y.astype(np.float32)) for a in (problem.inner, problem.outer)]
    single = BilevelProblem(*losses, 0.6)
    assert look(EXACT, single, None).verdict is Verdict.PASS
    assert look(lambda p, t: 1.1 * EXACT(p, t).gradient, single, None).verdict is Verdict.FAIL


def test_bad_arguments_are_refused(problem):
    batch = BilevelProblem(problem.inner, problem.outer, np.array([0.5, 0.6]))
    with pytest.raises(ArgumentTypeError, match="batch"):
        look(EXACT, batch)
    with pytest.raises(ArgumentTypeError, match="not quadratic"):
        look(EXACT, RegularizedProblem(problem.inner, problem.outer, LogCosh(0.6)))
    with pytest.raises(ArgumentError, match="thetas"):
        look(EXACT, BilevelProblem(Autodiff(anp.sum), Autodiff(anp.sum), 0.5), None)
    with pytest.raises(ArgumentError, match="one length"):
        look(EXACT, problem, [np.ones(3), np.ones(2)])
    with pytest.raises(ArgumentError, match="thetas: LeastSquares has 3"):
        look(EXACT, problem, np.ones(4))
    with pytest.raises(ArgumentTypeError, match="thetas: dtype float32"):
        look(EXACT, problem, np.ones(3, dtype=np.float32))
    with pytest.raises(ArgumentError, match="without"):
        look(EXACT, problem, without=("oracle of Delphi",))
    with pytest.raises(ArgumentError, match="rtol"):
        look(EXACT, problem, rtol=1.5)
    with pytest.raises(ArgumentTypeError, match="problem"):
        look(EXACT, "ridge")


def test_a_diagonal_weight(problem):
    stretched = RegularizedProblem(problem.inner, problem.outer, DiagonalQuadratic([0.2, 0.6, 1.9]))

    def candidate(theta, transposed=True):
        W = np.diag([0.2, 0.6, 1.9])
        X, y, n = problem.inner.X, problem.inner.y, 8
        A = X.T @ X / n + W
        b = problem.outer.gradient(np.linalg.solve(A, X.T @ y / n + W @ theta))
        return W @ np.linalg.solve(A, b) if transposed else np.linalg.solve(A, W @ b)

    assert look(candidate, stretched).verdict is Verdict.PASS
    wrong = look(lambda theta: candidate(theta, transposed=False), stretched, diagnosis=True)
    assert wrong.diagnosis.names == ("missing transpose",)
    assert wrong.diagnosis.confident
