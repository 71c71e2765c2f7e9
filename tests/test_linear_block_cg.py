"""Block conjugate gradient: what a block is, and that nothing breaks it down."""

import numpy as np
import pytest
from oracles.scenes import EPS
from oracles.systems import spd, symmetric

from implicit_grad import CG, BlockCG, IndefiniteError, Operator, Status

A, _ = spd(111, 30, 1e4)
B = np.random.default_rng(112).standard_normal((6, 30))


def test_a_block_needs_fewer_steps():
    together, alone = BlockCG(900, 1e-8)(A, B), CG(900, 1e-8)(A, B)
    assert together.ok.all()
    assert together.steps.max() < 0.5 * alone.steps.min()
    assert together.cost.hvps < 0.5 * alone.cost.hvps


def test_exact_after_as_many_steps_as_its_share():
    """30 parameters, 6 right-hand sides, κ = 10: 5 steps."""
    easy = symmetric(113, np.geomspace(1, 10, 30))
    X = np.linalg.solve(easy, B.T).T
    value = BlockCG(5)(easy, B).value
    assert np.linalg.norm(value - X) <= 1e-8 * np.linalg.norm(X)
    assert np.linalg.norm(BlockCG(4)(easy, B).value - X) > 1e-8 * np.linalg.norm(X)


@pytest.mark.parametrize("stacks", [True, False])
def test_blocks_and_problems(stacks):
    """b (2, 3, T, d) with A (T, d, d): a block of six for each of T problems, each as if alone."""
    matrices = np.stack([spd(seed, 5, 30.0)[0] for seed in (114, 115)])
    b = np.random.default_rng(116).standard_normal((2, 3, 2, 5))
    operator = Operator(lambda v: (matrices @ v[..., None])[..., 0], (2,), 5, matrices, stacks)
    solver = BlockCG(60, 1e-10)
    together = solver(operator, b)
    assert together.value.shape == b.shape
    assert together.status.shape == together.steps.shape == (2, 3, 2)
    for t in range(2):
        alone = solver(matrices[t], b[:, :, t])
        assert np.abs(together.value[:, :, t] - alone.value).max() <= 64 * 5 * 30 * EPS * np.abs(alone.value).max()
        exact = np.linalg.solve(matrices[t], b[:, :, t, :, None])[..., 0]
        assert np.abs(together.value[:, :, t] - exact).max() <= 30 * 1e-9 * np.abs(exact).max()


def test_a_callable_has_no_block():
    """A callable takes b as it is, so every right-hand side may have an A of its own."""
    factors = np.array([1.0, 2.0, 4.0])
    value = BlockCG(40, 1e-12)(lambda v: factors[:, None] * v, B[:3, :5]).value
    assert np.abs(value * factors[:, None] - B[:3, :5]).max() <= 16 * EPS * np.abs(B).max()


def test_more_right_hand_sides_than_parameters():
    small, _ = spd(117, 3, 10.0)
    b = np.random.default_rng(118).standard_normal((9, 3))
    solution = BlockCG(1)(small, b)
    exact = np.linalg.solve(small, b.T).T
    assert np.linalg.norm(solution.value - exact) <= 64 * 3 * 10 * EPS * np.linalg.norm(exact)


@pytest.mark.parametrize("copies", [2, 5])
def test_equal_right_hand_sides_have_equal_solutions(copies):
    solution = BlockCG(900, 1e-9)(A, np.repeat(B[:1], copies, axis=0))
    assert solution.ok.all()
    alone = BlockCG(900, 1e-9)(A, B[0])
    # Rounding makes the block a few steps longer or shorter, as it does CG where κ is large.
    assert np.abs(solution.steps - alone.steps).max() <= 1 + 0.1 * alone.steps
    exact = np.linalg.solve(A, B[0])
    assert np.abs(solution.value - exact).max() <= 1e4 * 1e-9 * np.linalg.norm(B[0])


def test_columns_leave_when_they_are_done():
    """An eigenvector takes one step in company, too; a hard neighbour goes on."""
    values, Q = np.linalg.eigh(A)
    solution = BlockCG(900, 1e-9)(A, np.array([Q[:, 4], B[0]]))
    assert solution.ok.all()
    assert solution.steps[0] < solution.steps[1]
    assert np.abs(solution.value[0] * values[4] - Q[:, 4]).max() <= 1e4 * 1e-9


def test_right_hand_sides_of_all_sizes():
    """Each column by its own scale: 1e-200 beside 1e200, at the same relative residual."""
    scales = np.array([1e-200, 1e-30, 1.0, 1e30, 1e200, 0.0])
    solution = BlockCG(900, 1e-9)(A, scales[:, None] * B)
    assert solution.ok.all()
    for value, scale, b in zip(solution.value[:5], scales[:5], B[:5], strict=True):
        assert np.linalg.norm(b - A @ (value / scale)) <= 1.1e-9 * np.linalg.norm(b)


def test_nan_in_one_right_hand_side():
    spoiled = B.copy()
    spoiled[2, 7] = np.nan
    solution = BlockCG(900, 1e-9)(A, spoiled)
    assert solution.status[2] is Status.NONFINITE
    assert solution.ok[[0, 1, 3, 4, 5]].all()
    without = BlockCG(900, 1e-9)(A, np.delete(B, 2, axis=0)).value
    ours = np.delete(solution.value, 2, axis=0)
    assert np.abs(ours - without).max() <= 1e4 * 1e-8 * np.abs(without).max()


def test_a_solution_beyond_the_range_of_floats_costs_the_neighbours_nothing():
    """A⁻¹b = 1e310 while it is computed: LAPACK gives up on infinite rows, and would on all problems with them."""
    matrices = np.stack([1e-310 * np.eye(30), A])
    solution = BlockCG(900, 1e-9)(matrices, B[:, None])
    assert all(s is Status.NONFINITE for s in solution.status[:, 0])
    assert np.array_equal(solution.value[:, 1], BlockCG(900, 1e-9)(A[None], B[:, None]).value[:, 0])


def test_a_saddle_is_a_saddle_for_all_columns():
    """One A, one verdict; the other problem of the batch does not hear of it."""
    matrices = np.stack([A, A - 2 * np.eye(30)])
    solution = BlockCG(900, 1e-8)(matrices, B[:, None])
    assert all(s is Status.INDEFINITE for s in solution.status[:, 1])
    assert solution.ok[:, 0].all()
    assert (solution.smallest_eigenvalue[:, 1] <= 0).all()
    assert (solution.smallest_eigenvalue[:, 1] >= -1 - 64 * 30 * 1e4 * EPS).all()
    with pytest.raises(IndefiniteError, match=r"problem \(0, 1\)"):
        solution.unwrap()


def test_the_smallest_ritz_value_is_inside_the_spectrum():
    solution = BlockCG(900, 1e-9)(A, B)
    assert (solution.smallest_eigenvalue >= 1 - 64 * 30 * 1e4 * EPS).all()
    assert (solution.smallest_eigenvalue <= CG(1)(A, B).smallest_eigenvalue.min() + 1e-9).all()
