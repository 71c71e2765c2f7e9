"""Laws (a): inner solvers."""

import laws_inner as laws
import pytest
from hypothesis import given

from implicit_grad import GradientDescent, Newton, ScipyMinimize
from implicit_grad.testing.strategies import CONVEX_EDGES, RIDGE_EDGES, convex_specs, ridge_specs, with_edges

FLOOR = Newton(rtol=1e-13)
SOLVERS = [
    GradientDescent(None, 10),
    GradientDescent(None, 3, proximal=False),
    Newton(),
    Newton(rtol=1e-3, max_steps=2),
    ScipyMinimize("L-BFGS-B"),
    ScipyMinimize("L-BFGS-B", rtol=1e-3, max_steps=3),
    ScipyMinimize("Newton-CG"),
    ScipyMinimize("Nelder-Mead", max_steps=40),
]


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
@with_edges(*CONVEX_EDGES)
@given(spec=convex_specs())
def test_law_01_residual_is_honest(solver, spec):
    """Law 1: the reported ‖r_in‖ is an independent recomputation's within 10·N·u·(‖∇L‖_abs + λ(‖φ‖ + ‖θ‖)).

    And the status is CONVERGED iff that residual meets the tolerance asked for, or the rounding floor.
    """
    laws.check_law_01(solver, spec)


@with_edges(*CONVEX_EDGES)
@given(spec=convex_specs())
def test_law_01_newton_is_global(spec):
    """Law 1, at the other end: damped Newton converges on every strongly convex problem up to κ̄ = 10⁶."""
    laws.check_law_01_global(Newton(), spec)


@pytest.mark.parametrize(
    "solver", [GradientDescent(0.1, 0), Newton(max_steps=0), ScipyMinimize(max_steps=0)], ids=repr
)
@with_edges(*CONVEX_EDGES)
@given(spec=convex_specs())
def test_law_02_no_steps(solver, spec):
    """Law 2: K = 0 returns θ bitwise. The one derivative it may ask for is the residual that law 1 demands."""
    laws.check_law_02(solver, spec)


@with_edges(*CONVEX_EDGES)
@given(spec=convex_specs())
def test_law_03_descent(spec):
    """Law 3: gradient descent with α ≤ 1/M̄ has F_{t+1} ≤ F_t − (α/2)‖∇F‖² + 8u·F_abs."""
    laws.check_law_03(GradientDescent, spec)


@with_edges(*CONVEX_EDGES)
@given(spec=convex_specs())
def test_law_04_contraction(spec):
    """Law 4: ‖φ_t − φ*‖ ≤ (1 − αλ)^t ‖θ − φ*‖ for convex L and α = 1/M̄."""
    laws.check_law_04(GradientDescent, spec)


@with_edges(*RIDGE_EDGES)
@given(spec=ridge_specs())
def test_law_05_ridge_path(spec):
    """Law 5: on ridge, φ_K − φ* = (I − αA)^K (θ − φ*)."""
    laws.check_law_05(GradientDescent, spec)


@pytest.mark.parametrize(
    "solver", [GradientDescent(None, 3), Newton(), ScipyMinimize("L-BFGS-B", rtol=1e-3, max_steps=3)], ids=repr
)
@with_edges(*CONVEX_EDGES)
@given(spec=convex_specs())
def test_law_06_residual_bounds_error(solver, spec):
    """Law 6: ‖φ̂ − φ*‖ ≤ ‖r_in‖/m with m = λ for convex L."""
    laws.check_law_06(solver, spec)


@with_edges(*CONVEX_EDGES)
@given(spec=convex_specs())
def test_law_08_firmly_nonexpansive(spec):
    """Law 8: ‖Δφ*‖² ≤ ⟨Δφ*, Δθ⟩ for convex L."""
    laws.check_law_08(FLOOR, spec)


@with_edges(*CONVEX_EDGES)
@given(spec=convex_specs())
def test_law_09_path_in_lam(spec):
    """Law 9: ‖φ*(λ) − θ‖ is non-increasing and L(φ*(λ)) non-decreasing in λ."""
    laws.check_law_09(FLOOR, spec)


@with_edges(*CONVEX_EDGES)
@given(spec=convex_specs())
def test_law_10_distance(spec):
    """Law 10: ‖φ* − θ‖ ≤ ‖∇L(θ)‖/λ for convex L."""
    laws.check_law_10(FLOOR, spec)


@with_edges(*RIDGE_EDGES)
@given(spec=ridge_specs())
def test_law_11_envelope(spec):
    """Law 11: ∇_θ min_φ F = λ(θ − φ*) = ∇L(φ*), by central differences, which are exact on ridge."""
    laws.check_law_11(FLOOR, spec)


@pytest.mark.parametrize(
    "pair",
    [
        (GradientDescent(None, 20), Newton()),
        (Newton(), ScipyMinimize("L-BFGS-B")),
        (ScipyMinimize("BFGS"), GradientDescent(None, 5)),
    ],
    ids=repr,
)
@with_edges(*CONVEX_EDGES)
@given(spec=convex_specs())
def test_law_07_two_solvers(pair, spec):
    """Law 7: two solvers agree to (‖r₁‖ + ‖r₂‖)/m."""
    laws.check_law_07(pair, spec)


@with_edges(*RIDGE_EDGES)
@given(spec=ridge_specs())
def test_law_12_one_newton_step(spec):
    """Law 12: one Newton step from any start solves a quadratic to tol_φ."""
    laws.check_law_12(Newton(max_steps=1), spec)


@pytest.mark.parametrize("solver", SOLVERS[:1] + SOLVERS[2:7], ids=repr)
@with_edges(*CONVEX_EDGES)
@given(spec=convex_specs())
def test_law_12_fixed_point(solver, spec):
    """Law 12: a start at φ* stays there within tol_φ, under every solver."""
    laws.check_law_12_fixed_point(solver, spec)
