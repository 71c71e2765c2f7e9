"""Newton where A is not positive definite for some of a batch: only those are shifted, and it is paid for."""

from collections import Counter

import numpy as np
import pytest
from device_double import DOUBLE
from oracles.losses import Counting
from oracles.scenes import EPS

from implicit_grad import CG, Autodiff, BilevelProblem, Cholesky, Newton

SLOPES = np.array([[3.0, -2.0], [0.2, 1.0], [-1.0, 0.5]])
THETA = np.array([[0.3, -0.1], [2.0, 2.0], [0.05, -0.4]])


def _wells(slope):
    """Double wells: concave near the origin, where two of the three starts are."""

    def loss(x):
        return ((x**2 - 1) ** 2 + slope * x).sum(axis=-1)

    traced = Autodiff(loss, broadcasts=True)
    return BilevelProblem(traced, traced, 0.4)


SOLVERS = {"Cholesky": Cholesky(), "CG": CG(5)}
EVERY_SOLVER = pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)


@EVERY_SOLVER
def test_each_problem_goes_its_own_way(solver):
    curvature = np.linalg.eigvalsh(_wells(SLOPES).curvature(THETA).dense())[:, 0]
    assert (curvature[[0, 2]] < 0).all()
    assert curvature[1] > 0
    many = Newton(linear_solver=solver)(_wells(SLOPES), THETA)
    assert many.ok.all()
    for i in range(3):
        one = Newton(linear_solver=solver)(_wells(SLOPES[i]), THETA[i])
        assert np.abs(many.value[i] - one.value).max() <= 64 * EPS * np.abs(one.value).max()
        assert many.steps[i] == one.steps
        assert np.linalg.eigvalsh(_wells(SLOPES[i]).curvature(one.value).dense())[0] > 0
        alone = np.nan if one.smallest_eigenvalue is None else one.smallest_eigenvalue
        assert np.allclose(many.smallest_eigenvalue[i], alone, rtol=64 * EPS, atol=0, equal_nan=True)
    assert np.isnan(many.smallest_eigenvalue[1])


def test_the_shift_puts_the_lowest_eigenvalue_as_far_above_zero():
    """One step of length one from θ: along (A − 2λ_min I)⁻¹∇G for the saddles, A⁻¹∇G for the other."""
    problem = _wells(SLOPES)
    A, g = problem.curvature(THETA).dense(), problem.stationarity(THETA, THETA)
    lowest = np.linalg.eigvalsh(A)[:, 0]
    shift = np.where(lowest < 0, -2 * lowest, 0.0)
    way = -np.linalg.solve(A + shift[:, None, None] * np.eye(2), g[..., None])[..., 0]
    moved = Newton(max_steps=1)(problem, THETA).value - THETA
    t = np.sum(moved * way, axis=-1) / np.sum(way * way, axis=-1)
    assert np.abs(moved - t[:, None] * way).max() <= 64 * EPS * np.abs(way).max()
    assert set(t.round(12)) <= {0.0, 1.0}


@EVERY_SOLVER
@pytest.mark.parametrize("rtol", [0.0, 1e-12])
def test_a_device_does_the_same_unasked(solver, rtol):
    """Eigenvalues and second solves for everybody, values and statuses of the host."""
    slopes = DOUBLE.asarray(SLOPES)

    def loss(x):
        return ((x**2 - 1) ** 2 + slopes * x).sum(axis=-1)

    traced = Autodiff(loss, broadcasts=True)
    there = BilevelProblem(traced, traced, 0.4)
    for steps in (1, 3, 40):
        method = Newton(rtol, steps, solver)
        plain, device = method(_wells(SLOPES), THETA), method(there, DOUBLE.asarray(THETA))
        assert np.array_equal(device.status, plain.status)
        assert np.array_equal(device.steps.get(), plain.steps)
        assert np.abs(device.value.get() - plain.value).max() <= 1e3 * EPS * np.abs(plain.value).max()
        seen, wanted = device.smallest_eigenvalue.get(), plain.smallest_eigenvalue
        assert np.array_equal(np.isnan(seen), np.isnan(wanted))
        if rtol and isinstance(solver, CG):  # asked every step: no step too many, but for solves that nobody needs
            assert device.cost.gradients == plain.cost.gradients
        assert np.nanmax(np.abs(seen - wanted)) <= 1e3 * EPS * np.nanmax(np.abs(wanted))


def test_both_solves_are_paid_for():
    """As many products and gradients as are counted, with the second solve of a shifted step."""
    calls = Counter()
    plain = _wells(SLOPES)
    counted = BilevelProblem(Counting(plain.inner, calls), plain.outer, 0.4)
    run = Newton(1e-12, 4, CG(5))(counted, THETA)
    assert run.smallest_eigenvalue is not None
    assert {"gradients": 3 * run.cost.gradients, "hvps": 3 * run.cost.hvps} == {
        "gradients": calls["gradients"],
        "hvps": calls["hvps"],
    }
