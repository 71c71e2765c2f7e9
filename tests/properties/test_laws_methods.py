"""Laws (c), continued: contrastive, corrected, one-step and differenced meta-gradients."""

import laws_methods as laws
import pytest
from hypothesis import given, settings
from strategies import CONVEX_EDGES, RIDGE_EDGES, convex_specs, ridge_specs, with_edges

from implicit_grad import (
    ContrastiveGradient,
    FiniteDifferenceGradient,
    GradientStep,
    Newton,
    NewtonStep,
    OneStepGradient,
    SuperEfficientGradient,
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
