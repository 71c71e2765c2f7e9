"""Argmins inside autograd programs: every order of derivative, both modes, and no wrong number let through."""

import warnings

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import elementwise_grad, grad, hessian, jacobian, make_hvp, make_jvp
from hypothesis import given
from hypothesis import strategies as st

from implicit_grad import (
    CG,
    AutodiffMap,
    Cholesky,
    GeneralGMRES,
    NewtonRoot,
    implicit_function,
)
from implicit_grad.testing.matrices import orthogonal
from implicit_grad.testing.strategies import SEEDS

EPS = float(np.finfo(float).eps)


def ridge_data(seed, n=9, d=3):
    rng = np.random.default_rng(seed)
    X, y, u = rng.standard_normal((n, d)), rng.standard_normal(n), rng.standard_normal(d)
    return X, y, u


def ridge(X, y, linear_solver=None):
    """θ = log α ↦ argmin ½‖y − Xw‖² + ½α‖w‖²; the solver is NumPy's, the map autograd's."""

    def solve(theta):
        return np.linalg.solve(X.T @ X + np.exp(theta) * np.eye(X.shape[1]), X.T @ y)

    def F(w, theta):
        return anp.dot(X.T, anp.dot(X, w) - y) + anp.exp(theta) * w

    return implicit_function(solve, F, linear_solver, rtol=1e-10)


@pytest.mark.parametrize("solver", [None, Cholesky(), CG(9, 1e-14), GeneralGMRES(3)], ids=str)
@pytest.mark.parametrize("theta", [-3.0, 0.3, 4.0])
def test_ridge_to_third_order(solver, theta):
    """With w = A⁻¹Xᵀy and α = e^θ: w' = −αA⁻¹w, and again; from dense algebra, not from differences."""
    X, y, u = ridge_data(5)
    w_star = ridge(X, y, solver)
    alpha, P = np.exp(theta), np.linalg.inv(X.T @ X + np.exp(theta) * np.eye(3))
    w = P @ X.T @ y
    # By α: w₁ = −Pw, w₂ = 2P²w, w₃ = −6P³w; by θ = log α the chain rule of e^θ.
    by_alpha = -P @ w, 2 * P @ P @ w, -6 * P @ P @ P @ w
    wanted = (
        alpha * by_alpha[0],
        alpha * by_alpha[0] + alpha**2 * by_alpha[1],
        alpha * by_alpha[0] + 3 * alpha**2 * by_alpha[1] + alpha**3 * by_alpha[2],
    )
    kappa = np.linalg.cond(P)
    derivative = lambda t: anp.dot(u, w_star(t))  # noqa: E731
    for order, exact in enumerate(wanted, start=1):
        derivative = grad(derivative)
        size = np.linalg.norm(u) * sum((alpha**k) * np.linalg.norm(v) for k, v in enumerate(by_alpha, start=1))
        assert abs(derivative(theta) - u @ exact) <= 64 * 10**order * kappa * EPS * size, order
        assert abs(u @ exact) > 1e-6 * size


@pytest.mark.parametrize("theta", [-3.0, 0.3, 4.0])
def test_second_derivatives_agree_with_differences_of_the_first(theta):
    """The same from the outside: grad(grad) is the slope of grad, by the fourth-order rule."""
    X, y, u = ridge_data(6)
    w_star = ridge(X, y)
    first = grad(lambda t: anp.dot(u, w_star(t)) ** 2)
    h = 1e-3
    slope = (8 * (first(theta + h) - first(theta - h)) - (first(theta + 2 * h) - first(theta - 2 * h))) / (12 * h)
    second = grad(first)(theta)
    size = np.linalg.norm(u) ** 2 * np.linalg.norm(w_star(theta)) ** 2
    assert abs(second - slope) <= (64 * 50 * EPS / h + 64 * h**4) * size
    assert abs(second) > 1e-4 * size


W = np.array([[0.3, -0.7, 0.1], [0.6, 0.2, -0.5], [-0.3, 0.4, 0.3]])


def equilibrium(linear_solver=None):
    """φ = tanh(Wφ + θ), whose Jacobian is not symmetric."""

    def solve(theta):
        F = AutodiffMap(lambda p, t: p - anp.tanh(anp.dot(W, p) + t))
        return NewtonRoot()(F, theta, np.zeros(3))

    return implicit_function(solve, lambda p, t: p - anp.tanh(anp.dot(W, p) + t), linear_solver)


def closed_equilibrium(theta):
    """φ, its Jacobian J and its second derivative T[i, j, k] = ∂²φ_i/∂θ_j∂θ_k, by dense algebra.

    With z = artanh φ: z = Wφ + θ, so D⁻¹φ' = Wφ' + I with D = 1 − φ², and once more.
    """
    phi = np.zeros(3)
    for _ in range(3000):
        phi = np.tanh(W @ phi + theta)
    D = 1 - phi**2
    inverse = np.linalg.inv(np.diag(1 / D) - W)
    J = inverse
    # ∂/∂θ_k of (1/D_i) J_ij − (WJ)_ij = δ_ij: (2φ_i/D_i²) J_ik J_ij + Σ (D⁻¹ − W)_il T_ljk = 0.
    T = -np.einsum("il,l,lk,lj->ijk", inverse, 2 * phi / D**2, J, J)
    return phi, J, T


@pytest.mark.parametrize("solver", [None, GeneralGMRES(3)], ids=str)
def test_a_nonsymmetric_root_to_second_order_in_every_mode(solver):
    theta, u = np.array([0.3, -0.8, 0.5]), np.array([1.0, -2.0, 0.7])
    star = equilibrium(solver)
    phi, J, T = closed_equilibrium(theta)
    v, w = np.array([0.4, 1.1, -0.6]), np.array([-1.0, 0.2, 0.9])
    tol = 64 * 9 * np.linalg.cond(J) ** 2 * EPS
    assert np.linalg.norm(star(theta) - phi) <= tol
    assert np.linalg.norm(jacobian(star)(theta) - J) <= tol * np.linalg.norm(J)
    assert np.linalg.norm(make_jvp(star)(theta)(v)[1] - J @ v) <= tol * np.linalg.norm(J)

    def scalar(t):
        return anp.dot(u, star(t))

    second = np.einsum("i,ijk->jk", u, T)
    size = np.linalg.norm(T) * np.linalg.norm(u)
    H = hessian(scalar)(theta)
    assert np.linalg.norm(H - second) <= tol * size
    # Reverse over reverse is symmetric because the function is, not by construction: two different programs.
    assert np.linalg.norm(H - H.T) <= tol * size
    assert np.linalg.norm(H) > 0.1
    assert np.linalg.norm(make_hvp(scalar)(theta)[0](v) - second @ v) <= tol * size

    def forward(t):
        return make_jvp(star)(t)(v)[1]

    # Forward over forward, reverse over forward, forward over reverse.
    directed = np.einsum("ijk,j,k->i", T, v, w)
    assert np.linalg.norm(make_jvp(forward)(theta)(w)[1] - directed) <= tol * size
    assert np.linalg.norm(grad(lambda t: anp.dot(u, forward(t)))(theta) - second @ v) <= tol * size
    assert np.linalg.norm(make_jvp(grad(scalar))(theta)(w)[1] - second @ w) <= tol * size
    for mistake in (J.T, -J, np.linalg.inv(np.diag(1 / (1 - phi**2)) - W.T)):
        assert np.linalg.norm(jacobian(star)(theta) - mistake) > 0.1


@given(size=st.integers(1, 5), inputs=st.integers(1, 4), seed=SEEDS)
def test_forward_and_reverse_are_transposes_and_hessians_symmetric(size, inputs, seed):
    """⟨u, Jw⟩ = ⟨Jᵀu, w⟩ and ∂²⟨u, φ*⟩ symmetric, for a random bent map with a known root."""
    rng = np.random.default_rng(seed)
    A = orthogonal(rng, size) + 0.2 * rng.standard_normal((size, size)) / size
    B, bend = rng.standard_normal((size, inputs)), 0.1 * rng.standard_normal((size, size, inputs))

    def F(p, t):
        return anp.dot(A, p) + anp.dot(anp.dot(bend, t), p) + 0.05 * anp.sin(p) ** 2 - anp.dot(B, anp.sin(t))

    def solve(t):
        return NewtonRoot()(AutodiffMap(F), t, np.zeros(size))

    theta = 0.3 * rng.standard_normal(inputs)
    u, w, v = rng.standard_normal(size), rng.standard_normal(inputs), rng.standard_normal(inputs)
    star = implicit_function(solve, F)
    M = A + np.tensordot(bend, theta, 1) + np.diag(0.05 * np.sin(2 * star(theta)))
    growth = np.linalg.norm(np.linalg.inv(M), 2)
    tol = 256 * size * EPS * (1 + growth) ** 4 * np.linalg.norm(u) * np.linalg.norm(w) * (1 + np.linalg.norm(B)) ** 2
    forwards, backwards = make_jvp(star)(theta)(w)[1], grad(lambda t: anp.dot(u, star(t)))(theta)
    assert abs(u @ forwards - backwards @ w) <= tol
    by_w = make_hvp(lambda t: anp.dot(u, star(t)))(theta)[0]
    assert abs(by_w(w) @ v - by_w(v) @ w) <= tol * (1 + np.linalg.norm(v))


def test_an_argmin_inside_a_larger_program():
    """A dict of hyper-parameters goes in, a matrix comes out, and θ also enters around the argmin."""
    rng = np.random.default_rng(7)
    X, Y = rng.standard_normal((8, 3)), rng.standard_normal((8, 2))
    hyper = {"log_alpha": 0.3, "weights": rng.uniform(0.5, 1.5, size=8)}

    def F(P, h):
        return anp.dot(X.T * h["weights"], anp.dot(X, P) - Y) + anp.exp(h["log_alpha"]) * P

    def solve(h):
        assert isinstance(h["weights"], np.ndarray)
        return np.linalg.solve(
            (X.T * h["weights"]) @ X + np.exp(h["log_alpha"]) * np.eye(3), (X.T * h["weights"]) @ Y
        )

    star = implicit_function(solve, F, Cholesky())

    def program(h):
        scaled = {"log_alpha": 2 * h["log_alpha"], "weights": h["weights"] ** 2}
        P = star(scaled)
        return anp.sum(anp.tanh(P) ** 2) + anp.sum(h["weights"]) * h["log_alpha"]

    def traced(h):
        """The same with autograd through the dense solve: every digit but the rounding should be equal."""
        a, s = 2 * h["log_alpha"], h["weights"] ** 2
        P = anp.linalg.solve(anp.dot(X.T * s, X) + anp.exp(a) * np.eye(3), anp.dot(X.T * s, Y))
        return anp.sum(anp.tanh(P) ** 2) + anp.sum(h["weights"]) * h["log_alpha"]

    assert star(hyper).shape == (3, 2)
    found, wanted = grad(program)(hyper), grad(traced)(hyper)
    for key in hyper:
        size = np.linalg.norm(wanted[key])
        assert np.linalg.norm(found[key] - wanted[key]) <= 1e4 * EPS * size
    # And mixed second derivatives: of ∂/∂log α by the weights.
    mixed = [
        grad(lambda h, f=f: grad(lambda a: f({"log_alpha": a, "weights": h}))(0.3))(hyper["weights"])
        for f in (program, traced)
    ]
    assert np.linalg.norm(mixed[0] - mixed[1]) <= 1e5 * EPS * np.linalg.norm(mixed[1])


def test_arguments_of_every_shape():
    """A number, a 0-d array, a tuple; and elementwise for arrays of any shape."""
    star = implicit_function(np.sqrt, lambda p, t: p**2 - t)
    assert star(4) == 2.0
    assert grad(star)(4.0) == 0.25
    assert star(np.array(4.0)).shape == ()
    table = np.array([[1.0, 4.0], [9.0, 16.0]])
    assert np.array_equal(elementwise_grad(star)(table), 0.5 / np.sqrt(table))
    pair = implicit_function(lambda t: t[0] / t[1], lambda p, t: t[1] * p - t[0])
    assert grad(pair)((3.0, 2.0)) == (0.5, -0.75)


def test_an_affine_map_warns_of_nothing():
    """Its Jacobian is constant: derivatives of that are zero, and no mistake."""
    A = np.array([[2.0, 1.0], [0.0, 3.0]])
    star = implicit_function(lambda t: np.linalg.solve(A, t), lambda p, t: anp.dot(A, p) - t)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        J = jacobian(star)(np.ones(2))
        second = jacobian(jacobian(star))(np.ones(2))
        twice = make_jvp(lambda t: make_jvp(star)(t)(np.ones(2))[1])(np.ones(2))(np.ones(2))[1]
    assert np.linalg.norm(J - np.linalg.inv(A)) <= 8 * EPS
    assert np.array_equal(second, np.zeros((2, 2, 2)))
    assert np.array_equal(twice, np.zeros(2))


def test_a_map_that_forgot_theta_warns():
    c = np.array([1.0, 2.0])
    star = implicit_function(lambda t: c, lambda p, t: p - c)
    with pytest.warns(UserWarning, match="F does not depend on theta"):
        assert np.array_equal(jacobian(star)(np.ones(3)), np.zeros((2, 3)))
