"""Operators: dense copies, rows, shifts and quotients, and what is accepted as a matrix."""

import numpy as np
import pytest
from oracles import scenes
from oracles.scenes import EPS
from oracles.systems import spd, symmetric
from scipy.sparse import csr_array

from implicit_grad import CG, ArgumentError, ArgumentTypeError, BilevelProblem, Cholesky, Operator, Status
from implicit_grad.linear import as_operator


def _matrices():
    return np.stack([symmetric(seed, np.geomspace(0.5, 40, 5)) for seed in (41, 42, 43)])


@pytest.mark.parametrize("stacks", [True, False])
def test_dense_gives_the_matrix_back(stacks):
    A = _matrices()
    operator = Operator(lambda v: (A @ v[..., None])[..., 0], (3,), 5, A, stacks)
    assert np.array_equal(operator.dense(), A)


def test_dense_is_symmetric():
    """The rounding of products is not symmetric; the copy is, and keeps what both triangles say."""
    A = _matrices()[0]
    crooked = A + 1e-9 * np.triu(np.ones((5, 5)), 1)
    dense = Operator(lambda v: v @ crooked.T, (), 5, A, stacks=True).dense()
    assert np.array_equal(dense, dense.T)
    assert np.array_equal(dense, 0.5 * (crooked + crooked.T))


def test_dense_goes_in_chunks(monkeypatch):
    """Three columns at a time give the matrix that one column at a time gives."""
    from implicit_grad.linear import operator as module

    A = _matrices()
    whole = as_operator(A, np.ones(5)).dense()
    for numbers in (1, 15 * 3, 15 * 4):
        monkeypatch.setattr(module, "_DENSE_CHUNK", numbers)
        assert np.array_equal(as_operator(A, np.ones(5)).dense(), whole)


def test_shift_and_quotient():
    """(A + s I)/c for one s and one c per problem, batch axes broadcasting."""
    A, v = _matrices(), np.random.default_rng(44).standard_normal((2, 3, 5))
    s, c = np.array([[0.3], [2.0]]), np.array([1.5, 7.0, 0.1])
    operator = as_operator(A, np.ones(5)).shifted(s).divided(c)
    assert operator.batch_shape == (2, 3)
    wanted = ((A @ v[..., None])[..., 0] + s[..., None] * v) / c[:, None]
    assert np.array_equal(operator(v), wanted)
    for i, j in np.ndindex(2, 3):
        row = operator.select((i, j))
        assert row.batch_shape == ()
        assert np.array_equal(row(v[i, j]), wanted[i, j])


def test_a_row_without_a_selector_is_right_all_the_same():
    A = _matrices()
    operator = Operator(lambda v: (A @ v[..., None])[..., 0], (3,), 5, A)
    v = np.arange(5.0)
    for i in range(3):
        assert np.array_equal(operator.select((i,))(v), A[i] @ v)


@pytest.mark.parametrize("lam", scenes.LAMS, ids="{:.3g}".format)
@pytest.mark.parametrize("make", [scenes.ridge, scenes.softmax], ids=["ridge", "softmax"])
def test_rows_of_a_curvature(make, lam):
    """λ broadcast over a batch of points: row (i, j) has its own λ and its own linearisation."""
    scene = make(lam)
    problem = BilevelProblem(scene.problem.inner, scene.problem.outer, np.array([[lam], [3 * lam]]))
    phi = np.stack([scene.theta, 2 * scene.theta, -scene.theta])
    A = problem.curvature(phi)
    v = np.cos(np.arange(scene.theta.size))
    together = A(np.broadcast_to(v, (2, 3, v.size)))
    dense = A.dense()
    for i, j in np.ndindex(2, 3):
        row = A.select((i, j))
        assert np.array_equal(row(v), together[i, j])
        H = problem.inner.linearize(phi[j]).hvp(np.eye(v.size))
        wanted = H + (lam if i == 0 else 3 * lam) * np.eye(v.size)
        assert np.abs(dense[i, j] - wanted).max() <= 4 * EPS * np.abs(wanted).max()
        assert np.array_equal(row.dense(), dense[i, j])


def test_an_asymmetric_matrix_is_refused_by_its_own_scale():
    """One huge problem of a batch does not hide another's asymmetry, nor does one with NaN."""
    A, b = spd(45, 3, 10.0)
    crooked = A.copy()
    crooked[0, 1] += 1e-3
    for other in (1e9 * A, np.full((3, 3), np.nan), np.full((3, 3), np.inf)):
        with pytest.raises(ArgumentError, match=r"A: must be symmetric; .* 0\.001"):
            CG(3)(np.stack([crooked, other]), b)
    assert CG(3)(np.stack([A, np.full((3, 3), np.nan)]), b).status[1] is Status.NONFINITE


@pytest.mark.parametrize(
    ("A", "error"),
    [
        (np.ones((3, 2)), ArgumentError),
        (np.ones(3), ArgumentError),
        (np.eye(4), ArgumentError),
        (np.ones((2, 3, 3)), ArgumentError),
        (np.eye(3, dtype=np.float32), ArgumentTypeError),
        (np.eye(3, dtype=complex), ArgumentTypeError),
        (np.eye(3, dtype=object), ArgumentTypeError),
        (np.ma.masked_array(np.eye(3)), ArgumentTypeError),
        (csr_array(np.eye(3)), ArgumentTypeError),
        ("A", ArgumentTypeError),
        (None, ArgumentTypeError),
    ],
    ids=lambda a: f"{type(a).__name__}{getattr(a, 'shape', '')}",
)
@pytest.mark.parametrize("solver", [CG(3), Cholesky()], ids=lambda s: s.label)
def test_what_is_no_matrix_for_b_is_refused(solver, A, error):
    with pytest.raises(error, match=r"^A: "):
        solver(A, np.ones((3, 3)))


def test_integer_matrices_are_cast():
    assert np.array_equal(Cholesky()(np.diag([1, 2, 4]), np.array([1, 1, 1])).value, [1, 0.5, 0.25])
