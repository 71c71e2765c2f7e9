"""Hessian-free steps: Krylov-optimal directions, downhill past saddles, and no more than they promise."""

import numpy as np
import pytest
from oracles import scenes
from oracles.losses import Diagonal
from oracles.scenes import EPS, LAMS

from implicit_grad import ArgumentError, BilevelProblem, Newton, NewtonCG, Status

EVERY_LAM = pytest.mark.parametrize("lam", LAMS, ids="{:.3g}".format)


def _krylov_direction(A, g, m):
    """argmin of ½sᵀAs + gᵀs over span{g, Ag, …}: with an orthonormal basis."""
    basis = [g / np.linalg.norm(g)]
    for _ in range(m - 1):
        w = A @ basis[-1]
        for _ in range(2):
            for q in basis:
                w = w - (q @ w) * q
        basis.append(w / np.linalg.norm(w))
    V = np.array(basis).T
    return -V @ np.linalg.solve(V.T @ A @ V, V.T @ g)


@pytest.mark.parametrize("m", [1, 2, 4])
@pytest.mark.parametrize("make", [scenes.ridge, scenes.softmax], ids=["ridge", "softmax"])
@EVERY_LAM
def test_every_step_is_along_the_krylov_direction(make, lam, m):
    scene = make(lam)
    path = NewtonCG(3, m, record=True)(scene.problem, scene.theta).path
    for phi, after in zip(path.points[:-1], path.points[1:], strict=True):
        A, g = scene.problem.curvature(phi).dense(), scene.problem.stationarity(phi, scene.theta)
        s = _krylov_direction(A, g, m)
        if np.linalg.norm(s) <= 1e-6 * np.linalg.norm(phi):
            break  # the difference of two iterates has no eight digits any more
        t = (after - phi) @ s / (s @ s)
        assert np.linalg.norm(after - phi - t * s) <= 1e-8 * np.linalg.norm(s)
        assert 0 <= t <= 1 + 1e-8


@EVERY_LAM
def test_enough_cg_steps_are_newton(lam):
    """m ≥ d: the same iterates as `Newton`, to κ̄·eps."""
    scene = scenes.softmax(lam)
    one = NewtonCG(3, 30)(scene.problem, scene.theta).value
    other = Newton(max_steps=3)(scene.problem, scene.theta).value
    assert np.linalg.norm(one - other) <= 1e4 * scene.condition * EPS * np.linalg.norm(other)


def test_the_papers_five_steps_suffice():
    """iMAML's Hessian-free variant at its λ = 2: five directions of five CG steps leave seven digits."""
    scene = scenes.softmax(2.0)
    star = Newton()(scene.problem, scene.theta).value
    run = NewtonCG(5, 5)(scene.problem, scene.theta)
    assert np.linalg.norm(run.value - star) <= 1e-7 * np.linalg.norm(star)


@pytest.mark.parametrize("m", [1, 3])
def test_negative_curvature_is_left_downhill(m):
    """Where the very first product shows it, along −∇G; the cubic-free well beyond it is found."""
    scene = scenes.network(0.003, (3,), "tanh", 0)
    smallest = np.linalg.eigvalsh(scene.problem.curvature(scene.theta).dense())[0]
    assert smallest < 0  # θ lies where G is not convex
    run = NewtonCG(400, m, rtol=1e-8, record=True)(scene.problem, scene.theta)
    values = scene.problem.value(run.path.points, scene.theta)
    assert (np.diff(values) <= 64 * EPS * np.abs(values[:-1])).all()
    assert values[-1] < values[0]


def test_a_gradient_along_negative_curvature():
    """∇G is an eigenvector with a negative eigenvalue: no CG step, but a step."""
    problem = BilevelProblem(Diagonal(np.array([-3.0, 2.0]), np.array([1.0, 0.0])), Diagonal(np.ones(2)), 0.5)
    run = NewtonCG(1, 4, record=True)(problem, np.zeros(2))
    assert run.steps == 1
    assert problem.value(run.value, np.zeros(2)) < 0
    assert abs(run.value[0] - 1 / 2.5) <= 4 * EPS  # ∇G over the size of the curvature
    assert run.value[1] == 0


def test_stops_at_the_rounding_floor_on_its_own():
    scene = scenes.ridge(0.37)
    run = NewtonCG(1000, 6)(scene.problem, scene.theta)
    assert run.status is Status.CONVERGED
    assert run.steps < 20
    assert run.cost.gradients < 30


def test_few_cg_steps_at_a_large_condition_number_are_slow():
    """The failure mode, and its status."""
    scene = scenes.ridge(1e-3)
    run = NewtonCG(20, 1, rtol=1e-10)(scene.problem, scene.theta)
    assert run.status is Status.MAX_STEPS
    assert run.steps == 20


def test_a_cg_budget_of_none_is_refused():
    with pytest.raises(ArgumentError, match="cg_steps"):
        NewtonCG(5, 0)
