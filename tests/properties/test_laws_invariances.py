"""Laws (c): what leaves a meta-gradient as it is."""

import laws_invariances as laws
import pytest
from hypothesis import given
from hypothesis import strategies as st
from laws_estimators import unroll

from implicit_grad import CG, EXACT, ImplicitGradient, MetaGradient, Newton
from implicit_grad.testing.problems import MlpSpec
from implicit_grad.testing.strategies import (
    CONVEX_EDGES,
    RIDGE_EDGES,
    SOFTMAX_EDGES,
    convex_specs,
    mlp_specs,
    ridge_specs,
    softmax_specs,
    with_edges,
)


def default_unroll(steps):
    """Unrolled gradient with the default step: α = 1/M̄ per problem where the loss knows its curvature."""
    return unroll(None, steps)


@pytest.mark.parametrize("estimate", [EXACT, default_unroll(3)], ids=["exact", "unrolled"])
@with_edges(*CONVEX_EDGES)
@given(spec=convex_specs())
def test_law_40_linear_in_outer_loss(estimate, spec):
    """Law 40: g is linear in T for exact and unrolled gradients (not for CG-k)."""
    laws.check_law_40(estimate, spec)


@with_edges(*CONVEX_EDGES)
@given(spec=convex_specs())
def test_law_40_constants(spec):
    """Law 40: T + const and L + const change nothing."""
    laws.check_law_40_constants(EXACT, spec)


@pytest.mark.parametrize("exponent", [-5, 4])
@with_edges(*CONVEX_EDGES)
@given(spec=convex_specs())
def test_law_41_scaling(exponent, spec):
    """Law 41: (L, λ) → (cL, cλ) leaves φ* and g; T → cT scales g by c."""
    laws.check_law_41(EXACT, spec, exponent)


@pytest.mark.parametrize("exponent", [-5, 4])
@with_edges(*CONVEX_EDGES)
@given(spec=convex_specs())
def test_law_41_unrolled(exponent, spec):
    """Law 41: (L, λ, α) → (cL, cλ, α/c) leaves g_K."""
    laws.check_law_41_unrolled(unroll, spec, exponent)


@pytest.mark.parametrize(
    ("estimate", "relative"),
    [(EXACT, 0.0), (MetaGradient(Newton(), ImplicitGradient(CG(3))), 1e-9)],
    ids=["exact", "CG-3"],
)
@with_edges(*CONVEX_EDGES)
@given(spec=convex_specs())
def test_law_42_orthogonal_coordinates(estimate, relative, spec):
    """Law 42: φ = Qψ with orthogonal Q gives g_ψ = Qᵀg."""
    laws.check_law_42(estimate, spec, relative)


@with_edges(*CONVEX_EDGES)
@given(spec=convex_specs())
def test_law_42_unrolled(spec):
    """Law 42 for unrolled gradients with a given step size."""
    laws.check_law_42(unroll(1 / spec.build().curvature, 4), spec)


@pytest.mark.parametrize("estimate", [EXACT, default_unroll(3)], ids=["exact", "unrolled"])
@with_edges(MlpSpec(hidden=(2, 3), seed=6))
@given(spec=mlp_specs(softplus=st.just(False)))
def test_law_42_hidden_units(estimate, spec):
    """Law 42 for networks: signed permutations of tanh units."""
    laws.check_law_42_units(estimate, spec)


@with_edges(*SOFTMAX_EDGES)
@given(spec=softmax_specs())
def test_law_43_softmax_shifts(spec):
    """Law 43: rows of g sum to 0 over the classes; θ + c⊗1 shifts φ* and leaves g."""
    laws.check_law_43(EXACT, spec)


@with_edges(*SOFTMAX_EDGES)
@given(spec=softmax_specs())
def test_law_44_class_names(spec):
    """Law 44: renaming classes permutes the columns of g."""
    laws.check_law_44_classes(EXACT, spec)


@pytest.mark.parametrize("estimate", [EXACT, default_unroll(3)], ids=["exact", "unrolled"])
@with_edges(*CONVEX_EDGES)
@given(spec=convex_specs())
def test_law_44_sample_order(estimate, spec):
    """Law 44: the order of the samples does not matter."""
    laws.check_law_44_samples(estimate, spec)


@with_edges(*CONVEX_EDGES)
@given(spec=convex_specs())
def test_law_45_duplicates(spec):
    """Law 45: every sample r times changes nothing for mean losses, and λ into λ/r for sums."""
    laws.check_law_45(EXACT, spec)


@pytest.mark.parametrize("estimate", [EXACT, default_unroll(3)], ids=["exact", "unrolled"])
@with_edges(*RIDGE_EDGES)
@given(spec=ridge_specs())
def test_law_46_translation(estimate, spec):
    """Law 46: y → y + Xc, y_test → y_test + X_test c, θ → θ + c leaves a ridge meta-gradient."""
    laws.check_law_46(estimate, spec)


@pytest.mark.parametrize(
    "estimate",
    [EXACT, default_unroll(3), MetaGradient(Newton(), ImplicitGradient(CG(20, 1e-14)))],
    ids=["exact", "unrolled", "CG"],
)
@with_edges(*CONVEX_EDGES)
@given(spec=convex_specs())
def test_law_52_batch(estimate, spec):
    """Law 52: a batch is its tasks one by one, in any order."""
    laws.check_law_52(estimate, spec)
