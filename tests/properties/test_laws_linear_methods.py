"""Laws (b) of the further linear solvers."""

from functools import partial

import laws_linear as basic
import laws_linear_methods as laws
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from implicit_grad import (
    GMRES,
    LSMR,
    LU,
    MINRES,
    BiCGSTAB,
    BlockCG,
    Cholesky,
    Eigh,
    Jacobi,
    MixedPrecision,
    Neumann,
    Nystrom,
    NystromPreconditioner,
    PreconditionedCG,
)
from implicit_grad.testing.matrices import SpdSpec
from implicit_grad.testing.problems import RidgeSpec
from implicit_grad.testing.strategies import CONVEX_EDGES, SPD_EDGES, convex_specs, ridge_specs, spd_specs, with_edges

MODERATE = spd_specs(log10_ratio=st.integers(-3, 4))
EASY = spd_specs(log10_ratio=st.integers(-3, 2))


def same_everywhere(r):
    """The preconditioner that does nothing."""
    return r


def lopsided(r):
    """A user's M⁻¹: symmetric, positive definite, condition 10."""
    v = np.cos(np.arange(1.0, r.shape[-1] + 1))
    return r + 9 * (r @ v)[..., None] * v / (v @ v)


def sum_preconditioned(preconditioner, max_steps, rtol=0.0, record=False):
    return PreconditionedCG(max_steps, rtol, preconditioner, record=record)


DIRECT = pytest.mark.parametrize("solve", [LU(), Eigh()], ids=["LU", "Eigh"])
PRECONDITIONERS = {
    "none": same_everywhere,
    "Jacobi": Jacobi(),
    "Nyström": NystromPreconditioner(1),
    "own": lopsided,
}
CONJUGATE = {
    "block": BlockCG,
    **{f"CG, {name}": partial(sum_preconditioned, M) for name, M in PRECONDITIONERS.items()},
}
ITERATIVE = {"MINRES": MINRES, "GMRES": GMRES, "BiCGSTAB": BiCGSTAB, "LSMR": LSMR, **CONJUGATE}


def methods(*names, among=ITERATIVE):
    """Parametrise `make`."""
    names = names or tuple(among)
    return pytest.mark.parametrize("make", [among[name] for name in names], ids=names)


def neumann(max_steps, rtol=0.0, record=False):
    """As many terms as there are steps."""
    return Neumann(None, max_steps, record=record)


def recorded(step_size, steps):
    return Neumann(step_size, steps, record=True)


def refined(max_steps, rtol=0.0):
    return MixedPrecision(Cholesky(), max_steps, rtol, dense=True)


@DIRECT
@with_edges(*SPD_EDGES)
@given(spec=spd_specs())
def test_law_13_exact_solves(solve, spec):
    """Law 13: backward error ‖b − Ax‖/(‖A‖‖x‖ + ‖b‖) ≤ 10·N·u, forward error ≤ 2κ(A) times that."""
    basic.check_law_13(solve, spec)


@methods("block", "CG, none", among=CONJUGATE)
@with_edges(*SPD_EDGES)
@given(spec=spd_specs())
def test_laws_14_to_19_without_a_preconditioner(make, spec):
    """Laws 14, 15, 16, 18, 19: a block of one and M = I are conjugate gradient."""
    basic.check_law_14(make, spec)
    basic.check_law_15(make, spec)
    basic.check_law_16(make, spec)
    basic.check_law_18(make, spec)
    basic.check_law_19(make, spec)


@pytest.mark.parametrize("preconditioner", PRECONDITIONERS.values(), ids=PRECONDITIONERS)
@with_edges(*SPD_EDGES)
@given(spec=spd_specs())
def test_law_15_preconditioned(preconditioner, spec):
    """Laws 14 and 15: the energy error never rises, and obeys the bound with κ of M⁻¹A."""
    laws.check_law_15_preconditioned((PreconditionedCG, preconditioner), spec)


@with_edges(*SPD_EDGES)
@given(spec=MODERATE)
def test_law_17_preconditioned(spec):
    """Law 17: with m distinct eigenvalues of M⁻¹A, m steps are enough."""
    laws.check_law_17_preconditioned(PreconditionedCG, spec)


@with_edges(*SPD_EDGES[:3])
@given(spec=EASY)
def test_a_preconditioner_changes_variables(spec):
    """PCG on A with M = LLᵀ is CG on L⁻¹AL⁻ᵀ."""
    laws.check_preconditioned_transform(PreconditionedCG, spec)


@given(spec=MODERATE)
def test_the_scale_of_a_preconditioner(spec):
    """M and 2^e M are one preconditioner, from 1e-270 to 1e270."""
    laws.check_preconditioner_scale(PreconditionedCG, spec)


@with_edges(*SPD_EDGES)
@given(spec=spd_specs())
def test_the_condition_that_nystrom_leaves(spec):
    """κ(M⁻¹A) ≤ (λ̂_r + λ + ‖H − Ĥ‖)/λ."""
    laws.check_nystrom_condition(NystromPreconditioner, spec)


@with_edges(*SPD_EDGES)
@given(spec=spd_specs())
def test_laws_14_and_18_of_blocks(spec):
    """Laws 14, 18: in the energy norm a block is not behind its columns alone."""
    laws.check_block_beats_cg(BlockCG, spec)


@with_edges(*SPD_EDGES)
@given(spec=EASY)
def test_a_block_of_one(spec):
    """One right-hand side, with or without block axes, is conjugate gradient."""
    laws.check_block_of_one(BlockCG, spec)


@with_edges(*SPD_EDGES[:3])
@given(spec=EASY)
def test_a_block_has_no_basis(spec):
    """X(TB) = T X(B)."""
    laws.check_block_mixing(BlockCG, spec)


@with_edges(*SPD_EDGES)
@given(spec=MODERATE)
def test_blocks_do_not_break_down(spec):
    """Equal, dependent, zero, tiny and surplus right-hand sides."""
    laws.check_block_breakdown(BlockCG, spec)


@with_edges(SpdSpec(size=9, rank=5, log10_ratio=2), SpdSpec(size=2), SpdSpec(size=12, rank=6, log10_ratio=1))
@given(
    spec=st.one_of(
        spd_specs(rank=st.integers(1, 4), log10_ratio=st.integers(-3, 3)),
        spd_specs(rank=st.integers(1, 6), log10_ratio=st.integers(-3, 2)),
    )
)
def test_law_17_blocks(spec):
    """Law 17: s right-hand sides need an s-th of the steps, to 1e-7 where rank·log₁₀κ ≤ 12."""
    laws.check_block_termination(BlockCG, spec)


@methods("MINRES", "GMRES")
@with_edges(*SPD_EDGES[:3])
@given(spec=MODERATE)
def test_law_20_smallest_residuals(make, spec):
    """Law 20: the residuals never rise, and are at most CG's at the same k."""
    laws.check_law_20(make, spec)


@methods("MINRES", "GMRES")
@given(spec=spd_specs(size=st.integers(2, 8)))
def test_law_20_indefinite(make, spec):
    """Law 20: so it is where A is indefinite, and CG ends."""
    laws.check_law_20_indefinite(make, spec)


@with_edges(*SPD_EDGES)
@given(spec=spd_specs())
def test_law_20_twins(spec):
    """Law 20: unrestarted GMRES has the residual norms of MINRES, within √u."""
    laws.check_law_20_twins((MINRES, GMRES), spec)


@with_edges(*SPD_EDGES[:3])
@given(spec=EASY)
def test_lsmr_normal_residuals(spec):
    """LSMR: ‖A r‖ never rises."""
    laws.check_normal_residuals(LSMR, spec)


@methods("MINRES", "GMRES")
@with_edges(*SPD_EDGES)
@given(spec=spd_specs())
def test_law_69_ritz_values(make, spec):
    """Law 69: the smallest Ritz value is ≥ λ_min and never rises with k."""
    laws.check_law_69_path(make, spec)


@methods("MINRES", "GMRES", "block", "CG, Jacobi")
@with_edges(*SPD_EDGES[:3])
@given(spec=MODERATE)
def test_law_21_scale_invariance(make, spec):
    """Law 21: k steps on (G, b) and on (A, λb) give the same iterate (k ≤ 3, 1e-9)."""
    laws.check_law_21_any(make, spec)


@methods("BiCGSTAB", "LSMR")
@with_edges(*SPD_EDGES[:3])
@given(spec=EASY)
def test_laws_21_and_27_where_squares_count(make, spec):
    """Laws 21 (k ≤ 2) and 27, κ ≤ 100: rounding is worth κ²·u to LSMR, and BiCGSTAB squares CG's polynomials."""
    laws.check_law_21_any(make, spec, 2)
    laws.check_law_27_any(make, spec)


@methods()
@with_edges(*SPD_EDGES)
@given(spec=spd_specs())
def test_law_23_nothing_to_do(make, spec):
    """Law 23: b = 0 ⇒ x = 0, no steps, converged; max_steps = 0 with b ≠ 0 ⇒ not converged."""
    laws.check_law_23_any(make, spec)


@with_edges(*SPD_EDGES)
@given(spec=spd_specs())
def test_law_24_neumann(spec):
    """Law 24: the error of Neumann-k is (I − αA)^k A⁻¹b."""
    laws.check_law_24(recorded, spec)


@with_edges(*SPD_EDGES)
@given(spec=spd_specs())
def test_law_24_divergence(spec):
    """Law 24: it diverges if some |1 − αλ| > 1, and says so."""
    laws.check_law_24_divergence(Neumann, spec)
    laws.check_law_24_marginal(Neumann, spec)


@with_edges(*SPD_EDGES)
@given(spec=spd_specs())
def test_law_18_neumann(spec):
    """Law 18: CG-k beats Neumann-k in the energy norm."""
    laws.check_law_18_neumann(recorded, spec)


@with_edges(*CONVEX_EDGES)
@given(spec=convex_specs())
def test_law_25_truncated_backpropagation(spec):
    """Law 25: the last k steps of gradient descent at φ* are Neumann-k."""
    laws.check_law_25(Neumann, spec)


SYMMETRIC = {
    "LU": lambda spec: LU(),
    "Eigh": lambda spec: Eigh(),
    "Neumann": lambda spec: Neumann(float(1 / np.linalg.norm(spec.G(), 2)), 1 + spec.seed % 7),
}


@pytest.mark.parametrize("make", SYMMETRIC.values(), ids=SYMMETRIC)
@with_edges(*SPD_EDGES)
@given(spec=spd_specs())
def test_law_26_symmetry(make, spec):
    """Law 26: exact solvers and Neumann-k are linear and symmetric in b (CG-k is neither)."""
    laws.check_law_26_neumann(make, spec)


@methods("MINRES", "GMRES", "block", "CG, none")
@with_edges(*SPD_EDGES)
@given(spec=spd_specs())
def test_law_27_eigenvector(make, spec):
    """Law 27: an eigenvector takes one step."""
    laws.check_law_27_any(make, spec)


@with_edges(*SPD_EDGES)
@given(spec=spd_specs())
def test_law_28_nystrom(spec):
    """Law 28: ‖(I + Ĥ/λ)⁻¹ − (I + H/λ)⁻¹‖ ≤ E/(λ + E)."""
    laws.check_law_28(Nystrom, spec)


@with_edges(*SPD_EDGES)
@given(spec=spd_specs(spread=st.integers(0, 2)))
def test_law_28_exact(spec):
    """Law 28: no error once the rank reaches rank H."""
    laws.check_law_28_exact(Nystrom, spec)


@with_edges(*SPD_EDGES)
@given(spec=spd_specs())
def test_law_19_nystrom(spec):
    """Law 19: every Nyström meta-gradient descends."""
    laws.check_law_19_nystrom(Nystrom, spec)


@DIRECT
@with_edges(RidgeSpec(size=5, n=1), RidgeSpec(size=8, n=7, log10_ratio=6))
@given(spec=ridge_specs(size=st.integers(6, 9), n=st.integers(1, 5)))
def test_law_29_woodbury(solve, spec):
    """Law 29: for ridge with n < N, G⁻¹b = b − Xᵀ(λnI + XXᵀ)⁻¹Xb."""
    basic.check_law_29(solve, spec)


@pytest.mark.parametrize(
    "make",
    [MINRES, BlockCG, neumann, *list(CONJUGATE.values())[1:]],
    ids=["MINRES", "BlockCG", "neumann", *list(CONJUGATE)[1:]],
)
@with_edges(*SPD_EDGES)
@given(spec=spd_specs())
def test_law_30_residual_bounds_error(make, spec):
    """Law 30: for G ⪰ I, ‖x_k − x‖₂ and ‖x_k − x‖_G are at most the true residual."""
    basic.check_law_30(make, spec)


@methods()
@pytest.mark.parametrize(("rtol", "steps"), [(1e-2, 1), (1e-8, 8), (1e-8, 200), (1e-14, 200)])
@with_edges(*SPD_EDGES)
@given(spec=spd_specs())
def test_law_32_status(make, rtol, steps, spec):
    """Law 32: CONVERGED ⇔ recomputed residual ≤ max(rtol‖b‖, 10·N·eps·(‖A‖‖x‖ + ‖b‖))."""
    basic.check_law_32(make, spec, rtol, steps)


@pytest.mark.parametrize(("rtol", "steps"), [(1e-2, 1), (1e-9, 2), (1e-14, 8)])
@with_edges(*SPD_EDGES)
@given(spec=spd_specs())
def test_law_32_refinement(rtol, steps, spec):
    """Law 32 of iterative refinement."""
    basic.check_law_32(refined, spec, rtol, steps)


@with_edges(*SPD_EDGES)
@given(spec=spd_specs())
def test_refinement(spec):
    """Each correction in float32 multiplies the error by κ·u₃₂, until it is float64's."""
    laws.check_refinement(refined, spec)


@methods()
@given(spec=MODERATE, exponent=st.sampled_from([-900, -40, 7, 900]))
def test_scale_of_b(make, spec, exponent):
    """Tolerances are relative: b → 2^e b changes nothing but the scale, from 1e-270 to 1e270."""
    basic.check_scale(make, spec, exponent)


EVERY = {
    **{name: make(200, 1e-15) for name, make in ITERATIVE.items()},
    "LU": LU(),
    "Eigh": Eigh(),
    "Neumann": Neumann(None, 400),
    "Neumann, own step": lambda A, b: Neumann(1 / np.linalg.norm(A, 2), 400)(A, b),
}


@pytest.mark.parametrize("solve", EVERY.values(), ids=EVERY)
@given(spec=spd_specs(size=st.integers(2, 8)))
def test_saddle_is_refused(solve, spec):
    """A with a negative eigenvalue is INDEFINITE under every solver, and the witness is a Rayleigh quotient."""
    basic.check_indefinite(solve, spec)
