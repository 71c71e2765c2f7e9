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
    EXACT,
    ArgumentError,
    ArgumentTypeError,
    AutodiffMap,
    BilevelProblem,
    Cholesky,
    ConvergenceError,
    FirstOrderGradient,
    GeneralGMRES,
    GradientDescent,
    ImplicitGradient,
    IndefiniteError,
    LeastSquares,
    MetaGradient,
    Newton,
    NewtonRoot,
    NonFiniteError,
    ScipyMinimize,
    implicit_function,
    outer_loss,
)
from implicit_grad.testing.matrices import orthogonal
from implicit_grad.testing.problems import RidgeSpec
from implicit_grad.testing.strategies import SEEDS, ridge_specs, softmax_specs

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


# ---- nothing wrong is let through


def test_a_solver_that_did_not_solve_is_refused():
    off = implicit_function(lambda t: np.sqrt(t) + 1e-3, lambda p, t: p**2 - t)
    with pytest.raises(ConvergenceError, match="MAX_STEPS"):
        off(4.0)
    allowed = implicit_function(lambda t: np.sqrt(t) + 1e-3, lambda p, t: p**2 - t, rtol=1e-2)
    assert abs(grad(allowed)(4.0) - 0.25) <= 1e-3  # first order in the error of φ

    def impatient(t):
        return NewtonRoot(max_steps=1)(AutodiffMap(lambda p, s: p**2 - s), t, np.ones(1))

    with pytest.raises(ConvergenceError, match="NewtonRoot"):
        implicit_function(impatient, lambda p, t: p**2 - t)(np.array([4.0]))


def test_a_saddle_is_refused_by_a_solver_for_curvatures():
    signs = np.array([1.0, -1.0])
    for solver in (Cholesky(), CG(3), CG(3, 1e-8)):
        star = implicit_function(lambda t: signs * t, lambda p, t: signs * p - t, solver)
        with pytest.raises(IndefiniteError):
            grad(lambda t, star=star: anp.sum(star(t)))(np.ones(2))


def test_a_singular_jacobian_is_refused():
    star = implicit_function(np.cbrt, lambda p, t: p**3 - t)
    with pytest.raises(ConvergenceError, match="NONFINITE"):
        grad(star)(0.0)


def test_bad_arguments_are_refused_by_name():
    def F(p, t):
        return p - t

    for arguments, name in (
        ((3.0, F), "solver"),
        ((np.sqrt, 3.0), "F"),
        ((np.sqrt, F, Cholesky), "linear_solver"),
        ((np.sqrt, F, None, True), "rtol"),
    ):
        with pytest.raises(ArgumentTypeError, match=name):
            implicit_function(*arguments)
    with pytest.raises(ArgumentError, match="F: returned shape"):
        implicit_function(lambda t: t, lambda p, t: anp.sum(p - t))(np.ones(2))
    with pytest.raises(ArgumentTypeError, match="solver"):
        implicit_function(lambda t: "x", F)(np.ones(2))
    for theta, error, name in (
        (np.array([1j]), ArgumentTypeError, "theta"),
        ({"a": 1.0, "b": "x"}, ArgumentTypeError, r"theta\['b'\]"),
        ([1.0, np.array([np.nan])], NonFiniteError, r"theta\[1\]"),
    ):
        with pytest.raises(error, match=name):
            implicit_function(lambda t: t, F)(theta)
    problem = RidgeSpec().build().problem
    with pytest.raises(ArgumentTypeError, match="problem"):
        outer_loss(F, EXACT)
    with pytest.raises(ArgumentTypeError, match="method"):
        outer_loss(problem, Newton())


# ---- estimators as gradients


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
