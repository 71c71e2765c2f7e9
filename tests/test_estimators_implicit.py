"""The implicit gradient against 50-digit arithmetic, and its promises about saddles, scales and costs."""

from dataclasses import replace

import numpy as np
import pytest
from oracles import scenes, traced
from oracles.losses import Diagonal, Scaled
from oracles.scenes import EPS, LAMS

from implicit_grad import (
    CG,
    EXACT,
    BilevelProblem,
    Cholesky,
    GradientDescent,
    ImplicitGradient,
    IndefiniteError,
    LeastSquares,
    MetaGradient,
    Newton,
    ScipyCG,
    Solution,
    Status,
)

NETWORKS = [
    (hidden, activation, classes)
    for hidden in ((4,), (3, 2))
    for activation in ("tanh", "softplus")
    for classes in (0, 3)
]


@pytest.mark.parametrize("lam", LAMS, ids="{:.3g}".format)
@pytest.mark.parametrize("seed", [5, 6])
@pytest.mark.parametrize("make", [scenes.ridge, scenes.softmax], ids=["ridge", "softmax"])
def test_exact_agrees_with_fifty_digits(make, seed, lam):
    """Relative error ≤ 4·N·κ̄·eps, κ̄ from the global curvature bound; 64·N·κ̄·eps is what the house allows."""
    scene = make(lam, seed)
    estimate = EXACT(scene.problem, scene.theta)
    assert estimate.status is Status.CONVERGED
    assert scene.error(estimate.unwrap()) <= 4 * scene.theta.size * scene.condition * EPS


@pytest.mark.parametrize("lam", LAMS[:3], ids="{:.3g}".format)
@pytest.mark.parametrize(("hidden", "activation", "classes"), NETWORKS)
def test_exact_agrees_with_fifty_digits_on_networks(hidden, activation, classes, lam):
    """Relative error ≤ 4·N·κ(A)·eps with A at φ*; the library's φ only says which minimum is meant."""
    scene = scenes.network(lam, hidden, activation, classes)
    estimate = EXACT(scene.problem, scene.theta)
    phi = estimate.inner.unwrap()
    condition = np.linalg.cond(scene.problem.curvature(phi).dense())
    assert scene.error(estimate.unwrap(), start=phi) <= 4 * scene.theta.size * condition * EPS


@pytest.mark.parametrize("lam", LAMS, ids="{:.3g}".format)
@pytest.mark.parametrize("make", [scenes.ridge, scenes.softmax], ids=["ridge", "softmax"])
def test_hessian_belongs_to_the_train_loss_and_both_sit_at_phi(make, lam):
    """At any φ the estimate is λ (H_train(φ) + λI)⁻¹ ∇L_test(φ), with H and ∇ from autograd."""
    scene = make(lam)
    phi = scene.theta + np.linspace(-1, 1, scene.theta.size)
    inner = Solution(phi, np.nan, 0, Status.BUDGET_SPENT, "any φ will do")
    train, test = scene.traced
    A = traced.hessian(train, phi) + lam * np.eye(phi.size)
    wanted = lam * np.linalg.solve(A, traced.grad(test)(phi))
    for solver in (Cholesky(), CG(200, 1e-14), ScipyCG(200, 1e-14)):
        g = ImplicitGradient(solver)(scene.problem, scene.theta, inner).gradient
        assert np.linalg.norm(g - wanted) <= 64 * phi.size * scene.condition * EPS * np.linalg.norm(wanted)


def _quadratic(curvature, lam):
    d = len(curvature)
    return BilevelProblem(Diagonal(np.array(curvature)), LeastSquares(np.eye(d), np.arange(1.0, d + 1)), lam)


@pytest.mark.parametrize("solver", [Cholesky(), CG(10), CG(10, 1e-12), ScipyCG(10)], ids=lambda s: s.label)
@pytest.mark.parametrize("lam", [0.5, 16.0])
def test_a_saddle_has_no_meta_gradient(solver, lam):
    problem = _quadratic([2.0, -lam - 0.5, 3.0], lam)
    inner = Solution(np.ones(3), 0.0, 0, Status.CONVERGED, None)
    estimate = ImplicitGradient(solver)(problem, np.ones(3), inner)
    assert estimate.status is Status.INDEFINITE
    assert np.isnan(estimate.gradient).all()
    # Exact from the dense factorisation, else a Rayleigh quotient: an upper bound of λ_min(H + λI) = −½.
    smallest = estimate.linear.smallest_eigenvalue
    assert -0.5 - 4 * lam * EPS <= smallest <= 0
    if isinstance(solver, Cholesky):
        assert abs(smallest + 0.5) <= 4 * lam * EPS
    with pytest.raises(IndefiniteError, match="smallest eigenvalue"):
        estimate.unwrap()


def test_the_formal_number_at_a_saddle_is_given_on_request():
    problem = _quadratic([2.0, -1.0, 3.0], 0.5)
    inner = Solution(np.ones(3), 0.0, 0, Status.CONVERGED, None)
    estimate = ImplicitGradient(CG(1), require_minimum=False)(problem, np.ones(3), inner)
    assert np.isfinite(estimate.gradient).all()


@pytest.mark.parametrize("lam", [1e-300, 1e-155, 1e155, 1e300])
@pytest.mark.parametrize("solver", [Cholesky(), CG(6), CG(50, 1e-14), ScipyCG(6)], ids=lambda s: s.label)
def test_extreme_lam_neither_overflows_nor_loses_digits(solver, lam):
    """Diagonal H: g_i = λ b_i/(h_i + λ), each term computed without overflow."""
    h = np.array([0.5, 1.0, 1.5, 2.0, 3.0, 5.0])
    problem = _quadratic(h, lam)
    inner = Solution(np.zeros(6), 0.0, 0, Status.CONVERGED, None)
    estimate = ImplicitGradient(solver)(problem, np.zeros(6), inner)
    b = problem.outer.gradient(np.zeros(6))
    wanted = b / (1 + h / lam) if lam > 1 else lam * b / (h + lam)
    assert np.linalg.norm(estimate.gradient / wanted - 1) <= 64 * 6 * 10 * EPS
    smallest = estimate.linear.smallest_eigenvalue
    assert smallest is None or smallest >= (0.5 + lam) * (1 - 80 * EPS)


@pytest.mark.parametrize("scale", [1e-200, 1e-150, 1e150, 1e200])
def test_extreme_test_losses_scale_the_gradient_exactly(scale):
    """The right-hand side is divided by a power of two, so 2^k·L_test gives the same digits."""
    scene = scenes.ridge(0.37)
    power = 2.0 ** np.round(np.log2(scale))
    inner = Newton()(scene.problem, scene.theta)
    plain = scene.problem
    scaled = replace(plain, outer=Scaled(plain.outer, power))
    for solver in (Cholesky(), CG(4), ScipyCG(4)):
        g, many = (ImplicitGradient(solver)(p, scene.theta, inner).gradient for p in (plain, scaled))
        assert np.array_equal(many, power * g)


def test_the_path_holds_the_estimate_of_every_shorter_solve():
    """One recorded CG run gives bitwise the gradients of CG-0, CG-1, …"""
    scene = scenes.softmax(0.37)
    inner = Newton()(scene.problem, scene.theta)
    estimate = ImplicitGradient(CG(5, record=True))(scene.problem, scene.theta, inner)
    for k in range(6):
        alone = ImplicitGradient(CG(k))(scene.problem, scene.theta, inner)
        assert np.array_equal(estimate.path.points[k], alone.gradient)
        assert estimate.path.residual_norms[k] == alone.linear.residual_norm
        assert estimate.linear.at(k).status is alone.linear.status
        assert estimate.linear.at(k).cost == alone.linear.cost


def test_the_first_failed_stage_is_the_status():
    scene = scenes.ridge(1e-3)
    for inner, linear, wanted in (
        (Newton(max_steps=0), CG(3), Status.MAX_STEPS),
        (GradientDescent(None, 3), CG(1, 1e-9), Status.MAX_STEPS),
        (GradientDescent(None, 3), CG(1), Status.BUDGET_SPENT),
        (GradientDescent(None, 3), CG(99, 1e-9), Status.CONVERGED),
    ):
        assert MetaGradient(inner, ImplicitGradient(linear))(scene.problem, scene.theta).status is wanted
