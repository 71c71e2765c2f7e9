"""One Krylov space for every λ (law 22)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles.losses import Counting, Diagonal

from implicit_grad import (
    CG,
    ArgumentError,
    BilevelProblem,
    Cholesky,
    FirstOrderGradient,
    GradientDescent,
    ImplicitGradient,
    LambdaPath,
    Newton,
    Status,
)
from implicit_grad.linear.krylov import shifted_solutions
from implicit_grad.testing.matrices import UNIT
from implicit_grad.testing.strategies import ridge_specs, softmax_specs

LAMS = (3e-2, 0.7, 40.0)


def _check(case, k):
    inner = GradientDescent(None, 3)(case.problem, case.theta)
    path = LambdaPath(LAMS, k)(case.problem, case.theta, inner)
    assert path.gradient.shape == (len(LAMS), case.size)
    for i, lam in enumerate(LAMS):
        alone = ImplicitGradient(CG(k))(case.problem.with_lam(lam), case.theta, inner)
        kappa = 1 + case.train.curvature / lam
        b = np.linalg.norm(case.test.gradient(inner.value))
        assert np.linalg.norm(path.gradient[i] - alone.gradient) <= 64 * case.size * kappa * UNIT * b
        assert path.linear.residual_norm[i] == pytest.approx(
            float(alone.linear.residual_norm), rel=1e-9, abs=64 * case.size * kappa * UNIT * b
        )


@given(ridge_specs(), st.integers(0, 4))
def test_equals_conjugate_gradient_at_each_lambda_on_ridge(spec, k):
    _check(spec.build(), k)


@given(softmax_specs(), st.integers(0, 4))
def test_equals_conjugate_gradient_at_each_lambda_on_softmax(spec, k):
    _check(spec.build(), k)


def test_costs_one_run_for_all_lambdas():
    loss = Counting(Diagonal(np.geomspace(1, 9, 12), 1.0))
    problem, theta = BilevelProblem(loss, loss, 2.0), np.zeros(12)
    inner = GradientDescent(0.05, 2)(problem, theta)
    loss.calls.clear()
    path = LambdaPath(LAMS, 5)(problem, theta, inner)
    assert loss.calls["hvps"] == 5 + len(LAMS) == path.linear.cost.hvps
    assert loss.calls["gradients"] == 2 == path.cost.gradients - inner.cost.gradients


def test_a_saddle_is_refused_for_the_lambdas_that_do_not_lift_it():
    loss = Diagonal(np.array([-1.0, 2.0, 5.0]), 1.0)
    problem, theta = BilevelProblem(loss, loss, 3.0), np.ones(3)
    inner = GradientDescent(0.05, 0)(problem, theta)
    path = LambdaPath((0.4, 3.0), 3)(problem, theta, inner)
    assert list(path.status) == [Status.INDEFINITE, Status.CONVERGED]
    assert np.isnan(path.gradient[0]).all()
    exact = ImplicitGradient(Cholesky())(problem, theta, inner).gradient
    assert np.linalg.norm(path.gradient[1] - exact) <= 64 * 3 * UNIT * 8 / 2 * np.linalg.norm(exact)


def test_an_eigenvector_ends_the_process_and_zero_stays_zero():
    """Law 27 in a batch: b along an eigenvector, b = 0 and an ordinary b, side by side."""
    loss = Diagonal(np.array([1.0, 2.0, 5.0]))
    A = BilevelProblem(loss, loss, 0.5).operator(loss.linearize(np.zeros((3, 3))), np.zeros((3, 3)), proximal=False)
    b = np.array([[0.0, 3.0, 0.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    solutions, smallest = shifted_solutions(A, b, np.array([0.5, 4.0]), 3)
    expected = b / (np.array([1.0, 2.0, 5.0]) + np.array([0.5, 4.0])[:, None, None])
    assert np.abs(solutions - expected).max() <= 64 * UNIT
    assert smallest[0] == pytest.approx(2.0, rel=8 * UNIT)


def test_a_failed_inner_solve_is_not_forgotten():
    loss = Diagonal(np.array([1.0, 2.0]), 1.0)
    problem, theta = BilevelProblem(loss, loss, 3.0), np.zeros((2, 2))
    inner = Newton(max_steps=0)(problem, theta)
    path = LambdaPath((0.4, 2.0), 2)(problem, theta, inner)
    assert np.shape(path.status) == (2, 2)
    assert all(status is Status.MAX_STEPS for status in path.status.flat)
    assert not path.ok.any()


@pytest.mark.parametrize("bad", [(), (0.0,), (1.0, np.nan), (-1.0,)])
def test_bad_lambdas(bad):
    with pytest.raises(ArgumentError, match="lams"):
        LambdaPath(bad, 3)


def test_zero_steps_give_zero():
    loss = Diagonal(np.array([1.0, 2.0]), 1.0)
    problem, theta = BilevelProblem(loss, loss, 3.0), np.ones(2)
    inner = GradientDescent(0.05, 0)(problem, theta)
    path = LambdaPath((0.4,), 0)(problem, theta, inner)
    assert not path.gradient.any()
    b = FirstOrderGradient()(problem, theta, inner).gradient
    assert path.linear.residual_norm[0] == pytest.approx(np.linalg.norm(b), rel=8 * UNIT)
    assert path.linear.status[0] is Status.BUDGET_SPENT
