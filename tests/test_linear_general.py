"""Solvers of nonsymmetric systems: by construction x is known, κ is known, and the transpose is another matrix."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from implicit_grad import (
    ArgumentError,
    ArgumentTypeError,
    Cholesky,
    ConvergenceError,
    Cost,
    GeneralGMRES,
    GeneralLU,
    Operator,
    Status,
)
from implicit_grad.linear.general_gmres import arnoldi
from implicit_grad.testing.matrices import orthogonal
from implicit_grad.testing.strategies import SEEDS

EPS = float(np.finfo(float).eps)


@dataclass(frozen=True)
class SquareSpec:
    """J = U diag(σ) Vᵀ with σ from 10^log10_scale down to 10^(log10_scale − spread); x drawn, b = J x."""

    size: int = 4
    spread: int = 2
    log10_scale: int = 0
    seed: int = 5

    @property
    def kappa(self):
        return 10.0 ** (self.spread if self.size > 1 else 0)

    def build(self):
        rng = np.random.default_rng(self.seed)
        sigma = 10.0 ** (self.log10_scale - self.spread * np.arange(self.size) / max(1, self.size - 1))
        J = (orthogonal(rng, self.size) * sigma) @ orthogonal(rng, self.size).T
        return J, rng.standard_normal(self.size)

    def tolerance(self, x):
        """Rounding in b = J x is as good as an error of eps·d·‖J‖ in J."""
        return 64 * self.size * self.kappa * EPS * np.linalg.norm(x)


SPECS = st.builds(
    SquareSpec, size=st.integers(1, 9), spread=st.integers(0, 5), log10_scale=st.integers(-9, 9), seed=SEEDS
)
SOLVERS = [GeneralLU(), GeneralLU(refinements=0), GeneralGMRES(20), GeneralGMRES(20, 1e-13)]


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: s.label)
@given(spec=SPECS)
@example(spec=SquareSpec(size=1, seed=7))
@example(spec=SquareSpec(size=7, spread=5, log10_scale=-9, seed=8))
def test_the_known_solution_is_found(solver, spec):
    J, x = spec.build()
    for matrix in (J, J.T):
        solution = solver(matrix, matrix @ x)
        assert np.linalg.norm(solution.value - x) <= spec.tolerance(x)
        assert solution.status is Status.CONVERGED
        own = np.linalg.norm(matrix @ x - matrix @ solution.value)
        # The residual is recomputed: it is this one, but for the rounding of the two products.
        noise = 4 * spec.size * EPS * 10.0**spec.log10_scale * np.linalg.norm(x)
        assert abs(solution.residual_norm - own) <= noise


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: s.label)
def test_the_matrix_is_not_made_symmetric(solver):
    """½(J + Jᵀ) of a rotation is 0; Cholesky's answer to such a system is refused by its own residual."""
    J = np.array([[0.0, -2.0], [2.0, 0.0]])
    assert np.array_equal(solver(J, np.array([2.0, 4.0])).value.round(14), [2.0, -1.0])
    upper = Operator(lambda v: np.array([[3.0, 1.0], [0.0, 3.0]]) @ v, (), 2, np.ones(2))
    assert np.allclose(solver(upper, np.array([4.0, 3.0])).value, [1.0, 1.0], rtol=8 * EPS, atol=0)
    assert not Cholesky()(upper, np.array([4.0, 3.0])).ok


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: s.label)
@pytest.mark.parametrize("exponents", [(300, 20), (-300, 20), (30, -700), (-40, 700)])
def test_powers_of_two_change_no_digit(solver, exponents):
    J, x = SquareSpec(size=5, seed=9).build()
    a, b = (2.0**e for e in exponents)
    plain, scaled = solver(J, J @ x), solver(a * J, b * (J @ x))
    assert np.array_equal(scaled.value, b / a * plain.value)
    assert scaled.status is plain.status is Status.CONVERGED


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: s.label)
def test_a_zero_right_hand_side_is_solved_by_zero(solver):
    solution = solver(SquareSpec(size=3, seed=11).build()[0], np.zeros(3))
    assert np.array_equal(solution.value, np.zeros(3))
    assert solution.status is Status.CONVERGED


def test_a_singular_matrix_has_no_solution():
    J, _ = SquareSpec(size=4, seed=5).build()
    singular = J - np.outer(J @ np.ones(4), np.ones(4)) / 4
    solution = GeneralLU()(singular, np.arange(1.0, 5))
    assert np.isnan(solution.value).all()
    assert solution.status is Status.NONFINITE
    with pytest.raises(ConvergenceError, match="NONFINITE"):
        solution.unwrap()
    assert GeneralGMRES(9, 1e-10)(singular, np.arange(1.0, 5)).status is Status.STAGNATED
    assert GeneralLU()(np.zeros((2, 2)), np.ones(2)).status is Status.NONFINITE


def test_a_matrix_beyond_half_the_digits_is_called_so():
    for spread, wanted in ((7, Status.CONVERGED), (9, Status.ILL_CONDITIONED)):
        J, x = SquareSpec(size=4, spread=spread, seed=7).build()
        assert GeneralLU()(J, J @ x).status is wanted


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: s.label)
def test_a_bad_problem_leaves_its_neighbours_alone(solver):
    specs = [SquareSpec(size=3, seed=seed) for seed in (5, 6, 7, 8)]
    J, x = (np.stack(each) for each in zip(*(spec.build() for spec in specs), strict=True))
    b = (J @ x[..., None])[..., 0]
    alone = [solver(J[i], b[i]).value for i in range(4)]
    J[1], b[2] = np.nan, np.inf
    together = solver(J.reshape(2, 2, 3, 3), b.reshape(2, 2, 3))
    assert [s.name for s in together.status.flat] == ["CONVERGED", "NONFINITE", "NONFINITE", "CONVERGED"]
    for i in (0, 3):
        assert np.array_equal(together.value.reshape(4, 3)[i], alone[i])
    assert np.isnan(together.value.reshape(4, 3)[2]).all()


def test_one_matrix_serves_many_right_hand_sides():
    J, _ = SquareSpec(size=3, seed=5).build()
    b = np.arange(6.0).reshape(2, 3) + 1
    many = GeneralLU()(J, b).value
    assert np.array_equal(many, np.stack([GeneralLU()(J, row).value for row in b]))


@given(spec=SPECS, k=st.integers(0, 8))
def test_gmres_finds_the_least_residual_of_its_krylov_space(spec, k):
    """Against a dense least-squares problem on an orthonormal basis of K_k, built here."""
    J, x = spec.build()
    b = J @ x
    basis = []
    for _ in range(min(k, spec.size)):
        w = b.copy() if not basis else J @ basis[-1]
        for _ in range(3):
            w -= sum((v * (v @ w) for v in basis), np.zeros_like(w))
        if np.linalg.norm(w) <= 1e-8 * np.linalg.norm(J, 2):
            return  # an invariant space: there is no further basis to compare with
        basis.append(w / np.linalg.norm(w))
    found = GeneralGMRES(k)(J, b)
    least = np.linalg.norm(b)
    if basis:
        K = np.stack(basis, axis=1)
        least = np.linalg.norm(b - J @ (K @ np.linalg.lstsq(J @ K, b, rcond=None)[0]))
    assert abs(found.residual_norm - least) <= 64 * spec.size * spec.kappa * EPS * np.linalg.norm(b)
    assert found.steps <= min(k, spec.size)


def test_gmres_makes_no_progress_on_a_cyclic_shift_before_the_last_step():
    J, b = np.roll(np.eye(6), 1, axis=0), np.eye(6)[0]
    for k in range(6):
        solution = GeneralGMRES(k, 1e-9)(J, b)
        assert solution.residual_norm == 1.0
        assert solution.status is Status.MAX_STEPS
        assert solution.steps == k
    assert GeneralGMRES(6, 1e-9)(J, b).residual_norm <= 6 * EPS


def test_gmres_stops_where_the_space_is_complete():
    """b spans two eigenvectors: two steps are exact, and a third is not taken."""
    x, steps, *_ = arnoldi(Operator(lambda v: np.array([1.0, 2, 3, 4, 5]) * v, (), 5, np.ones(5)), np.eye(5)[0], 5, 0)
    assert steps == 1
    assert np.array_equal(x, np.eye(5)[0])
    assert GeneralGMRES(5)(np.diag([1.0, 2, 3, 4, 5]), np.array([1.0, 1, 0, 0, 0])).steps == 2


@pytest.mark.parametrize("solver", [*SOLVERS, GeneralGMRES(2), GeneralGMRES(0)], ids=lambda s: s.label)
def test_costs_are_counted_exactly(solver):
    J, x = SquareSpec(size=5, seed=6).build()
    calls = Counter()

    def apply(v):
        calls["hvps"] += 1
        return J @ v

    solution = solver(Operator(apply, (), 5, x), J @ x)
    assert solution.cost == Cost(hvps=calls["hvps"])


def test_float32_is_solved_in_float32():
    J, x = (a.astype(np.float32) for a in SquareSpec(size=4, spread=1, seed=5).build())
    eps = float(np.finfo(np.float32).eps)
    for solver in (GeneralLU(), GeneralGMRES(4)):
        solution = solver(J, J @ x)
        assert solution.value.dtype == np.float32
        assert np.linalg.norm(solution.value - x) <= 64 * 4 * 10 * eps * np.linalg.norm(x)


@pytest.mark.parametrize("solver", [GeneralLU(), GeneralGMRES(3)], ids=lambda s: s.label)
def test_bad_input_is_refused_by_name(solver):
    with pytest.raises(ArgumentError, match="A: expected a square"):
        solver(np.ones((2, 3)), np.ones(2))
    with pytest.raises(ArgumentError, match="A: works on vectors of length 2"):
        solver(np.eye(2), np.ones(3))
    with pytest.raises(ArgumentTypeError, match="A: dtype float32 mixed"):
        solver(np.eye(2, dtype=np.float32), np.ones(2))
    with pytest.raises(ArgumentTypeError, match="complex"):
        solver(np.eye(2) * 1j, np.ones(2))
    with pytest.raises(ArgumentTypeError, match="max_steps"):
        GeneralGMRES(2.0)
    with pytest.raises(ArgumentError, match="rtol"):
        GeneralGMRES(2, -1e-3)
    with pytest.raises(ArgumentError, match="refinements"):
        GeneralLU(-1)
