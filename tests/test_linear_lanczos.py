"""Extreme eigenvalues: from the inside, exact once the space is used up, the same on every call."""

import numpy as np
import pytest
from oracles.scenes import EPS
from oracles.systems import symmetric

from implicit_grad import ArgumentTypeError, extreme_eigenvalues
from implicit_grad.linear import as_operator


def _ends(A, steps):
    return extreme_eigenvalues(as_operator(A, np.ones(A.shape[-1])), steps=steps)


@pytest.mark.parametrize(
    "spectrum",
    [
        (-3.0, 0.0, 1.0, 7.0),
        (2.0,),
        (5.0,) * 6,
        np.geomspace(1e-4, 1e4, 12),
        # One pass of orthogonalisation is not enough for these two.
        np.geomspace(1e-8, 1e8, 40),
        np.linspace(1, 1 + 1e-6, 50),
    ],
    ids=["indefinite", "one", "equal", "wide", "wider", "clustered"],
)
def test_exact_once_every_dimension_is_used(spectrum):
    """Within 16·d·eps·‖A‖ of the ends of the spectrum; repeated eigenvalues end the recurrence early."""
    A = symmetric(51, spectrum)
    smallest, largest = _ends(A, steps=50)
    slack = 16 * len(spectrum) * EPS * max(map(abs, spectrum))
    assert abs(smallest - min(spectrum)) <= slack
    assert abs(largest - max(spectrum)) <= slack


def test_estimates_come_from_inside_and_only_widen():
    spectrum = np.linspace(-1, 30, 25)
    A, slack = symmetric(52, spectrum), 16 * 25 * EPS * 30
    ends = np.array([_ends(A, steps) for steps in range(1, 26)])
    assert (ends[:, 0] >= -1 - slack).all()
    assert (ends[:, 1] <= 30 + slack).all()
    assert (np.diff(ends[:, 0]) <= slack).all()
    assert (np.diff(ends[:, 1]) >= -slack).all()
    # A positive smallest Ritz value certifies nothing: this matrix is indefinite.
    assert ends[3, 0] > 0 > ends[-1, 0]


def test_a_batch_is_its_matrices_and_repeats_itself():
    """Bitwise, each by its own recurrence: one is a multiple of I and stops after one step."""
    A = np.stack([symmetric(53, np.geomspace(1, 9, 5)), 3 * np.eye(5), np.zeros((5, 5))])
    together = np.array(_ends(A, steps=4))
    for i in range(3):
        assert np.array_equal(together[:, i], _ends(A[i], steps=4))
    assert np.array_equal(together, _ends(A, steps=4))
    assert np.abs(together[:, 1] - 3).max() <= 4 * EPS
    assert not together[:, 2].any()


def test_nan_is_reported_as_nan():
    A = np.stack([np.eye(3), np.full((3, 3), np.nan)])
    smallest, largest = _ends(A, steps=3)
    assert abs(smallest[0] - 1) <= 4 * EPS
    assert np.isnan([smallest[1], largest[1]]).all()


def test_an_array_is_no_operator():
    with pytest.raises(ArgumentTypeError, match=r"^A: .*as_operator"):
        extreme_eigenvalues(np.eye(3))
