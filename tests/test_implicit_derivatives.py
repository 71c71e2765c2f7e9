"""Implicit functions of any F(φ, θ) = 0: derivatives known by construction, and that of iMAML."""

import autograd.numpy as anp
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from oracles.losses import Diagonal
from stationarity_maps import EPS, MapSpec

from implicit_grad import (
    CG,
    EXACT,
    MINRES,
    Autodiff,
    AutodiffMap,
    Cholesky,
    ConvergenceError,
    GeneralGMRES,
    GeneralLU,
    ImplicitFunction,
    LeastSquares,
    Status,
)
from implicit_grad.testing.strategies import RIDGE_EDGES, SEEDS, ridge_specs, softmax_specs, with_edges

MAPS = st.builds(
    MapSpec,
    size=st.integers(1, 6),
    inputs=st.integers(1, 5),
    spread=st.integers(0, 4),
    log10_scale=st.integers(-6, 6),
    seed=SEEDS,
)


@pytest.mark.parametrize("solver", [GeneralLU(), GeneralGMRES(9), GeneralGMRES(9, 1e-13)], ids=lambda s: s.label)
@given(spec=MAPS)
@example(spec=MapSpec(size=1, inputs=1, seed=7))
@example(spec=MapSpec(size=5, inputs=2, spread=4, log10_scale=-6, seed=8))
def test_derivatives_are_those_of_the_theorem(solver, spec):
    """dφ*/dθ = A⁻¹B, forwards and backwards, from dense algebra; and ⟨u, Jw⟩ = ⟨Jᵀu, w⟩."""
    F, A, B, phi, theta = spec.build()
    rng = np.random.default_rng([spec.seed, 3])
    u, w = rng.standard_normal(spec.size), rng.standard_normal(spec.inputs)
    function = ImplicitFunction(F, solver)
    forwards, backwards = function.jvp(phi, theta, w), function.vjp(phi, theta, u)
    # ‖J‖ ≤ ‖A⁻¹‖‖B‖, and a solve is good to κ·eps.
    size = np.linalg.norm(np.linalg.inv(A), 2) * np.linalg.norm(B, 2)
    allowed = 64 * spec.size * spec.kappa * EPS * size
    assert np.linalg.norm(forwards.unwrap() - np.linalg.solve(A, B @ w)) <= allowed * np.linalg.norm(w)
    assert np.linalg.norm(backwards.unwrap() - B.T @ np.linalg.solve(A.T, u)) <= allowed * np.linalg.norm(u)
    assert abs(u @ forwards.value - backwards.value @ w) <= allowed * np.linalg.norm(u) * np.linalg.norm(w)
    # At φ₀ every term of F is exactly zero.
    assert forwards.root.residual_norm == 0
    assert forwards.status is backwards.status is Status.CONVERGED


def test_the_mistakes_about_a_nonsymmetric_map_are_seen():
    """A missing transpose, a wrong sign, and ½(A + Aᵀ) are each far off where the right answer is good to 1e-13."""
    F, A, B, phi, theta = MapSpec(size=4, inputs=4, seed=6).build()
    u = np.array([1.0, -2.0, 0.5, 3.0])
    found = ImplicitFunction(F).vjp(phi, theta, u).unwrap()
    assert np.linalg.norm(found - B.T @ np.linalg.solve(A.T, u)) <= 64 * 40 * EPS * np.linalg.norm(found)
    symmetric = 0.5 * (A + A.T)
    for mistake in (
        B.T @ np.linalg.solve(A, u),
        B @ np.linalg.solve(A.T, u),
        -found,
        B.T @ np.linalg.solve(symmetric, u),
        B.T @ A @ u,
    ):
        assert np.linalg.norm(mistake - found) > 0.1 * np.linalg.norm(found)


@pytest.mark.parametrize("solver", [Cholesky(), CG(40, 1e-10), CG(4), MINRES(40, 1e-10)], ids=lambda s: s.label)
def test_a_solver_that_counts_on_symmetry_is_found_out(solver):
    """∂_φF is positive definite, but not symmetric: no solver for curvatures may call its answer converged."""
    A = np.array([[2.0, 1.5, 0.0, 0.2], [-1.5, 3.0, 1.0, 0.0], [0.3, -1.0, 2.5, 1.2], [0.0, 0.1, -1.2, 4.0]])
    F = AutodiffMap(lambda p, t: anp.dot(A, p) - t)
    theta = np.array([1.0, -1.0, 2.0, 0.5])
    derivative = ImplicitFunction(F, solver).vjp(np.linalg.solve(A, theta), theta, np.ones(4))
    wanted = np.linalg.solve(A.T, np.ones(4))
    assert not np.linalg.norm(derivative.value - wanted) <= 1e-3  # NaN is not right either
    assert derivative.status is not Status.CONVERGED
    if solver != CG(4):  # which promises k steps, and no more
        with pytest.raises(ConvergenceError):
            derivative.unwrap()


@given(spec=st.one_of(ridge_specs(), softmax_specs()))
@with_edges(*RIDGE_EDGES)
def test_imaml_is_one_of_them(spec):
    """F = ∇L + λ(φ − θ), traced: ∇F(θ) equals the specialised path."""
    case = spec.build()
    X, y = case.train.X, getattr(case.train, "y", None)

    def gradient(p):
        if y is not None:
            return anp.dot(X.T, anp.dot(X, p) - y) / len(y)
        z = anp.dot(X, anp.reshape(p, (X.shape[1], -1)))
        z = z - anp.max(z, axis=1, keepdims=True)
        e = anp.exp(z)
        labels = np.eye(case.train.n_classes)[case.train.labels]
        return anp.ravel(anp.dot(X.T, e / anp.sum(e, axis=1, keepdims=True) - labels)) / len(X)

    F = AutodiffMap(lambda p, t: gradient(p) + case.lam * (p - t))
    exact = EXACT(case.problem, case.theta)
    for solver in (Cholesky(refinements=2), GeneralLU(refinements=2)):
        estimate = ImplicitFunction(F, solver).gradient(exact.inner, case.theta, case.problem.outer)
        assert np.linalg.norm(estimate.gradient - exact.gradient) <= 2 * case.tol_exact()
        assert estimate.status in (Status.CONVERGED, Status.ILL_CONDITIONED)


def test_the_outer_loss_may_depend_on_theta_directly():
    """E = ½‖φ‖² + θᵀφ + sin θ₀: forgetting ∂_θE is a mistake this sees."""
    F, A, B, phi, theta = MapSpec(size=3, inputs=3, seed=7).build()

    def E(p, t):
        return 0.5 * anp.sum(p**2) + anp.dot(t, p) + anp.sin(t[0])

    estimate = ImplicitFunction(F).gradient(phi, theta, E)
    direct = phi + np.array([np.cos(theta[0]), 0, 0])
    wanted = direct + B.T @ np.linalg.solve(A.T, phi + theta)
    assert np.linalg.norm(estimate.unwrap() - wanted) <= 64 * 30 * EPS * np.linalg.norm(wanted)
    assert np.linalg.norm(direct) > 0.1
    closed = ImplicitFunction(F).gradient(phi, theta, Diagonal(np.ones(3)))
    traced = ImplicitFunction(F).gradient(phi, theta, lambda p, t: 0.5 * anp.sum(p**2))
    assert np.array_equal(closed.gradient, traced.gradient)
    assert closed.cost == traced.cost


def test_autodiff_losses_and_closed_forms_give_the_same():
    """An outer loss as `Autodiff`, as a closed form, and as a function of both arguments."""
    F, _, _, phi, theta = MapSpec(seed=9).build()
    y = np.array([0.5, -1.0, 2.0])
    closed = LeastSquares(np.eye(3), y)
    traced = Autodiff(lambda p: anp.mean((p - y) ** 2) / 2)
    g = [ImplicitFunction(F).gradient(phi, theta, E).unwrap() for E in (closed, traced, lambda p, t: traced.f(p))]
    for other in g[1:]:
        assert np.linalg.norm(other - g[0]) <= 64 * 10 * EPS * np.linalg.norm(g[0])


def test_batch_axes_broadcast():
    """One φ, many θ; directions and data with axes of their own."""
    A = np.array([[2.0, 1.0], [-1.0, 3.0]])
    F = AutodiffMap(lambda p, t: anp.dot(A, p) - t)
    theta = np.arange(12.0).reshape(3, 2, 2)
    phi = np.linalg.solve(A, theta[..., None])[..., 0]
    u = np.arange(4.0).reshape(2, 2) + 1
    back = ImplicitFunction(F).vjp(phi, theta, u)
    assert back.value.shape == (3, 2, 2)
    for i, j in np.ndindex(3, 2):
        assert np.array_equal(back.value[i, j], ImplicitFunction(F).vjp(phi[i, j], theta[i, j], u[j]).value)
    same = ImplicitFunction(F).jvp(phi[0, 0], theta[0, 0], [1.0, 0.0])
    shared = ImplicitFunction(F).jvp(np.broadcast_to(phi[0, 0], (3, 2)), theta[0, 0], [1.0, 0.0])
    assert np.array_equal(shared.value, np.broadcast_to(same.value, (3, 2)))
