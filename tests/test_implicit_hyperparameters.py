"""Hyper-gradients of models that scikit-learn fits: penalties and sample weights, against closed forms and refits.

The fits are scikit-learn's; what is tested is that the implicit gradient at its coefficients is the slope of the
validation loss over the hyper-parameter. The step of the differences follows from what the fits leave: with noise η
in the loss and a third derivative D³, h = (3η/D³)^(1/3) balances both, and the error is about η^(2/3).
"""

from dataclasses import dataclass

import autograd.numpy as anp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge

from implicit_grad import CG, AutodiffMap, Cholesky, GeneralGMRES, GeneralLU, ImplicitFunction, NewtonRoot, Status

EPS = float(np.finfo(float).eps)
SOLVERS = [Cholesky(), CG(40, 1e-13), GeneralLU(), GeneralGMRES(9, 1e-12)]
N, D = 30, 5


@dataclass(frozen=True, eq=False)
class Data:
    """Training and validation samples."""

    X: np.ndarray
    y: np.ndarray
    X_val: np.ndarray
    y_val: np.ndarray


def draw(seed, labels):
    rng = np.random.default_rng(seed)
    X, X_val = rng.standard_normal((2, N, D)) * np.array([1.0, 0.5, 2.0, 1.0, 0.1])
    w = rng.standard_normal(D)
    if not labels:
        return Data(X, X @ w + rng.standard_normal(N), X_val, X_val @ w + rng.standard_normal(N))
    flip = [np.sign(x @ w + rng.standard_normal(N)) for x in (X, X_val)]
    return Data(X, flip[0], X_val, flip[1])


def squared(data):
    """Validation loss ½·mean of squares."""
    return lambda w, _: 0.5 * anp.mean((anp.dot(data.X_val, w) - data.y_val) ** 2)


def logistic(data):
    """Validation loss: mean log-loss."""
    return lambda w, _: anp.mean(anp.logaddexp(0.0, -data.y_val * anp.dot(data.X_val, w)))


def central(E, fit, theta, v, noise, third):
    """Slope of E(fit(θ), θ) along v, with the error its step leaves."""
    h = float((3 * noise / third) ** (1 / 3))
    slope = (E(fit(theta + h * v), None) - E(fit(theta - h * v), None)) / (2 * h)
    return slope, noise / h + h**2 * third / 6


# ---- Ridge: ‖y − Xw‖² + α‖w‖², θ = log α


def fit_ridge(data, sample_weight=None):
    def fit(theta):
        model = Ridge(alpha=float(np.exp(theta[0])), fit_intercept=False, solver="cholesky")
        return model.fit(data.X, data.y, sample_weight=sample_weight).coef_

    return fit


def ridge_map(data):
    return AutodiffMap(lambda w, t: anp.dot(data.X.T, anp.dot(data.X, w) - data.y) + anp.exp(t[0]) * w)


@pytest.mark.parametrize("log_alpha", [-4.0, 0.7, 6.0])
@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: s.label)
def test_the_penalty_of_ridge(solver, log_alpha):
    """Against −α wᵀ(XᵀX + αI)⁻¹∇E, and against refits."""
    data, theta = draw(5, labels=False), np.array([log_alpha])
    fit, E = fit_ridge(data), squared(data)
    w, alpha = fit(theta), np.exp(log_alpha)
    estimate = ImplicitFunction(ridge_map(data), solver, rtol=1e-11).gradient(w, theta, E)
    A = data.X.T @ data.X + alpha * np.eye(D)
    b = data.X_val.T @ (data.X_val @ w - data.y_val) / N
    wanted, kappa = -alpha * float(w @ np.linalg.solve(A, b)), np.linalg.cond(A)
    # The product may cancel: what counts is the size of its factors.
    size = alpha * np.linalg.norm(w) * np.linalg.norm(np.linalg.solve(A, b))
    assert estimate.status is Status.CONVERGED
    assert abs(estimate.unwrap()[0] - wanted) <= 64 * D * kappa * EPS * size
    noise = 16 * kappa * EPS * (E(w, None) + np.linalg.norm(b) * np.linalg.norm(w))
    slope, allowed = central(E, fit, theta, np.ones(1), noise, 8 * E(np.zeros(D), None))
    assert abs(estimate.gradient[0] - slope) <= allowed
    for mistake in (-wanted, wanted / alpha, wanted * alpha, 2 * wanted):  # dE/dα for dE/d log α, a lost ½, …
        assert abs(mistake - slope) > allowed


@pytest.mark.parametrize("alpha", [0.3, 20.0])
@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: s.label)
def test_the_sample_weights_of_ridge(solver, alpha):
    """Which training sample would help the validation loss? dE/ds_i = −(x_iᵀw − y_i) x_iᵀA⁻¹∇E, one solve for all."""
    data = draw(6, labels=False)
    weights = np.random.default_rng(7).uniform(0.2, 2, size=N)

    def F(w, s):
        return anp.dot(data.X.T, s * (anp.dot(data.X, w) - data.y)) + alpha * w

    def fit(s):
        model = Ridge(alpha=alpha, fit_intercept=False, solver="cholesky")
        return model.fit(data.X, data.y, sample_weight=s).coef_

    E, w = squared(data), fit(weights)
    estimate = ImplicitFunction(AutodiffMap(F), solver, rtol=1e-11).gradient(w, weights, E)
    A = (data.X.T * weights) @ data.X + alpha * np.eye(D)
    b = data.X_val.T @ (data.X_val @ w - data.y_val) / N
    q, r = np.linalg.solve(A, b), data.X @ w - data.y
    wanted = -r * (data.X @ q)
    size = np.linalg.norm(data.X, axis=1) * np.linalg.norm(q) * (np.abs(data.y) + np.linalg.norm(w))
    assert (np.abs(estimate.unwrap() - wanted) <= 64 * D * np.linalg.cond(A) * EPS * size).all()
    noise = 16 * np.linalg.cond(A) * EPS * (E(w, None) + np.linalg.norm(b) * np.linalg.norm(w))
    for i in (0, 11, 29):
        slope, allowed = central(E, fit, weights, np.eye(N)[i], noise, 64 * E(np.zeros(D), None))
        assert abs(estimate.gradient[i] - slope) <= allowed
    assert np.abs(estimate.gradient).max() > 10 * allowed


# ---- LogisticRegression: C·Σ s_i log(1 + e^(−y_i x_iᵀw)) + ½‖w‖², θ = log C


def fit_logistic(data, sample_weight=None):
    def fit(theta):
        model = LogisticRegression(
            C=float(np.exp(theta[0])), fit_intercept=False, solver="newton-cholesky", tol=1e-12, max_iter=200
        )
        return model.fit(data.X, data.y, sample_weight=sample_weight).coef_[0]

    return fit


def logistic_gradient(data, w, scale):
    pull = data.y / (1 + anp.exp(data.y * anp.dot(data.X, w)))
    return w - anp.dot(data.X.T, scale * pull)


@pytest.mark.parametrize("log_c", [-3.0, 0.4, 3.0])
@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: s.label)
def test_the_penalty_of_logistic_regression(solver, log_c):
    data, theta = draw(7, labels=True), np.array([log_c])
    F = AutodiffMap(lambda w, t: logistic_gradient(data, w, anp.exp(t[0])))
    fit, E = fit_logistic(data), logistic(data)
    w = fit(theta)
    function = ImplicitFunction(F, solver, rtol=1e-9)
    estimate = function.gradient(w, theta, E)
    assert estimate.status is Status.CONVERGED
    # By dense algebra: A = I + C XᵀSX, ∂_θF = w-dependent pull, all at scikit-learn's w.
    z = data.y * (data.X @ w)
    p = 1 / (1 + np.exp(z))
    A = np.eye(D) + np.exp(log_c) * (data.X.T * (p * (1 - p))) @ data.X
    b = -data.X_val.T @ (data.y_val / (1 + np.exp(data.y_val * (data.X_val @ w)))) / N
    wanted = float(np.exp(log_c) * (data.X.T @ (data.y * p)) @ np.linalg.solve(A, b))
    kappa = np.linalg.cond(A)
    size = np.linalg.norm(w) * np.linalg.norm(np.linalg.solve(A, b))
    assert abs(estimate.unwrap()[0] - wanted) <= 64 * D * kappa * EPS * size * (
        1 + np.exp(log_c) * N / np.linalg.norm(w)
    )
    # What the fit leaves: ‖F‖/μ with A ⪰ I, times ‖∇E‖.
    residual = max(float(function.judge(fit(theta + t), theta + t).residual_norm) for t in (-1e-3, 0.0, 1e-3))
    noise = np.linalg.norm(b) * residual + 16 * kappa * EPS * (E(w, None) + np.linalg.norm(b) * np.linalg.norm(w))
    slope, allowed = central(E, fit, theta, np.ones(1), noise, 4 * (1 + np.linalg.norm(w)))
    assert abs(estimate.gradient[0] - slope) <= allowed
    assert allowed < 1e-2 * abs(slope)
    for mistake in (-wanted, wanted / np.exp(log_c), wanted * np.exp(log_c)):
        assert abs(mistake - slope) > allowed


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: s.label)
def test_the_sample_weights_of_logistic_regression(solver):
    """Data re-weighting: the derivative by every sample's weight from one solve."""
    data, log_c = draw(8, labels=True), 0.3
    weights = np.random.default_rng(9).uniform(0.5, 1.5, size=N)
    F = AutodiffMap(lambda w, s: logistic_gradient(data, w, np.exp(log_c) * s))

    def fit(s):
        return fit_logistic(data, s)(np.array([log_c]))

    E, w = logistic(data), fit(weights)
    function = ImplicitFunction(F, solver, rtol=1e-9)
    estimate = function.gradient(w, weights, E)
    assert estimate.status is Status.CONVERGED
    b = np.linalg.norm(data.X_val) / np.sqrt(N)
    noise = b * float(estimate.inner.residual_norm) + 1e3 * EPS * E(w, None)
    for i in (3, 14, 27):
        slope, allowed = central(E, fit, weights, np.eye(N)[i], noise, 4 * (1 + np.linalg.norm(w)))
        assert abs(estimate.gradient[i] - slope) <= allowed
    assert np.abs(estimate.gradient).max() > 100 * allowed
    # Sample weights and C enter as a product only: Σ s_i ∂E/∂s_i = ∂E/∂log C.
    both = AutodiffMap(lambda u, t: logistic_gradient(data, u, anp.exp(t[0]) * weights))
    by_c = ImplicitFunction(both, solver, rtol=1e-9).gradient(w, np.array([log_c]), E).unwrap()[0]
    sizes = weights * np.abs(estimate.gradient)
    assert abs(weights @ estimate.gradient - by_c) <= 1e4 * EPS * sizes.sum()


def test_a_fit_that_stopped_early_is_seen():
    """Three steps of scikit-learn's solver: the root's verdict says so, and the gradient is off by as much."""
    data, theta = draw(7, labels=True), np.array([3.0])
    F = AutodiffMap(lambda w, t: logistic_gradient(data, w, anp.exp(t[0])))
    function = ImplicitFunction(F, Cholesky())
    loose = LogisticRegression(C=float(np.exp(3.0)), fit_intercept=False, tol=1.0).fit(data.X, data.y).coef_[0]
    exact = NewtonRoot()(F, theta, loose)
    assert function.judge(loose, theta).status is Status.MAX_STEPS
    off, right = (function.gradient(w, theta, logistic(data)) for w in (loose, exact))
    assert not off.ok
    assert right.ok
    assert np.linalg.norm(off.gradient - right.gradient) > 1e-3 * np.linalg.norm(right.gradient)
    assert np.linalg.norm(exact.value - fit_logistic(data)(theta)) <= 1e-8 * np.linalg.norm(exact.value)
