"""Laws (b): linear solvers."""

import laws_linear as laws
import pytest
from hypothesis import given
from hypothesis import strategies as st

from implicit_grad import CG, Cholesky, ScipyCG, extreme_eigenvalues
from implicit_grad.testing.matrices import SpdSpec
from implicit_grad.testing.problems import RidgeSpec
from implicit_grad.testing.strategies import SPD_EDGES, ridge_specs, spd_specs, with_edges

MODERATE = spd_specs(log10_ratio=st.integers(-3, 4))
both = pytest.mark.parametrize("make", [CG, ScipyCG])
every = pytest.mark.parametrize(
    "solve", [Cholesky(), CG(200, 1e-15), ScipyCG(200, 1e-15)], ids=["Cholesky", "CG", "ScipyCG"]
)


@pytest.mark.parametrize("refinements", [0, 1, 2])
@with_edges(*SPD_EDGES)
@given(spec=spd_specs())
def test_law_13_exact_solves(refinements, spec):
    """Law 13: backward error ‖b − Ax‖/(‖A‖‖x‖ + ‖b‖) ≤ 10·N·u, forward error ≤ 2κ(A) times that."""
    laws.check_law_13(Cholesky(refinements), spec)


@both
@with_edges(*SPD_EDGES)
@given(spec=spd_specs())
def test_law_14_energy_error(make, spec):
    """Law 14: CG's ‖x_k − x‖_A is non-increasing, down to 10³·N·u·κ·‖x‖_A."""
    laws.check_law_14(make, spec)


@both
@with_edges(*SPD_EDGES)
@given(spec=spd_specs())
def test_law_15_chebyshev(make, spec):
    """Law 15: ‖x_k − x‖_A ≤ 2((√κ−1)/(√κ+1))^k ‖x‖_A."""
    laws.check_law_15(make, spec)


@both
@with_edges(*SPD_EDGES)
@given(spec=spd_specs())
def test_law_16_two_norms(make, spec):
    """Law 16: CG's 2-norm error is non-increasing and ‖x_k‖₂ non-decreasing from x₀ = 0."""
    laws.check_law_16(make, spec)


@both
@with_edges(SpdSpec(size=9, rank=2, log10_ratio=3), SpdSpec(size=1))
@given(
    spec=st.one_of(
        spd_specs(rank=st.integers(1, 4), log10_ratio=st.integers(-3, 3)),
        spd_specs(rank=st.integers(1, 5), log10_ratio=st.integers(-3, 2)),
        spd_specs(rank=st.integers(1, 7), log10_ratio=st.integers(-3, 1)),
    )
)
def test_law_17_finite_termination(make, spec):
    """Law 17: CG is exact after rank(H) + 1 steps, to 1e-7 where rank·log₁₀κ ≤ 12.

    In exact arithmetic that is all there is to say. In float64 each step loses up to log₁₀κ digits of the
    directions before it: κ = 10³ with seven clustered eigenvalues leaves an error of 3·10⁻³ after rank + 1 steps.
    """
    laws.check_law_17(make, spec)


@both
@with_edges(*SPD_EDGES)
@given(spec=spd_specs())
def test_law_18_best_polynomial(make, spec):
    """Law 18: CG-k beats Neumann-k, and any polynomial of the same degree, in the energy norm."""
    laws.check_law_18(make, spec)


@both
@with_edges(*SPD_EDGES)
@given(spec=spd_specs())
def test_law_19_descent_direction(make, spec):
    """Law 19: on G = I + H/λ, ‖x_k‖ ≤ ‖b‖ and ⟨x_k, b⟩ ≥ ‖x_k‖²."""
    laws.check_law_19(make, spec)


@both
@with_edges(*SPD_EDGES[:3])
@given(spec=MODERATE)
def test_law_21_scale_invariance(make, spec):
    """Law 21: k CG steps on (G, b) and on (A, λb) give the same iterate (k ≤ 3, 1e-9)."""
    laws.check_law_21(make, spec)


@both
@with_edges(*SPD_EDGES[:3])
@given(spec=MODERATE)
def test_law_22_shift_invariance(make, spec):
    """Law 22: K_k(G, b) = K_k(H, b), so one Lanczos basis gives CG-k for every λ."""
    laws.check_law_22(make, spec)


@both
@with_edges(*SPD_EDGES)
@given(spec=spd_specs())
def test_law_23_nothing_to_do(make, spec):
    """Law 23: b = 0 ⇒ x = 0, no steps, converged; max_steps = 0 with b ≠ 0 ⇒ not converged."""
    laws.check_law_23(make, spec)


@with_edges(*SPD_EDGES)
@given(spec=spd_specs())
def test_law_26_symmetry(spec):
    """Law 26: ⟨c, G⁻¹b⟩ = ⟨G⁻¹c, b⟩ for exact solves (CG-k is neither linear nor symmetric)."""
    laws.check_law_26(Cholesky(), spec)


@both
@with_edges(*SPD_EDGES)
@given(spec=spd_specs())
def test_law_27_eigenvector(make, spec):
    """Law 27: for Hv = μv and b = v, x = v/(1 + μ/λ), and CG needs one step."""
    laws.check_law_27(make, spec)


@with_edges(RidgeSpec(size=5, n=1), RidgeSpec(size=8, n=7, log10_ratio=6))
@given(spec=ridge_specs(size=st.integers(6, 9), n=st.integers(1, 5)))
def test_law_29_woodbury(spec):
    """Law 29: for ridge with n < N, G⁻¹b = b − Xᵀ(λnI + XXᵀ)⁻¹Xb."""
    laws.check_law_29(Cholesky(), spec)


@both
@with_edges(*SPD_EDGES)
@given(spec=spd_specs())
def test_law_30_residual_bounds_error(make, spec):
    """Law 30: for G ⪰ I, ‖x_k − x‖₂ and ‖x_k − x‖_G are at most the true residual."""
    laws.check_law_30(make, spec)


@both
@with_edges(*SPD_EDGES)
@given(spec=spd_specs())
def test_law_31_lower_bound(make, spec):
    """Law 31: Hestenes and Stiefel's lower bound of the energy error."""
    laws.check_law_31(make, spec)


@both
@pytest.mark.parametrize(("rtol", "steps"), [(1e-2, 1), (1e-2, 4), (1e-8, 8), (1e-8, 200), (1e-14, 200)])
@with_edges(*SPD_EDGES)
@given(spec=spd_specs())
def test_law_32_status(make, rtol, steps, spec):
    """Law 32: CONVERGED ⇔ recomputed residual ≤ max(rtol‖b‖, 10·N·eps·(‖A‖‖x‖ + ‖b‖))."""
    laws.check_law_32(make, spec, rtol, steps)


@both
@given(spec=MODERATE, exponent=st.sampled_from([-900, -40, -7, 7, 40, 900]))
def test_scale_of_b(make, spec, exponent):
    """Tolerances are relative: b → 2^e b changes nothing but the scale, from 1e-270 to 1e270."""
    laws.check_scale(make, spec, exponent)


@every
@given(spec=spd_specs(size=st.integers(2, 8)))
def test_saddle_is_refused(solve, spec):
    """A with a negative eigenvalue is INDEFINITE under every solver, and the witness is a Rayleigh quotient."""
    laws.check_indefinite(solve, spec)


@with_edges(*SPD_EDGES)
@given(spec=spd_specs())
def test_law_69_ritz_values(spec):
    """Law 69: the smallest Ritz value is ≥ λ_min and non-increasing in k; it never certifies definiteness."""
    laws.check_law_69(extreme_eigenvalues, spec)
