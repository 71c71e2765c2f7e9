"""Laws (d): Hessian-vector products, and (e): the losses they come from."""

import laws_hvp as laws
import pytest
from hypothesis import given
from hypothesis import strategies as st

from implicit_grad import BilevelProblem, SoftmaxCrossEntropy
from implicit_grad.testing.strategies import (
    CONVEX_EDGES,
    MLP_EDGES,
    RIDGE_EDGES,
    SEEDS,
    SOFTMAX_EDGES,
    convex_specs,
    mlp_specs,
    ridge_specs,
    softmax_specs,
    with_edges,
)

PRODUCT = laws.closed_form_product
ANY = st.one_of(convex_specs(), mlp_specs())
EDGES = CONVEX_EDGES + MLP_EDGES


@with_edges(*EDGES)
@given(spec=ANY)
def test_law_53_symmetry(spec):
    """Law 53: |vᵀHw − wᵀHv| ≤ 64·N·u·‖H‖‖v‖‖w‖."""
    laws.check_law_53(PRODUCT, spec)


@with_edges(*EDGES)
@given(spec=ANY)
def test_law_54_linear(spec):
    """Law 54: linear in v; H0 = 0 bitwise; v not mutated; shape and dtype kept."""
    laws.check_law_54(PRODUCT, spec)


@with_edges(*RIDGE_EDGES)
@given(spec=ridge_specs())
def test_law_54_single_precision(spec):
    """Law 54: float32 in, float32 out."""
    laws.check_law_54_dtype(PRODUCT, spec)


@with_edges(*EDGES)
@given(spec=st.one_of(convex_specs(), mlp_specs(softplus=st.just(False))))
def test_law_55_complex_step(spec):
    """Law 55: Hv = Im ∇L(φ + ihv)/h for analytic losses."""
    laws.check_law_55(PRODUCT, spec)


@with_edges(*MLP_EDGES)
@given(spec=mlp_specs())
def test_law_55_central_differences(spec):
    """Law 55: Hv equals central differences of ∇L to ~1e-8 relative."""
    laws.check_law_55_differences(PRODUCT, spec)


@with_edges(*CONVEX_EDGES)
@given(spec=convex_specs())
def test_law_56_dense_columns(spec):
    """Law 56: columns equal the dense Hessian."""
    laws.check_law_56(PRODUCT, spec)


@with_edges(*MLP_EDGES)
@given(spec=mlp_specs())
def test_law_56_two_modes(spec):
    """Law 56: forward-over-reverse equals reverse-over-reverse, on networks."""
    laws.check_law_56_modes(PRODUCT, spec)


@with_edges(*CONVEX_EDGES)
@given(spec=convex_specs())
def test_law_57_convex(spec):
    """Law 57: vᵀHv ≥ −64·N·u·‖H‖‖v‖² for convex L."""
    laws.check_law_57(PRODUCT, spec)


@with_edges(*EDGES)
@given(spec=ANY)
def test_law_57_proximal(spec):
    """Law 57: the product of the inner objective is that of L plus λv."""
    laws.check_law_57_proximal(BilevelProblem.curvature, spec)


@with_edges(*EDGES)
@given(spec=ANY)
def test_law_58_additive(spec):
    """Laws 58 and 63: value and curvature of a mean loss add up over any split of the samples."""
    laws.check_law_58(PRODUCT, spec)


@pytest.mark.parametrize("degree", [1, 2, 3, 5])
@given(spec=st.tuples(SEEDS, st.integers(1, 6)))
def test_law_58_homogeneous(degree, spec):
    """Law 58: a degree-p homogeneous loss has Hφ = (p − 1)∇L, under Autodiff."""
    laws.check_law_58_homogeneous(PRODUCT, (degree, *spec))


@with_edges(*SOFTMAX_EDGES)
@given(spec=softmax_specs())
def test_law_62_cross_entropy(spec):
    """Law 62: cross-entropy at W = 0, its gradient's row sums, shifts and logits of ±1e4."""
    laws.check_law_62(SoftmaxCrossEntropy, spec)
