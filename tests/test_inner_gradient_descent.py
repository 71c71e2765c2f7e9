"""Gradient descent: its path, its step size, and how it says that it failed."""

import numpy as np
import pytest
from oracles import scenes
from oracles.losses import Diagonal
from oracles.scenes import EPS, LAMS

from implicit_grad import (
    ArgumentError,
    ArgumentTypeError,
    Autodiff,
    BilevelProblem,
    ConvergenceError,
    GradientDescent,
    Status,
)

MAKERS = pytest.mark.parametrize(
    "make",
    [scenes.ridge, scenes.softmax, lambda lam: scenes.network(lam, (3,), "tanh", 0)],
    ids=["ridge", "softmax", "network"],
)
ALL_LAMS = pytest.mark.parametrize("lam", LAMS, ids="{:.3g}".format)


@ALL_LAMS
@MAKERS
@pytest.mark.parametrize("proximal", [True, False], ids=["regularised", "plain"])
def test_checkpoints_are_runs_of_their_own(make, lam, proximal):
    """Bitwise: value, residual, steps, status and cost of `at(k)` are those of a separate run of k steps."""
    scene = make(lam)
    kept = (0, 1, 2, 5, 9)
    for record in (True, kept):
        run = GradientDescent(None, 9, record=record, proximal=proximal)(scene.problem, scene.theta)
        for k in kept:
            alone = GradientDescent(None, k, proximal=proximal)(scene.problem, scene.theta)
            at = run.at(k)
            assert np.array_equal(at.value, alone.value)
            assert at.residual_norm == alone.residual_norm
            assert at.steps == alone.steps == k
            assert at.status is alone.status
            assert at.cost == alone.cost
            assert at.solver.steps == k
            assert at.path.steps[-1] == k


@ALL_LAMS
@MAKERS
def test_the_residual_is_that_of_G(make, lam):
    """Recomputed from the value, with the proximal term even where the steps leave it out."""
    scene = make(lam)
    for proximal in (True, False):
        run = GradientDescent(None, 6, proximal=proximal, record=True)(scene.problem, scene.theta)
        for phi, residual in zip(run.path.points, run.path.residual_norms, strict=True):
            again = np.linalg.norm(scene.problem.stationarity(phi, scene.theta))
            assert abs(residual - again) <= 4 * phi.size * EPS * again
        assert run.residual_norm == run.path.residual_norms[-1]


def test_no_steps_leave_theta_bitwise():
    scene = scenes.softmax(0.37)
    solution = GradientDescent(None, 0)(scene.problem, scene.theta)
    assert np.array_equal(solution.value, scene.theta)
    assert solution.steps == 0
    assert solution.cost.gradients == 1


@ALL_LAMS
def test_quadratics_contract_exactly(lam):
    """φ_K − φ* = (I − αA)^K (θ − φ*), eigenvector by eigenvector."""
    h, c = np.array([0.0, 0.3, 2.0, 7.0]), np.array([1.0, -2.0, 0.5, 3.0])
    problem = BilevelProblem(Diagonal(h, c), Diagonal(h), lam)
    theta, alpha, steps = np.array([2.0, 1.0, -1.0, 0.5]), 0.9 / (7 + lam), 11
    star = (c + lam * theta) / (h + lam)
    wanted = star + (1 - alpha * (h + lam)) ** steps * (theta - star)
    phi = GradientDescent(alpha, steps)(problem, theta).value
    assert np.abs(phi - wanted).max() <= 8 * steps * EPS * (np.abs(star) + np.abs(theta)).max() * (7 + lam) / lam


@ALL_LAMS
@MAKERS
def test_the_automatic_step_size_descends(make, lam):
    """G never increases by more than its rounding, over a whole run, on all three losses."""
    scene = make(lam)
    run = GradientDescent(None, 40, record=True)(scene.problem, scene.theta)
    values = scene.problem.value(run.path.points, scene.theta)
    assert (np.diff(values) <= 64 * EPS * np.abs(values[:-1])).all()
    assert values[-1] < values[0]


@pytest.mark.parametrize("lam", LAMS, ids="{:.3g}".format)
def test_the_automatic_step_size_is_the_reciprocal_of_the_curvature(lam):
    """From the loss's bound where it has one, else 1.1 times a Ritz value, which is λ_max itself for d ≤ 20."""
    scene = scenes.ridge(lam)
    top = np.linalg.norm(scene.problem.inner.X, 2) ** 2 / 9
    known = GradientDescent(None, 1).alpha(scene.problem, scene.theta)
    assert abs(known * (top + lam) - 1) <= 32 * EPS
    estimated = BilevelProblem(Autodiff(scene.traced[0]), scene.problem.outer, lam)
    alpha = GradientDescent(None, 1).alpha(estimated, scene.theta)
    assert abs(alpha * (1.1 * top + lam) - 1) <= 128 * EPS
    assert GradientDescent(0.3, 1).alpha(scene.problem, scene.theta) == 0.3


def test_the_step_size_of_a_batch_is_per_problem():
    h = np.array([[1.0, 2.0], [3e3, 1.0], [-5.0, -1.0]])
    problem = BilevelProblem(Diagonal(h, 1.0), Diagonal(np.ones((3, 2))), np.array([0.7, 2.0, 0.25]))
    alpha = GradientDescent(None, 1).alpha(problem, problem.parameters(np.zeros(2)))
    wanted = 1 / np.array([1.1 * 2 + 0.7, 1.1 * 3e3 + 2, 0.25])
    assert np.abs(alpha / wanted - 1).max() <= 32 * EPS


def test_one_diverging_problem_of_a_batch():
    """It is frozen at its last finite iterate and called DIVERGED; its neighbours are bitwise as if alone."""
    h = np.array([[1.0, 2.0], [1e4, 1.0], [0.5, 0.1]])
    problem = BilevelProblem(Diagonal(h, 1.0), Diagonal(np.ones((3, 2))), 0.7)
    theta = np.array([0.3, -0.8])
    for steps in (5, 400):  # on its way to infinity, and beyond 1e308
        together = GradientDescent(0.1, steps)(problem, theta)
        assert list(together.status) == [Status.BUDGET_SPENT, Status.DIVERGED, Status.BUDGET_SPENT]
        assert np.isfinite(together.value).all()
        for i in (0, 2):
            alone = GradientDescent(0.1, steps)(problem.select((i,), (3,)), theta)
            assert np.array_equal(together.value[i], alone.value)
            assert together.residual_norm[i] == alone.residual_norm
        with pytest.raises(ConvergenceError, match=r"problem \(1,\).*DIVERGED.*step size"):
            together.unwrap()
    assert together.steps[1] < 400


def test_a_diverging_run_names_a_step_that_does_not():
    """1/M̄ of the problem that diverged, where the loss knows M; taken, it is no longer the problem."""
    scene = scenes.ridge(0.37)
    longest = 2 / (scene.curvature + scene.lam)
    run = GradientDescent(1.01 * longest, 4000)(scene.problem, scene.theta)
    with pytest.raises(ConvergenceError, match=rf"DIVERGED.*1/M̄ = {longest / 2:.3g} cannot diverge"):
        run.unwrap()
    assert GradientDescent(float(run.safe_step_size), 4000)(scene.problem, scene.theta).ok
    assert GradientDescent(0.99 * longest, 4000)(scene.problem, scene.theta).safe_step_size is None


def test_checkpoints_before_a_divergence_are_fine():
    problem = BilevelProblem(Diagonal(np.array([1e4, 1.0]), 1.0), Diagonal(np.ones(2)), 0.7)
    run = GradientDescent(0.1, 200, record=(0, 1, 2, 3, 100, 200))(problem, np.array([0.3, -0.8]))
    each = [run.at(k).status for k in run.path.steps]
    assert each == [Status.BUDGET_SPENT] * 3 + [Status.DIVERGED] * 3
    for k in run.path.steps:
        assert run.at(k).status is GradientDescent(0.1, k)(problem, np.array([0.3, -0.8])).status


def test_a_loss_that_is_nan_from_the_start_did_not_diverge():
    problem = BilevelProblem(Diagonal(np.array([np.nan, 1.0])), Diagonal(np.ones(2)), 0.7)
    solution = GradientDescent(0.1, 5, record=(5,))(problem, np.ones(2))
    assert solution.status is Status.NONFINITE
    assert solution.at(5).status is Status.NONFINITE


def test_starts_where_it_is_told():
    scene = scenes.ridge(0.37)
    first = GradientDescent(0.05, 4)(scene.problem, scene.theta)
    second = GradientDescent(0.05, 5)(scene.problem, scene.theta, start=first.value)
    assert np.array_equal(second.value, GradientDescent(0.05, 9)(scene.problem, scene.theta).value)
    with pytest.raises(ArgumentError, match="start"):
        GradientDescent(0.05, 4)(scene.problem, scene.theta, start=np.ones(3))


def test_a_path_that_cannot_fit_is_refused_before_any_step():
    """Ten million iterates of 100,000 numbers; without a record the same run needs nothing but patience."""
    calls = []

    class Loss:
        def value(self, x):
            calls.append("value")

        gradient = linearize = value

    problem = BilevelProblem(Loss(), Loss(), 0.7)
    with pytest.raises(ArgumentError, match=r"record: .*GiB.*ImplicitGradient"):
        GradientDescent(0.1, 10**7, record=True)(problem, np.ones(100_000))
    assert not calls


@pytest.mark.parametrize(
    ("arguments", "error", "name"),
    [
        ({"step_size": 0.0}, ArgumentError, "step_size"),
        ({"step_size": -1.0}, ArgumentError, "step_size"),
        ({"step_size": np.nan}, ArgumentError, "step_size"),
        ({"step_size": "0.1"}, ArgumentTypeError, "step_size"),
        ({"step_size": True}, ArgumentTypeError, "step_size"),
        ({"step_size": np.ones(2)}, ArgumentTypeError, "step_size"),
        ({"steps": -1}, ArgumentError, "steps"),
        ({"steps": 3.0}, ArgumentTypeError, "steps"),
        ({"steps": True}, ArgumentTypeError, "steps"),
        ({"steps": 10**9}, ArgumentError, "steps"),
        ({"record": (4,)}, ArgumentError, "record"),
        ({"record": (-1,)}, ArgumentError, "record"),
        ({"record": (1.5,)}, ArgumentTypeError, "record"),
        ({"record": 2}, ArgumentTypeError, "record"),
        ({"record": "all"}, ArgumentTypeError, "record"),
        ({"proximal": 1}, ArgumentTypeError, "proximal"),
    ],
)
def test_bad_settings_are_named(arguments, error, name):
    with pytest.raises(error, match=name):
        GradientDescent(**{"step_size": 0.1, "steps": 3, **arguments})


def test_recorded_steps_are_sorted_and_unique():
    assert GradientDescent(0.1, 9, record=(5, 0, 5)) == GradientDescent(0.1, 9, record=[0, 5])
    assert GradientDescent(0.1, 9, record=range(3)).kept_steps == (0, 1, 2)
