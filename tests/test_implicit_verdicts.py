"""What an implicit function says of a point: no root, a saddle, singular, or another problem's trouble."""

import warnings
from dataclasses import replace

import autograd.numpy as anp
import numpy as np
import pytest
from stationarity_maps import EPS, square_root

from implicit_grad import (
    CG,
    AutodiffMap,
    Cholesky,
    ConvergenceError,
    Cost,
    ImplicitFunction,
    IndefiniteError,
    NewtonRoot,
    Solution,
    Status,
)


def test_a_point_that_is_no_root_is_called_so():
    function, theta = ImplicitFunction(AutodiffMap(square_root)), np.array([4.0, 9.0])
    good, bad = function.judge([2.0, 3.0], theta), function.judge([2.0, 3.001], theta)
    assert (good.status, bad.status) == (Status.CONVERGED, Status.MAX_STEPS)
    assert good.residual_norm == 0
    assert abs(bad.residual_norm - (3.001**2 - 9)) <= 16 * EPS
    derivative = function.vjp([2.0, 3.001], theta, np.ones(2))
    assert derivative.status is Status.MAX_STEPS
    assert np.isfinite(derivative.value).all()  # told, not hidden
    assert not derivative.ok
    with pytest.raises(ConvergenceError, match="the given phi"):
        derivative.unwrap()
    # ‖∂_φF φ‖ + ‖∂_θF θ‖ = 3‖θ‖ near the root: the tolerance is relative to that.
    size = 3 * np.linalg.norm(theta)
    for factor, wanted in ((0.9, Status.CONVERGED), (1.1, Status.MAX_STEPS)):
        off = np.sqrt(theta + np.array([0.0, factor * 1e-6 * size]))
        assert function.judge(off, theta).status is wanted


def test_a_solution_brings_its_own_verdict():
    function, theta = ImplicitFunction(AutodiffMap(square_root)), np.array([4.0])
    handed = Solution(np.array([2.1]), 0.0, 7, Status.BUDGET_SPENT, "mine", cost=Cost(gradients=5))
    derivative = function.vjp(handed, theta, np.ones(1))
    assert derivative.ok
    assert derivative.root.status is Status.BUDGET_SPENT
    assert abs(derivative.root.residual_norm - 0.41) <= 4 * EPS  # recomputed: it said 0
    assert derivative.root.solver == "mine"
    failed = function.vjp(replace(handed, status=Status.DIVERGED), theta, np.ones(1))
    assert failed.status is Status.DIVERGED
    with pytest.raises(ConvergenceError, match="DIVERGED"):
        failed.unwrap()
    assert function.vjp(replace(handed, value=np.array([2.0])), theta, np.ones(1)).value == 0.25


def test_a_saddle_is_a_root_and_no_minimum():
    """F = ∇(½φ₀² − ½φ₁² + …): a general solver gives the formal derivative, one for curvatures refuses."""
    F = AutodiffMap(lambda p, t: np.array([1.0, -1.0]) * p - t)
    theta = np.array([0.3, 0.7])
    phi = NewtonRoot()(F, theta, np.zeros(2))
    assert ImplicitFunction(F).vjp(phi, theta, np.ones(2)).unwrap().tolist() == [1.0, -1.0]
    for solver in (Cholesky(), CG(5), CG(5, 1e-9)):
        derivative = ImplicitFunction(F, solver).jvp(phi, theta, np.ones(2))
        assert derivative.status is Status.INDEFINITE
        assert np.isnan(derivative.value).all()
        with pytest.raises(IndefiniteError):
            derivative.unwrap()


def test_a_singular_jacobian_has_no_derivative():
    """φ² = θ at θ = 0: the root is double."""
    derivative = ImplicitFunction(AutodiffMap(square_root)).vjp([0.0], [0.0], [1.0])
    assert derivative.status is Status.NONFINITE
    assert np.isnan(derivative.value).all()


def test_what_does_not_depend_on_theta_is_said_to():
    F = AutodiffMap(lambda p, t: p - np.ones(2))
    with pytest.warns(UserWarning, match="F does not depend on theta"):
        derivative = ImplicitFunction(F).vjp(np.ones(2), np.ones(3), np.ones(2))
    assert np.array_equal(derivative.value, np.zeros(3))
    with warnings.catch_warnings():  # a θ that enters with slope zero is no mistake
        warnings.simplefilter("error")
        flat = ImplicitFunction(AutodiffMap(lambda p, t: p - t**2)).vjp([0.0], [0.0], [1.0])
    assert flat.value == 0


def test_a_map_that_does_not_depend_on_phi_has_a_singular_jacobian():
    derivative = ImplicitFunction(AutodiffMap(lambda p, t: t - np.ones(2))).vjp(np.ones(2), np.ones(2), np.ones(2))
    assert derivative.status is Status.NONFINITE


def test_a_bad_problem_leaves_its_neighbours_alone():
    """Of four problems one is no root, and one infinite."""
    F = AutodiffMap(lambda p, t: anp.exp(p) * (np.inf if p[0] > 900 else 1.0) - t[:1])
    theta = np.array([[2.0, 0.0], [3.0, 0.0], [4.0, 0.0], [0.5, 0.0]])
    phi = np.log(theta[:, :1])
    phi[1] += 0.1
    phi[2] = 1000.0
    with np.errstate(over="ignore"):
        assert not np.isfinite(F.value(phi[2], theta[2])).any()
    derivative = ImplicitFunction(F).vjp(phi, theta, np.ones(1))
    for status in (derivative.status, derivative.root.status):
        assert [s.name for s in status] == ["CONVERGED", "MAX_STEPS", "NONFINITE", "CONVERGED"]
    for i in (0, 3):
        assert abs(derivative.value[i, 0] - 1 / theta[i, 0]) <= 8 * EPS / theta[i, 0]
        alone = ImplicitFunction(F).vjp(phi[i], theta[i], np.ones(1))
        assert np.array_equal(alone.value, derivative.value[i])
