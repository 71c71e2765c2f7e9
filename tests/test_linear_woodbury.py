"""Exact inversion from the samples' side: the factor, the solve, and the assembled Hessians."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from oracles.losses import Counting

from implicit_grad import (
    ArgumentTypeError,
    Autodiff,
    BilevelProblem,
    Cholesky,
    GradientDescent,
    ImplicitGradient,
    LeastSquares,
    MultilayerPerceptron,
    SoftmaxCrossEntropy,
    Status,
    Woodbury,
)
from implicit_grad.testing.matrices import UNIT
from implicit_grad.testing.strategies import ridge_specs, softmax_specs


def _check_factor(case):
    """F Fᵀ, FᵀF = H and ⟨F v, w⟩ = ⟨v, Fᵀ w⟩, all from the products alone."""
    phi, d = case.theta, case.size
    at = case.problem.inner.linearize(phi)
    F = at.factor.apply(np.eye(d)).T
    H = case.train.hessian(phi)
    size = 64 * d * UNIT * case.train.curvature  # the oracle's own Hessian rounds like its largest possible entry
    assert F.shape == (at.factor.rank, d)
    assert np.abs(F.T @ F - H).max() <= size
    assert np.abs(at.factor.gram() - F @ F.T).max() <= size
    assert np.abs(at.factor.adjoint(np.eye(at.factor.rank)) - F).max() <= 64 * d * UNIT * np.abs(F).max()


@given(ridge_specs())
def test_the_factor_of_least_squares(spec):
    _check_factor(spec.build())


@given(softmax_specs())
def test_the_factor_of_softmax(spec):
    _check_factor(spec.build())


def _check_hessian(case):
    A = case.problem.curvature(case.theta)
    by_products = replace(A, assemble=None).dense()
    scale = case.curvature + 0 * by_products
    assert A.assemble is not None
    assert np.abs(A.dense() - by_products).max() <= 64 * case.size * UNIT * scale.max()
    assert np.array_equal(A.dense(), A.dense().T)


@given(ridge_specs())
def test_the_assembled_hessian_of_least_squares(spec):
    _check_hessian(spec.build())


@given(softmax_specs())
def test_the_assembled_hessian_of_softmax(spec):
    _check_hessian(spec.build())


def _check_solve(case):
    """Law 29: the dual form is the inverse, to what any backward stable solve leaves."""
    A, b = case.problem.curvature(case.star), case.b
    dual, primal = Woodbury()(A, b), Cholesky(refinements=2)(A, b)
    assert dual.status is Status.CONVERGED
    tolerance = 64 * case.size * case.kappa * UNIT * np.linalg.norm(b) / case.lam
    assert np.linalg.norm(dual.value - primal.value) <= tolerance


@given(ridge_specs())
def test_least_squares_solves(spec):
    _check_solve(spec.build())


@given(softmax_specs())
def test_softmax_solves(spec):
    _check_solve(spec.build())


def test_a_batch_of_tasks_and_lambdas():
    rng = np.random.default_rng(23)
    X, labels = rng.normal(size=(3, 12, 7)), rng.integers(0, 4, size=(3, 12))
    losses = [SoftmaxCrossEntropy(X[:, half], labels[:, half], 4) for half in (slice(0, 6), slice(6, 12))]
    problem = BilevelProblem(*losses, np.array([[1e-3], [0.3], [40.0]]))
    phi = problem.parameters(rng.normal(size=28))
    A, b = problem.curvature(phi), rng.normal(size=phi.shape)
    dual = Woodbury()(A, b)
    assert np.all(dual.ok)
    for index in np.ndindex(3, 3):
        alone = Woodbury()(A.select(index), b[index])
        assert np.linalg.norm(dual.value[index] - alone.value) <= 64 * 28 * UNIT * np.linalg.norm(alone.value)


def test_a_hundred_thousand_parameters():
    """d = 100 000 with ten samples: no array of d² numbers could be held."""
    rng = np.random.default_rng(29)
    X, labels = rng.normal(size=(20, 20_000)), rng.integers(0, 5, size=20)
    train, test = SoftmaxCrossEntropy(X[:10], labels[:10], 5), SoftmaxCrossEntropy(X[10:], labels[10:], 5)
    problem, theta = BilevelProblem(train, test, 0.3), np.zeros(100_000)
    inner = GradientDescent(None, 3)(problem, theta)
    estimate = ImplicitGradient(Woodbury())(problem, theta, inner)
    H = train.linearize(inner.value).hvp
    residual = test.gradient(inner.value) - estimate.gradient - H(estimate.gradient) / 0.3
    assert estimate.ok
    assert np.linalg.norm(residual) <= 1e-13 * np.linalg.norm(test.gradient(inner.value))


@pytest.mark.parametrize(
    "loss",
    [
        MultilayerPerceptron(np.ones((3, 2)), np.ones(3), hidden=(2,)),
        Autodiff(lambda w: (w**2).sum()),
    ],
    ids=["network", "autodiff"],
)
def test_a_loss_without_a_factor_is_refused(loss):
    phi = np.zeros(getattr(loss, "size", 4))
    with pytest.raises(ArgumentTypeError, match="known factor"):
        Woodbury()(BilevelProblem(loss, loss, 0.5).curvature(phi), phi + 1)


def test_one_bad_problem_leaves_its_neighbours_alone():
    rng = np.random.default_rng(31)
    loss = LeastSquares(rng.normal(size=(3, 4, 6)), rng.normal(size=(3, 4)))
    A, b = BilevelProblem(loss, loss, 0.2).curvature(np.zeros((3, 6))), rng.normal(size=(3, 6))
    clean = Woodbury()(A, b)
    b[1, 2] = np.nan
    spoilt = Woodbury()(A, b)
    assert spoilt.status[1] is Status.NONFINITE
    assert np.array_equal(spoilt.value[[0, 2]], clean.value[[0, 2]])


def test_its_cost_is_what_a_counting_loss_sees():
    rng = np.random.default_rng(37)
    loss = Counting(LeastSquares(rng.normal(size=(4, 6)), rng.normal(size=4)))
    A = BilevelProblem(loss, loss, 0.2).curvature(np.zeros(6))
    loss.calls.clear()
    solution = Woodbury(refinements=3)(A, np.ones(6))
    assert loss.calls["hvps"] == solution.cost.hvps
