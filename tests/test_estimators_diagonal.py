"""Diagonal and identity Hessians: exact where they are true, refused at saddles, wrong where entries are coupled."""

import numpy as np
import pytest
from oracles import scenes, traced
from oracles.losses import Diagonal
from oracles.scenes import EPS, LAMS

from implicit_grad import (
    EXACT,
    ArgumentError,
    BilevelProblem,
    DiagonalGradient,
    FirstOrderGradient,
    IdentityGradient,
    IndefiniteError,
    MetaGradient,
    Newton,
    Solution,
    Status,
)
from implicit_grad.estimators import diagonal as module

EVERY_LAM = pytest.mark.parametrize("lam", LAMS, ids="{:.3g}".format)


def _at(phi):
    return Solution(phi, np.asarray(np.nan), 0, Status.BUDGET_SPENT, None)


@EVERY_LAM
def test_the_diagonal_is_that_of_the_traced_hessian(lam):
    scene = scenes.network(lam, (3,), "softplus", 3)
    train, test = scene.traced
    h = np.diag(traced.hessian(train, scene.theta))
    estimate = DiagonalGradient()(scene.problem, scene.theta, _at(scene.theta))
    if (lam + h <= 0).any():
        assert estimate.status is Status.INDEFINITE
        return
    wanted = lam / (lam + h) * traced.grad(test)(scene.theta)
    condition = np.abs(h).max() / np.abs(lam + h).min() + 1
    assert np.linalg.norm(estimate.gradient - wanted) <= 1e3 * condition * EPS * np.linalg.norm(wanted)


@EVERY_LAM
def test_diagonal_hessians_are_exact(lam):
    problem = BilevelProblem(Diagonal(np.array([0.0, 0.3, 7.0]), 1.0), Diagonal(np.ones(3), 0.4), lam)
    theta = np.array([0.3, -0.8, 2.0])
    g = EXACT(problem, theta).gradient
    estimate = MetaGradient(Newton(), DiagonalGradient())(problem, theta)
    assert np.linalg.norm(estimate.gradient - g) <= 64 * EPS * np.linalg.norm(g)
    assert estimate.cost.hvps >= 3


@EVERY_LAM
def test_multiples_of_the_identity_are_exact(lam):
    problem = BilevelProblem(Diagonal(np.full(3, 2.5), 1.0), Diagonal(np.ones(3), 0.4), lam)
    theta = np.array([0.3, -0.8, 2.0])
    g = EXACT(problem, theta).gradient
    estimate = MetaGradient(Newton(), IdentityGradient(2.5))(problem, theta)
    assert np.linalg.norm(estimate.gradient - g) <= 64 * EPS * np.linalg.norm(g)


def test_the_direction_is_first_order_mamls():
    scene = scenes.softmax(0.37)
    inner = Newton()(scene.problem, scene.theta)
    b = FirstOrderGradient()(scene.problem, scene.theta, inner).gradient
    for c in (1e-8, 0.5, 1e8):
        g = IdentityGradient(c)(scene.problem, scene.theta, inner).gradient
        assert np.linalg.norm(g - 0.37 / (0.37 + c) * b) <= 4 * EPS * np.linalg.norm(g)


def test_a_chunk_at_a_time_is_the_same(monkeypatch):
    scene = scenes.softmax(0.37)
    inner = _at(scene.theta)
    whole = DiagonalGradient()(scene.problem, scene.theta, inner).gradient
    monkeypatch.setattr(module, "_CHUNK", 20)  # two rows of nine
    assert np.array_equal(DiagonalGradient()(scene.problem, scene.theta, inner).gradient, whole)


def test_a_negative_entry_is_refused_and_its_neighbour_is_not():
    h = np.array([[2.0, 3.0], [2.0, -1.0]])
    problem = BilevelProblem(Diagonal(h, 1.0), Diagonal(np.ones((2, 2)), 0.5), 0.5)
    inner = Solution(np.full((2, 2), 2.0), np.zeros(2), 0, Status.CONVERGED, None)
    estimate = DiagonalGradient()(problem, np.ones((2, 2)), inner)
    assert list(estimate.status) == [Status.CONVERGED, Status.INDEFINITE]
    assert np.isnan(estimate.gradient[1]).all()
    assert np.allclose(estimate.gradient[0], 0.5 / (0.5 + h[0]) * 1.5, rtol=8 * EPS, atol=0)
    with pytest.raises(IndefiniteError):
        estimate.unwrap()


def test_coupling_is_the_failure_mode():
    """Two nearly equal features: the diagonal sees two curvatures of 1, the Hessian 2 and nearly 0."""
    scene = scenes.ridge(0.01)
    X = np.stack([np.ones(8), 1 + 1e-3 * np.cos(np.arange(8.0))], axis=1)
    problem = BilevelProblem(
        type(scene.problem.inner)(X, np.sin(np.arange(8.0))), Diagonal(np.zeros(2), np.array([-1.0, 1.0])), 0.01
    )
    g = EXACT(problem, np.zeros(2)).gradient
    for estimator in (DiagonalGradient(), IdentityGradient(1.0)):
        estimate = MetaGradient(Newton(), estimator)(problem, np.zeros(2))
        assert np.linalg.norm(estimate.gradient - g) > 0.9 * np.linalg.norm(g)


@pytest.mark.parametrize("lam", [1e-300, 1e300])
def test_extreme_lam(lam):
    """λ/(λ + h) is formed first: neither overflow nor loss of digits."""
    problem = BilevelProblem(Diagonal(np.array([0.5, 2.0])), Diagonal(np.zeros(2), -1e10), lam)
    g = DiagonalGradient()(problem, np.ones(2), _at(np.ones(2))).gradient
    wanted = 1e10 * (1.0 if lam > 1 else lam / np.array([0.5, 2.0]))
    assert np.abs(g / wanted - 1).max() <= 8 * EPS


def test_curvature_is_checked():
    for c in (0.0, -1.0, np.nan):
        with pytest.raises(ArgumentError, match="curvature"):
            IdentityGradient(c)
