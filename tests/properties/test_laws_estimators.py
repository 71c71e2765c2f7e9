"""Laws (c): what meta-gradient estimators tend to, what they equal, and what they are the derivative of."""

import laws_estimators as laws
import pytest
from hypothesis import given
from hypothesis import strategies as st

from implicit_grad import (
    CG,
    EXACT,
    Cholesky,
    FirstOrderGradient,
    ImplicitGradient,
    MetaGradient,
    Newton,
    UnrolledGradient,
)
from implicit_grad.testing.problems import MlpSpec, RidgeSpec, SoftmaxSpec, Twist
from implicit_grad.testing.strategies import (
    CONVEX_EDGES,
    MLP_EDGES,
    RIDGE_EDGES,
    convex_specs,
    mlp_specs,
    ridge_specs,
    softmax_specs,
    with_edges,
)

FIRST_ORDER = MetaGradient(Newton(), FirstOrderGradient())
OPTIMAL = st.just(Twist.THETA_OPTIMAL)


@with_edges(*CONVEX_EDGES)
@given(spec=convex_specs())
def test_closed_form(spec):
    """g = λ(∇²L(φ*) + λI)⁻¹∇T(φ*), written out with dense matrices."""
    laws.check_closed_form(EXACT, spec)


@with_edges(*CONVEX_EDGES)
@given(spec=convex_specs())
def test_law_25_truncated_backpropagation(spec):
    """Law 25: gradient descent from φ*, its last k steps reversed, is αλΣ_{j<k}(I − αA)^j b: Neumann-k."""
    laws.check_law_25(UnrolledGradient, spec)


@with_edges(*CONVEX_EDGES)
@given(spec=convex_specs())
def test_law_33_large_lam(spec):
    """Law 33: λ → ∞ gives ‖g − ∇T(θ)‖ ≤ (β_T‖∇L(θ)‖ + M‖b‖)/λ for convex L."""
    laws.check_law_33(EXACT, spec)


@with_edges(*RIDGE_EDGES)
@given(spec=ridge_specs())
def test_law_34_small_lam(spec):
    """Law 34: λ → 0 gives g → Π_null(H) b on ridge, at the rate λ/(λ + μ⁺)."""
    laws.check_law_34(EXACT, spec)


@with_edges(*CONVEX_EDGES)
@given(spec=convex_specs())
def test_law_35_first_order_gap(spec):
    """Law 35: ‖b − g‖ ≤ M/(λ + M)·‖b‖ for convex L."""
    laws.check_law_35((EXACT, FIRST_ORDER), spec)


@pytest.mark.parametrize("solver", [Cholesky(), CG(3), CG(20, 1e-12)], ids=repr)
@with_edges(*RIDGE_EDGES)
@given(spec=ridge_specs())
def test_law_35_flat(solver, spec):
    """Law 35: H ≡ 0 ⇒ g = b, bitwise where λ ≥ 1 is a power of two; otherwise λ·(b/λ) rounds."""
    laws.check_law_35_flat(MetaGradient(Newton(), ImplicitGradient(solver)), spec)


@with_edges(*CONVEX_EDGES)
@given(spec=convex_specs())
def test_truncation(spec):
    """What k of K reversed steps leave out: at most (1 − αλ)ᵏ‖∇T(φ_K)‖ for convex L and α = 1/M̄."""
    laws.check_truncation(UnrolledGradient, spec)


@with_edges(*CONVEX_EDGES)
@given(spec=convex_specs())
def test_law_36_few_steps(spec):
    """Law 36: K = 0 is ∇T(θ), K = 1 is (I − αH(θ))∇T(θ − α∇L(θ)): λ cancels."""
    laws.check_law_36(laws.unroll, spec)


@with_edges(*RIDGE_EDGES)
@given(spec=ridge_specs())
def test_law_37_ridge_jacobian(spec):
    """Law 37: on ridge, J_K − J* = (I − αA)^K(I − λA⁻¹), with no factor K."""
    laws.check_law_37(laws.unroll, spec)


@with_edges(*CONVEX_EDGES)
@given(spec=convex_specs())
def test_law_38_unrolled_rate(spec):
    """Law 38: the error of K unrolled steps on convex L, with q = 1 − αλ and α = 1/M̄."""
    laws.check_law_38(laws.unroll, spec)


@with_edges(RIDGE_EDGES[-1], SoftmaxSpec(twist=Twist.THETA_OPTIMAL, log10_lam=-6, log10_ratio=-2))
@given(spec=st.one_of(ridge_specs(twist=OPTIMAL), softmax_specs(twist=OPTIMAL)))
def test_law_39_stationary_theta(spec):
    """Law 39: θ stationary for L ⇒ φ_t ≡ θ and g_K = [λA⁻¹ + (I − αA)^K(I − λA⁻¹)]b, for any L."""
    laws.check_law_39(laws.unroll, spec)


@with_edges(RidgeSpec(n=1, size=1), RidgeSpec(n=1, size=8, log10_ratio=6))
@given(spec=ridge_specs(n=st.just(1)))
def test_law_47_one_sample(spec):
    """Law 47: n = 1 ridge has g = b − x(xᵀb)/(λ + ‖x‖²)."""
    laws.check_law_47(EXACT, spec)


@with_edges(*CONVEX_EDGES)
@given(spec=convex_specs())
def test_law_48_shrinking(spec):
    """Law 48: ‖g‖ ≤ ‖b‖ and ⟨g, b⟩ ≥ ‖g‖²; ‖G⁻¹b‖ is non-decreasing in λ for fixed H ⪰ 0 and b."""
    laws.check_law_48(EXACT, spec)


@with_edges(*CONVEX_EDGES)
@given(spec=convex_specs())
def test_law_49_derivative_in_lam(spec):
    """Law 49: dT(φ*)/dλ = −bᵀA⁻¹(φ* − θ), against a complex step in λ."""
    laws.check_law_49(EXACT, spec)


@with_edges(*CONVEX_EDGES)
@given(spec=convex_specs())
def test_law_50_total_derivative(spec):
    """Law 50: g·v is the derivative of T(φ*(θ + hv)) with the inner problem solved again (complex step)."""
    laws.check_law_50(EXACT, spec)


@with_edges(*RIDGE_EDGES)
@given(spec=ridge_specs())
def test_law_50_central_differences(spec):
    """Law 50: the same by central differences through our own inner solver."""
    laws.check_law_50_differences(EXACT, spec)


@with_edges(*MLP_EDGES)
@given(spec=mlp_specs(softplus=st.just(False)))
def test_law_50_network(spec):
    """Law 50 on networks: not convex, but a strict minimum."""
    laws.check_law_50_network(EXACT, spec)


@with_edges(*RIDGE_EDGES)
@given(spec=ridge_specs())
def test_law_51_inner_accuracy(spec):
    """Law 51: ridge with a linear test loss does not see φ̂; otherwise the error is linear in ‖φ̂ − φ*‖."""
    laws.check_law_51(ImplicitGradient(Cholesky()), spec)


@with_edges(*CONVEX_EDGES)
@given(spec=convex_specs())
def test_law_51_bound(spec):
    """Law 51 for any convex L: the error is at most (β_T + ρ‖g‖/λ)‖φ̂ − φ*‖."""
    laws.check_law_51_bound(ImplicitGradient(Cholesky()), spec)


@pytest.mark.parametrize("solver", [Cholesky(), CG(60)], ids=repr)
@with_edges(MlpSpec(hidden=(3,), seed=5), MlpSpec(hidden=(2, 3), seed=6))
@given(spec=mlp_specs(hidden=st.sampled_from(((2,), (3,), (2, 2)))))
def test_saddle_has_no_gradient(solver, spec):
    """Where H + λI has a negative eigenvalue, φ is no minimum, and the answer is NaN with INDEFINITE."""
    laws.check_saddle(ImplicitGradient(solver), spec)
