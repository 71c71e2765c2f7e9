"""Laws (c), continued: contrastive, corrected, one-step and differenced meta-gradients."""

import laws_estimators
import laws_invariances
import laws_methods as laws
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from implicit_grad import (
    Cholesky,
    ComplexStepGradient,
    ContrastiveGradient,
    DiagonalGradient,
    FiniteDifferenceGradient,
    GaussNewtonGradient,
    GradientStep,
    IdentityGradient,
    MetaGradient,
    Newton,
    NewtonStep,
    OneStepGradient,
    ReptileDirection,
    RichardsonGradient,
    SuperEfficientGradient,
)
from implicit_grad.testing.problems import MlpSpec
from implicit_grad.testing.strategies import (
    CONVEX_EDGES,
    MLP_EDGES,
    RIDGE_EDGES,
    SOFTMAX_EDGES,
    convex_specs,
    mlp_specs,
    ridge_specs,
    softmax_specs,
    with_edges,
)

FLOOR = Newton(rtol=1e-15)


def contrastive(s, two_sided):
    return ContrastiveGradient(s, FLOOR, two_sided)


def one_gradient_step(alpha):
    return OneStepGradient(GradientStep(alpha))


def differences(h):
    return FiniteDifferenceGradient(FLOOR, h)


@with_edges(*RIDGE_EDGES)
@given(spec=ridge_specs())
def test_contrastive_closed_form(spec):
    """On ridge the nudged minima are known: two-sided λ(A − s²BA⁻¹B)⁻¹b, one-sided λ(A + sB)⁻¹b."""
    laws.check_contrastive_closed_form(contrastive, spec)


@with_edges(*RIDGE_EDGES)
@given(spec=ridge_specs())
def test_contrastive_linear_test_loss(spec):
    """A linear test loss on ridge: exact at every strength."""
    laws.check_contrastive_linear(contrastive, spec)


@with_edges(*CONVEX_EDGES)
@given(spec=convex_specs())
def test_contrastive_bound(spec):
    """Convex losses: the one-sided error is at most (s/2)(ρ‖φ'‖² + 2β_T‖φ'‖)."""
    laws.check_contrastive_bound(contrastive, spec)


@with_edges(*CONVEX_EDGES)
@given(spec=convex_specs())
def test_contrastive_loudness(spec):
    """Only s·L_test counts."""
    laws.check_contrastive_loudness(contrastive, spec)


@pytest.mark.parametrize(
    "estimator", [SuperEfficientGradient(), OneStepGradient(NewtonStep())], ids=lambda e: e.label
)
@with_edges(*RIDGE_EDGES)
@given(spec=ridge_specs())
def test_newton_corrections_are_exact_on_quadratics(estimator, spec):
    """Identity 10: one Newton step is exact on quadratics, from any φ."""
    laws.check_corrected_exact(estimator, spec)


@with_edges(*CONVEX_EDGES)
@given(spec=convex_specs())
def test_super_efficient(spec):
    """Identity 12: the error after the correction is at most (β_T + ρ‖g‖/λ)·ρ/(2λ)·‖φ − φ*‖²."""
    laws.check_super_efficient(SuperEfficientGradient(), spec)


@with_edges(*CONVEX_EDGES)
@given(spec=convex_specs())
def test_super_efficient_residual(spec):
    """The residual reported belongs to the point reported."""
    laws.check_super_efficient_residual(SuperEfficientGradient(), spec)


@with_edges(*CONVEX_EDGES)
@given(spec=convex_specs())
def test_one_gradient_step(spec):
    """Identity 10: one gradient step gives αλ∇T, whatever the train loss."""
    laws.check_one_gradient_step(one_gradient_step, spec)


@with_edges(*CONVEX_EDGES)
@given(spec=convex_specs())
def test_one_newton_step(spec):
    """One Newton step gives λA(φ)⁻¹∇T(φ⁺)."""
    laws.check_one_newton_step(OneStepGradient(NewtonStep()), spec)


@with_edges(*CONVEX_EDGES)
@given(spec=convex_specs())
@settings(max_examples=20)
def test_differences_are_right_or_refused(spec):
    """Law 50 by central differences: the rule's step is right, or its status says that no step is."""
    laws.check_differences(FiniteDifferenceGradient(FLOOR), spec)


@with_edges(*RIDGE_EDGES)
@given(spec=ridge_specs())
@settings(max_examples=20)
def test_differences_on_ridge(spec):
    """F is quadratic on ridge: central differences are exact with any step."""
    laws.check_differences_exact(differences, spec)


@with_edges(*CONVEX_EDGES)
@given(spec=convex_specs())
@settings(max_examples=20)
def test_differences_of_noise_are_refused(spec):
    """A step below rounding is no step."""
    laws.check_differences_noise(differences, spec)


def extrapolated(s):
    return RichardsonGradient(contrastive(s, True), contrastive(s / 2, True), order=2)


EXACT_METHODS = {
    "complex step": MetaGradient(Newton(), ComplexStepGradient()),
    "super-efficient": MetaGradient(Newton(), SuperEfficientGradient()),
    "Newton step": MetaGradient(FLOOR, OneStepGradient(NewtonStep())),
    "Gauss-Newton": MetaGradient(FLOOR, GaussNewtonGradient(Cholesky(2))),
}
exact_methods = pytest.mark.parametrize("name", list(EXACT_METHODS))


@exact_methods
@with_edges(*CONVEX_EDGES)
@given(spec=convex_specs())
@settings(max_examples=20)
def test_closed_form(name, spec):
    """At φ* of a model linear in its parameters all four are the meta-gradient."""
    laws_estimators.check_closed_form(EXACT_METHODS[name], spec)


@pytest.mark.parametrize("name", ["complex step", "super-efficient"])
@with_edges(*MLP_EDGES)
@given(spec=mlp_specs(softplus=st.just(False)))
@settings(max_examples=20)
def test_law_50_network(name, spec):
    """Law 50: the derivative of F on networks, too."""
    laws_estimators.check_law_50_network(EXACT_METHODS[name], spec)


@pytest.mark.parametrize("name", ["super-efficient", "Newton step"])
@with_edges(*CONVEX_EDGES)
@given(spec=convex_specs())
@settings(max_examples=15)
def test_law_42_orthogonal_coordinates(name, spec):
    """Law 42: φ = Qψ gives g_ψ = Qᵀg. (Not the diagonal, whose coordinates are its approximation.)"""
    laws_invariances.check_law_42(EXACT_METHODS[name], spec)


@pytest.mark.parametrize("name", ["super-efficient", "Newton step"])
@pytest.mark.parametrize("exponent", [-5, 4])
@with_edges(*CONVEX_EDGES)
@given(spec=convex_specs())
@settings(max_examples=15)
def test_law_41_scaling(name, exponent, spec):
    """Law 41: (L, λ) → (cL, cλ) leaves g; T → cT scales it."""
    laws_invariances.check_law_41(EXACT_METHODS[name], spec, exponent)


@exact_methods
@with_edges(*SOFTMAX_EDGES)
@given(spec=softmax_specs())
@settings(max_examples=15)
def test_law_43_softmax_shifts(name, spec):
    """Law 43: rows sum to zero, shifts of θ do not matter."""
    laws_invariances.check_law_43(EXACT_METHODS[name], spec)


@exact_methods
@with_edges(*CONVEX_EDGES)
@given(spec=convex_specs())
@settings(max_examples=15)
def test_law_44_sample_order(name, spec):
    """Law 44: the order of the samples does not matter."""
    laws_invariances.check_law_44_samples(EXACT_METHODS[name], spec)


@exact_methods
@with_edges(*RIDGE_EDGES)
@given(spec=ridge_specs())
@settings(max_examples=15)
def test_law_46_translation(name, spec):
    """Law 46: a ridge problem may be moved."""
    laws_invariances.check_law_46(EXACT_METHODS[name], spec)


@exact_methods
@with_edges(*CONVEX_EDGES)
@given(spec=convex_specs())
@settings(max_examples=15)
def test_law_52_batch(name, spec):
    """Law 52: a batch is its tasks one by one."""
    laws_invariances.check_law_52(EXACT_METHODS[name], spec)


@with_edges(*CONVEX_EDGES)
@given(spec=convex_specs())
def test_moreau_envelope(spec):
    """Identity 6: Reptile's direction times λ is the gradient of the Moreau envelope, and of nothing that tests."""
    laws.check_moreau(ReptileDirection, spec)


@with_edges(*MLP_EDGES, MlpSpec(hidden=(2, 3), classes=3, softplus=True, seed=6))
@given(spec=mlp_specs())
def test_gauss_newton(spec):
    """JᵀCJ from autograd's Jacobian of the outputs."""
    laws.check_gauss_newton(GaussNewtonGradient(Cholesky(2)), spec)


@with_edges(*CONVEX_EDGES)
@given(spec=convex_specs())
def test_diagonal(spec):
    """‖g_D − g‖ ≤ ‖H − diag H‖‖g‖/λ."""
    laws.check_implicit_gap(DiagonalGradient(), spec, lambda H: np.diag(np.diag(H)))


@with_edges(*CONVEX_EDGES)
@given(spec=convex_specs())
def test_identity(spec):
    """‖g_c − g‖ ≤ ‖H − cI‖‖g‖/λ."""
    laws.check_implicit_gap(IdentityGradient(2.5), spec, lambda H: 2.5 * np.eye(len(H)))


@with_edges(*RIDGE_EDGES)
@given(spec=ridge_specs())
def test_richardson(spec):
    """Two nudges at s and s/2 leave an error of order s⁴."""
    laws.check_richardson(extrapolated, spec)
