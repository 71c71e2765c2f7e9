"""Laws (a), continued: momentum, Adam, minibatches, Hessian-free and quasi-Newton steps."""

import laws_first_order as laws
import laws_inner as inner
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from implicit_grad import LBFGS, Adam, HeavyBall, Nesterov, Newton, NewtonCG
from implicit_grad.testing.inner_laws import InnerSubject, check_residual_bound
from implicit_grad.testing.promises import Budget
from implicit_grad.testing.strategies import (
    CONVEX_EDGES,
    RIDGE_EDGES,
    convex_specs,
    ridge_specs,
    softmax_specs,
    with_edges,
)

SOLVERS = [
    Nesterov(None, 12),
    Nesterov(None, 60, rtol=1e-3),
    HeavyBall(None, 12),
    HeavyBall(None, 60, rtol=1e-3),
    Adam(0.05, 12),
    Adam(0.05, 60, rtol=1e-2),
    NewtonCG(4, 3),
    NewtonCG(6, 3, rtol=1e-3),
    LBFGS(6),
    LBFGS(9, 3, rtol=1e-3),
]
MODERATE = st.one_of(ridge_specs(log10_ratio=st.integers(-3, 4)), softmax_specs(log10_ratio=st.integers(-3, 3)))


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
@with_edges(*CONVEX_EDGES)
@given(spec=convex_specs())
@settings(max_examples=15)
def test_law_01_residual_is_honest(solver, spec):
    """Law 1: the reported residual is recomputed, and CONVERGED means that it meets the tolerance."""
    inner.check_law_01(solver, spec)


@pytest.mark.parametrize(
    "solver",
    [Nesterov(0.1, 0, momentum=0.5), HeavyBall(0.1, 0, momentum=0.5), Adam(0.1, 0), NewtonCG(0), LBFGS(0)],
    ids=repr,
)
@with_edges(*CONVEX_EDGES)
@given(spec=convex_specs())
@settings(max_examples=15)
def test_law_02_no_steps(solver, spec):
    """Law 2: K = 0 returns θ bitwise."""
    inner.check_law_02(solver, spec)


@pytest.mark.parametrize("solver", SOLVERS[::2], ids=repr)
@with_edges(*CONVEX_EDGES)
@given(spec=convex_specs())
@settings(max_examples=15)
def test_law_06_error_below_residual(solver, spec):
    """Law 6: ‖φ̂ − φ*‖ ≤ ‖r_in‖/λ for convex L."""
    check_residual_bound(InnerSubject(solver, Budget()), spec)


@pytest.mark.parametrize("pair", [(Nesterov(None, 20), NewtonCG(9)), (LBFGS(20), Newton())], ids=repr)
@with_edges(*CONVEX_EDGES)
@given(spec=convex_specs())
@settings(max_examples=15)
def test_law_07_two_solvers(pair, spec):
    """Law 7: two solvers agree to (‖r₁‖ + ‖r₂‖)/λ."""
    inner.check_law_07(pair, spec)


@pytest.mark.parametrize("solver", [SOLVERS[i] for i in (0, 2, 6, 8)], ids=repr)
@with_edges(*CONVEX_EDGES)
@given(spec=convex_specs())
@settings(max_examples=15)
def test_law_12_fixed_point(solver, spec):
    """Law 12: a start at φ* stays there. (Not Adam, whose steps do not shrink with the gradient; not SGD.)"""
    inner.check_law_12_fixed_point(solver, spec)


@with_edges(*RIDGE_EDGES)
@given(spec=ridge_specs())
def test_nesterov_path(spec):
    """e_{k+1} = (I − αA)((1 + β)e_k − βe_{k−1}) on ridge."""
    laws.check_momentum_path(Nesterov, spec, ahead=True)


@with_edges(*RIDGE_EDGES)
@given(spec=ridge_specs())
def test_heavy_ball_path(spec):
    """e_{k+1} = ((1 + β)I − αA)e_k − βe_{k−1} on ridge."""
    laws.check_momentum_path(HeavyBall, spec, ahead=False)


@with_edges(*CONVEX_EDGES)
@given(spec=convex_specs())
def test_nesterov_rate(spec):
    """G(φ_k) − G* ≤ (1 − 1/√κ)ᵏ (G(θ) − G* + λ/2‖θ − φ*‖²)."""
    laws.check_nesterov_rate(Nesterov, spec)


@with_edges(*RIDGE_EDGES)
@given(spec=ridge_specs())
def test_heavy_ball_rate(spec):
    """‖φ_k − φ*‖ ≤ (1 + 2k)((√κ − 1)/(√κ + 1))ᵏ‖θ − φ*‖ on ridge."""
    laws.check_heavy_ball_rate(HeavyBall, spec)


@pytest.mark.parametrize("factor", [2.0**-6, 2.0**9])
@pytest.mark.parametrize(
    "solver", [Nesterov(None, 9), HeavyBall(None, 9, rtol=1e-3), LBFGS(9), NewtonCG(5)], ids=repr
)
@with_edges(*CONVEX_EDGES)
@given(spec=convex_specs())
@settings(max_examples=15)
def test_scaling(solver, factor, spec):
    """Law 41 for the path: (L, λ) → (cL, cλ) changes nothing, since every default scales with it."""
    laws.check_scaling(solver, spec, factor)


@pytest.mark.parametrize("solver", [NewtonCG(200, 20, rtol=1e-12), LBFGS(3000, 20, rtol=1e-9)], ids=repr)
@with_edges(*CONVEX_EDGES)
@given(spec=convex_specs())
def test_global_convergence(solver, spec):
    """Line searches make both converge from anywhere, up to κ̄ = 10⁶."""
    laws.check_global(solver, spec)


@pytest.mark.parametrize("solver", [Nesterov(None, 20_000, rtol=1e-8)], ids=repr)
@with_edges(*CONVEX_EDGES[:1])
@given(spec=MODERATE)
@settings(max_examples=10)
def test_momentum_converges(solver, spec):
    """Nesterov's method meets its tolerance on every convex loss."""
    laws.check_global(solver, spec)


@pytest.mark.parametrize(
    "make",
    [lambda r: Nesterov(None, 50, rtol=r), lambda r: HeavyBall(None, 50, rtol=r), lambda r: Adam(0.1, 50, rtol=r)],
    ids=["Nesterov", "HeavyBall", "Adam"],
)
@with_edges(*CONVEX_EDGES)
@given(spec=convex_specs())
@settings(max_examples=15)
def test_tolerance(make, spec):
    """CONVERGED within the tolerance, else MAX_STEPS after all of them."""
    laws.check_tolerance(make, spec)
