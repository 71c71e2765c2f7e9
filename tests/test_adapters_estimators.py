"""Estimators as gradients of an outer loss inside autograd programs."""

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad, hessian, jacobian, make_jvp
from hypothesis import given
from hypothesis import strategies as st

from implicit_grad import (
    CG,
    EXACT,
    ArgumentTypeError,
    BilevelProblem,
    Cholesky,
    ConvergenceError,
    FirstOrderGradient,
    GradientDescent,
    ImplicitGradient,
    LeastSquares,
    MetaGradient,
    Newton,
    ScipyMinimize,
    implicit_function,
    outer_loss,
)
from implicit_grad.testing.problems import RidgeSpec
from implicit_grad.testing.strategies import ridge_specs, softmax_specs

EPS = float(np.finfo(float).eps)


@given(spec=st.one_of(ridge_specs(), softmax_specs()))
def test_the_outer_loss_has_the_estimators_gradient(spec):
    case = spec.build()
    loss = outer_loss(case.problem, EXACT)
    exact = EXACT(case.problem, case.theta)
    assert loss(case.theta) == case.problem.outer.value(exact.inner.value)
    assert np.array_equal(grad(loss)(case.theta), exact.gradient)
    v = np.random.default_rng(spec.seed).standard_normal(case.size)
    value, slope = make_jvp(loss)(case.theta)(v)
    assert value == loss(case.theta)
    assert abs(slope - exact.gradient @ v) <= 8 * case.size * EPS * np.abs(exact.gradient * v).sum()


@pytest.mark.parametrize(
    "method",
    [
        MetaGradient(Newton(), ImplicitGradient(CG(2))),
        MetaGradient(GradientDescent(None, 5), FirstOrderGradient()),
        MetaGradient(ScipyMinimize("L-BFGS-B", options=(("gtol", 1e-10),)), ImplicitGradient(Cholesky())),
    ],
    ids=lambda m: m.label,
)
def test_any_estimator_will_do_and_the_chain_rule_is_autograds(method):
    """θ = tanh(η) + 1: the outside is differentiated by autograd, the inside by the estimator."""
    case = RidgeSpec(size=4, n=6, log10_lam=0, seed=5).build()
    eta = np.array([0.3, -0.5, 1.0, 0.1])
    found = grad(lambda e: 3 * outer_loss(case.problem, method)(anp.tanh(e) + 1) ** 2)(eta)
    estimate = method(case.problem, np.tanh(eta) + 1)
    value = case.problem.outer.value(estimate.inner.value)
    wanted = 6 * value * estimate.gradient * (1 - np.tanh(eta) ** 2)
    assert np.linalg.norm(found - wanted) <= 16 * EPS * np.linalg.norm(wanted)


def test_a_batch_of_losses_shares_theta_or_not():
    specs = [RidgeSpec(size=3, n=4, n_test=4, seed=seed) for seed in (5, 6)]
    X, y, X_test, y_test, theta = (np.stack(each) for each in zip(*(spec.data() for spec in specs), strict=True))
    lam, c = np.array([[0.3], [5.0], [0.02]]), np.array([[1.0, -2.0], [0.5, 3.0], [1.5, 0.1]])
    problem = BilevelProblem(LeastSquares(X, y), LeastSquares(X_test, y_test), lam)
    loss = outer_loss(problem, EXACT)
    every = EXACT(problem, theta).gradient
    assert loss(theta).shape == (3, 2)
    own = grad(lambda t: anp.sum(c * loss(t)))(theta)  # (2, 3): a θ a task, shared by the λs
    assert own.shape == theta.shape
    assert np.linalg.norm(own - (c[..., None] * every).sum(axis=0)) <= 64 * EPS * np.linalg.norm(own)
    shared = grad(lambda t: anp.sum(c * loss(t)))(theta[0])
    wanted = (c[..., None] * EXACT(problem, theta[0]).gradient).sum(axis=(0, 1))
    assert np.linalg.norm(shared - wanted) <= 64 * EPS * np.linalg.norm(wanted)
    kept = grad(lambda t: anp.sum(c * loss(t)))(theta[:1][None])
    assert kept.shape == (1, 1, 3)
    assert np.linalg.norm(kept - wanted) <= 64 * EPS * np.linalg.norm(wanted)


def test_second_derivatives_of_an_estimator_are_refused():
    case = RidgeSpec(seed=5).build()
    loss = outer_loss(case.problem, EXACT)
    with pytest.raises(ArgumentTypeError, match="second derivatives"):
        hessian(loss)(case.theta)
    with pytest.raises(ArgumentTypeError, match="second derivatives"):
        make_jvp(grad(loss))(case.theta)(np.ones(case.size))


def test_a_failed_estimate_raises_when_it_is_differentiated():
    case = RidgeSpec(size=4, n=6, log10_ratio=3, seed=5).build()
    loss = outer_loss(case.problem, MetaGradient(Newton(), ImplicitGradient(CG(1, 1e-12))))
    assert np.isfinite(loss(case.theta))
    with pytest.raises(ConvergenceError, match="MAX_STEPS"):
        grad(loss)(case.theta)


def test_iml_of_imaml_by_both_routes():
    """∇F by `implicit_function` around the train loss, and by the estimator: two programs, one number."""
    case = RidgeSpec(size=3, n=5, log10_lam=-1, seed=8).build()
    X, y = case.train.X, case.train.y

    def F(p, t):
        return anp.dot(X.T, anp.dot(X, p) - y) / len(y) + case.lam * (p - t)

    star = implicit_function(lambda t: Newton(rtol=1e-14)(case.problem, t), F, Cholesky(refinements=2))
    test = case.test
    traced = grad(lambda t: 0.5 * anp.mean((anp.dot(test.X, star(t)) - test.y) ** 2))
    assert np.linalg.norm(traced(case.theta) - EXACT(case.problem, case.theta).gradient) <= 2 * case.tol_exact()
    # Its Hessian has a closed form: JᵀH_test J with J = λA⁻¹.
    J = case.lam * np.linalg.inv(case.A)
    wanted = J.T @ (test.X.T @ test.X / len(test.y)) @ J
    H = jacobian(traced)(case.theta)
    assert np.linalg.norm(H - wanted) <= 64 * case.size * case.kappa * EPS * np.linalg.norm(wanted)
