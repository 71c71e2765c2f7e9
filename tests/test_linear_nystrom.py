"""The Nyström method: the shift is λ, and it must be known."""

import numpy as np
import pytest
from oracles import scenes
from oracles.losses import Diagonal
from oracles.scenes import EPS
from oracles.systems import symmetric

from implicit_grad import (
    ArgumentError,
    ArgumentTypeError,
    BilevelProblem,
    Cholesky,
    ImplicitGradient,
    MetaGradient,
    Newton,
    Nystrom,
    NystromPreconditioner,
    Operator,
    PreconditionedCG,
    Status,
)
from implicit_grad.linear import as_operator

B = np.random.default_rng(91).standard_normal(8)
LIVE = np.array([9.0, 4.0, 1.0, 0, 0, 0, 0, 0])
H = symmetric(92, LIVE)


def operator(lam, hessian=H):
    return as_operator(hessian, B).shifted(np.asarray(lam))


@pytest.mark.parametrize("lam", [1e-3, 0.7, 40.0])
def test_exact_at_the_rank_of_the_hessian(lam):
    """Five spare directions make a well conditioned sketch: 64·d·κ·eps."""
    exact = np.linalg.solve(H + lam * np.eye(8), B)
    solution = Nystrom(8)(operator(lam), B)
    assert np.linalg.norm(solution.value - exact) <= 64 * 8 * (9 + lam) / lam * EPS * np.linalg.norm(exact)
    assert solution.status is Status.BUDGET_SPENT
    assert solution.steps == 8
    assert solution.cost.hvps == 8 + 1


def test_less_than_the_rank_leaves_a_residual_that_is_told():
    solution = Nystrom(1)(operator(0.5), B)
    A = H + 0.5 * np.eye(8)
    residual = np.linalg.norm(B - A @ solution.value)
    assert residual > 0.1 * np.linalg.norm(B)
    assert abs(solution.residual_norm - residual) <= 64 * EPS * residual * 20
    assert solution.status is Status.BUDGET_SPENT


def test_no_curvature_leaves_b_over_lam():
    for lam in (1e-200, 0.3, 1e200):
        value = Nystrom(2)(operator(lam, np.zeros((8, 8))), B).value
        assert np.abs(value * lam - B).max() <= 16 * EPS * np.abs(B).max()


@pytest.mark.parametrize("exponent", [-600, 0, 600])
def test_scales(exponent):
    """H, λ → 2^e H, 2^e λ: x scales to the last bit, from 1e-180 to 1e180."""
    plain = Nystrom(3)(operator(0.5), B).value
    scaled = Nystrom(3)(operator(np.ldexp(0.5, exponent), np.ldexp(H, exponent)), B).value
    assert np.array_equal(scaled, np.ldexp(plain, -exponent))


def test_a_seed_is_a_sketch():
    one, two, other = (Nystrom(2, seed)(operator(0.5), B).value for seed in (7, 7, 8))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)


def test_the_shift_must_be_known():
    for A in (H + np.eye(8), lambda v: v @ H):
        with pytest.raises(ArgumentTypeError, match=r"^A: Nystrom needs the shift"):
            Nystrom(2)(A, B)
    with pytest.raises(ArgumentError, match=r"^A: .*must be > 0"):
        Nystrom(2)(operator(0.0), B)
    unregularised = Operator(lambda v: v @ H, (), 8, H, stacks=True, shift=np.asarray(-1.0))
    with pytest.raises(ArgumentError, match=r"^A: .*must be > 0"):
        Nystrom(2)(unregularised, B)


def test_the_rank_is_at_most_d():
    for solver in (Nystrom(9), PreconditionedCG(3, 0.0, NystromPreconditioner(9))):
        with pytest.raises(ArgumentError, match=r"^rank: 9 exceeds the 8 parameters"):
            solver(operator(0.5), B)


@pytest.mark.parametrize("kind", [Nystrom, NystromPreconditioner])
def test_bad_arguments(kind):
    for rank in (0, -1, 1.5, True, None):
        with pytest.raises((ArgumentError, ArgumentTypeError), match=r"^rank"):
            kind(rank)
    for seed in (-1, 1.5, True, None):
        with pytest.raises((ArgumentError, ArgumentTypeError), match=r"^seed"):
            kind(2, seed)


def test_shifts_and_quotients_are_known():
    """(H + λI + σI)/c is H/c + (λ + σ)/c·I, and rows of a batch know theirs."""
    lams = np.array([0.5, 2.0])
    A = as_operator(np.stack([H, 2 * H]), B).shifted(lams).shifted(np.asarray(0.25)).divided(np.asarray(4.0))
    assert np.array_equal(A.shift, (lams + 0.25) / 4)
    together = Nystrom(8)(A, B)
    for i, (scale, lam) in enumerate(((1, 0.75), (2, 2.25))):
        exact = np.linalg.solve((scale * H + lam * np.eye(8)) / 4, B)
        assert np.linalg.norm(together.value[i] - exact) <= 64 * 8 * 30 * EPS * np.linalg.norm(exact)
        assert np.array_equal(Nystrom(8)(A.select((i,)), B).value, together.value[i])


def test_a_saddle_seen_by_the_sketch():
    solution = Nystrom(8)(operator(0.5, symmetric(93, [-2.0, 1, 1, 1, 1, 1, 1, 5])), B)
    assert solution.status is Status.INDEFINITE
    assert abs(solution.smallest_eigenvalue + 1.5) <= 64 * 8 * EPS * 5


def test_negative_curvature_short_of_a_saddle_is_left_out():
    """Ĥ ⪰ 0 always: ‖x‖ ≤ ‖b‖/λ, and the smallest Ritz value < λ tells of it."""
    hessian = symmetric(94, [-0.3, 0, 0, 0, 0, 0, 0, 5.0])
    solution = Nystrom(8)(operator(0.5, hessian), B)
    assert solution.status is Status.BUDGET_SPENT
    assert abs(solution.smallest_eigenvalue - 0.2) <= 64 * 8 * EPS * 5
    assert np.linalg.norm(solution.value) <= np.linalg.norm(B) / 0.5


@pytest.mark.parametrize("lam", [*scenes.LAMS, 1e200], ids="{:.3g}".format)
def test_as_a_meta_gradient(lam):
    """Full rank is exact inversion, where λ is so large that the system is divided by it, too."""
    scene = scenes.ridge(lam)
    exact, sketched = (
        MetaGradient(Newton(), ImplicitGradient(solver))(scene.problem, scene.theta).gradient
        for solver in (Cholesky(), Nystrom(6))
    )
    assert np.linalg.norm(sketched - exact) <= 64 * 6 * scene.condition * EPS * np.linalg.norm(exact)


def test_per_parameter_scales_of_the_hessian_do_not_matter_to_the_shift():
    """λ is taken off before the sketch: the rank that counts is that of H, not of A."""
    problem = BilevelProblem(Diagonal(np.array([3.0, 0, 0, 0])), Diagonal(np.zeros(4), -1.0), 0.25)
    solution = Nystrom(1)(problem.curvature(np.zeros(4)), np.ones(4))
    assert np.abs(solution.value - [1 / 3.25, 4, 4, 4]).max() <= 1e4 * EPS
