"""What every further inner solver owes: honest records, costs, batches, and neighbours left alone."""

from dataclasses import fields, replace

import array_api_strict as strict
import numpy as np
import pytest
from oracles import scenes
from oracles.losses import Counting, Diagonal
from oracles.scenes import EPS

from implicit_grad import (
    LBFGS,
    SGD,
    Adam,
    ArgumentError,
    ArgumentTypeError,
    Autodiff,
    BilevelProblem,
    ConvergenceError,
    Cost,
    HeavyBall,
    LeastSquares,
    Nesterov,
    NewtonCG,
    Status,
    UnrolledGradient,
)

SOLVERS = [
    Nesterov(None, 9),
    Nesterov(0.02, 40, momentum=0.7, rtol=1e-2),
    Nesterov(None, 60, rtol=1e-4),
    HeavyBall(None, 9),
    HeavyBall(None, 60, rtol=1e-4),
    Adam(0.05, 9),
    Adam(0.05, 60, rtol=1e-1),
    SGD(0.02, 9, 3, 7),
    SGD(None, 9, 3, 7, decay=0.3),
    NewtonCG(4, 2),
    NewtonCG(40, 3, rtol=1e-4),
    NewtonCG(40, 9),
    LBFGS(7),
    LBFGS(60, 3, rtol=1e-4),
    LBFGS(60),
]


def _network(lam):
    return scenes.network(lam, (3,), "tanh", 0)


EVERY_SOLVER = pytest.mark.parametrize("solver", SOLVERS, ids=repr)
MAKERS = pytest.mark.parametrize(
    "make", [scenes.ridge, scenes.softmax, _network], ids=["ridge", "softmax", "network"]
)


def _same(one, other):
    assert np.array_equal(one.value, other.value)
    assert np.array_equal(one.residual_norm, other.residual_norm)
    assert np.array_equal(one.steps, other.steps)
    assert np.array_equal(np.asarray(one.status), np.asarray(other.status))


@EVERY_SOLVER
@MAKERS
def test_recorded_steps_are_runs_of_their_own(make, solver):
    """Bitwise: value, residual, steps, status and cost of `at(k)` are those of a separate run of k steps."""
    scene = make(0.37)
    kept = tuple(sorted({0, 1, 2, 3, solver.steps // 3, solver.steps - 1, solver.steps}))
    for record in (True, kept):
        run = replace(solver, record=record)(scene.problem, scene.theta)
        for k in kept:
            alone = replace(solver, steps=k)(scene.problem, scene.theta)
            at = run.at(k)
            _same(at, alone)
            assert at.cost == alone.cost
            assert at.solver.steps == k
            assert at.path.steps[-1] == k


@EVERY_SOLVER
@MAKERS
def test_the_residual_is_recomputed(make, solver):
    scene = make(2.3)
    run = replace(solver, record=True)(scene.problem, scene.theta)
    for phi, residual in zip(run.path.points, run.path.residual_norms, strict=True):
        again = np.linalg.norm(scene.problem.stationarity(phi, scene.theta))
        assert abs(residual - again) <= 4 * phi.size * EPS * (again + 2.3 * np.linalg.norm(phi))
    assert run.residual_norm == run.path.residual_norms[-1]


@EVERY_SOLVER
@MAKERS
def test_costs_are_counted(make, solver):
    scene = make(0.37)
    for record in (False, (0, 2), True):
        counting = Counting(scene.problem.inner)
        problem = BilevelProblem(counting, scene.problem.outer, 0.37)
        cost = replace(solver, record=record)(problem, scene.theta).cost
        kinds = [f.name for f in fields(Cost) if f.name != "peak_bytes"]
        assert {kind: getattr(cost, kind) for kind in kinds} == {kind: counting.calls[kind] for kind in kinds}


@pytest.mark.parametrize(
    ("solver", "traced"),
    [(solver, False) for solver in SOLVERS] + [(s, True) for s in SOLVERS if not isinstance(s, SGD)],
    ids=repr,
)
def test_costs_in_a_batch_of_losses_without_bounds(solver, traced):
    """Every problem is charged what the batch did for it; Lanczos and the products for the rounding floor, too."""
    scene = _network(0.9)
    counting = Counting(Autodiff(scene.traced[0]) if traced else scene.problem.inner)
    problem = BilevelProblem(counting, scene.problem.outer, np.array([0.9, 7.0]))
    cost = solver(problem, scene.theta).cost
    for kind in ("gradients", "hvps", "values", "hessians"):
        assert getattr(cost, kind) * 2 == counting.calls[kind]


@EVERY_SOLVER
@pytest.mark.parametrize("make", [scenes.ridge, scenes.softmax], ids=["ridge", "softmax"])
def test_a_batch_is_its_problems(make, solver):
    """Bitwise, whatever the neighbours do: some are done early, some never."""
    lams = np.array([0.02, 1.7, 90.0])
    scene = make(1.7)
    thetas = np.stack([scene.theta, 30 * scene.theta])
    together = solver(scene.problem.with_lam(lams[:, None]), thetas)
    for i, lam in enumerate(lams):
        for j, theta in enumerate(thetas):
            alone = solver(scene.problem.with_lam(lam), theta)
            assert np.array_equal(together.value[i, j], alone.value)
            assert together.residual_norm[i, j] == alone.residual_norm
            assert together.status[i, j] is alone.status
            assert together.steps[i, j] == alone.steps


@EVERY_SOLVER
def test_one_bad_problem_leaves_its_neighbours_alone(solver):
    """NaN in one loss; a curvature too large for the given step in another."""
    if isinstance(solver, SGD):
        X = np.random.default_rng(7).normal(size=(3, 5, 2))
        X[1] *= 1e80
        loss, row = LeastSquares(X, np.ones((3, 5))), LeastSquares(X[0], np.ones(5))
    else:
        h = np.array([[1.0, 2.0], [np.nan, 1.0], [1e200, 1.0]])
        loss, row = Diagonal(h, 1.0), Diagonal(h[0], 1.0)
    problem = BilevelProblem(loss, Diagonal(np.ones((3, 2))), 0.7)
    theta = np.array([0.3, -0.8])
    together = solver(problem, theta)
    alone = solver(BilevelProblem(row, Diagonal(np.ones(2)), 0.7), theta)
    assert np.array_equal(together.value[0], alone.value)
    assert together.status[0] is alone.status
    assert np.isfinite(together.value).all()
    if not isinstance(solver, SGD):
        assert together.status[1] is Status.NONFINITE
        with pytest.raises(ConvergenceError):
            together.unwrap()


@EVERY_SOLVER
def test_starts_where_it_is_told(solver):
    scene = scenes.ridge(0.37)
    start = scene.theta + np.cos(np.arange(6))
    run = replace(solver, record=True)(scene.problem, scene.theta, start=start)
    assert np.array_equal(run.path.points[0], start)
    assert not run.path.starts_at_theta
    assert replace(solver, record=True)(scene.problem, scene.theta).path.starts_at_theta
    idle = replace(solver, steps=0, rtol=0.0) if hasattr(solver, "rtol") else replace(solver, steps=0)
    solution = idle(scene.problem, scene.theta, start=start)
    assert np.array_equal(solution.value, start)
    assert solution.status is Status.BUDGET_SPENT
    assert not np.shares_memory(solution.value, start)
    with pytest.raises(ArgumentError, match=r"start: shape \(2, 6\)"):
        solver(scene.problem, scene.theta, start=np.stack([start, start]))


@pytest.mark.parametrize("solver", [s for s in SOLVERS if getattr(s, "rtol", 0)], ids=repr)
def test_a_warm_start_at_the_solution_takes_no_step(solver):
    """With a tolerance the check comes before the step."""
    scene = scenes.ridge(2.3)
    found = LBFGS(200, rtol=1e-12)(scene.problem, scene.theta).unwrap()
    again = solver(scene.problem, scene.theta, start=found)
    assert again.status is Status.CONVERGED
    assert again.steps == 0
    assert np.array_equal(again.value, found)


@EVERY_SOLVER
def test_read_only_input_is_respected(solver):
    scene = scenes.softmax(0.37)
    theta, start = scene.theta.copy(), scene.theta + 0.1
    for array in (theta, start):
        array.flags.writeable = False
    before = theta.copy(), start.copy()
    solver(scene.problem, theta, start=start)
    assert np.array_equal(theta, before[0])
    assert np.array_equal(start, before[1])


@EVERY_SOLVER
def test_strict_arrays(solver):
    """On arrays that accept nothing but the array API: the numbers of NumPy to 64·(n + d)·eps·κ(A)."""
    rng = np.random.default_rng(20190910)
    X, y = rng.standard_normal((2, 6, 3)), rng.standard_normal((2, 6))
    theta, lam = rng.standard_normal(3), np.array([0.7, 2.5])
    run = replace(solver, record=(1, 3))
    one = run(BilevelProblem(LeastSquares(X, y), LeastSquares(X, y), lam), theta)
    losses = LeastSquares(strict.asarray(X), strict.asarray(y))
    two = run(BilevelProblem(losses, losses, strict.asarray(lam)), strict.asarray(theta))
    assert two.value.__array_namespace__() is strict
    assert two.residual_norm.__array_namespace__() is strict
    assert np.linalg.norm(np.asarray(two.value) - one.value) <= 64 * 9 * 10 * EPS * np.linalg.norm(one.value)
    assert list(two.status) == list(one.status)
    assert two.cost == one.cost
    assert np.linalg.norm(np.asarray(two.path.points) - one.path.points) <= 64 * 9 * 10 * EPS * 10


@EVERY_SOLVER
def test_float32_stays_float32(solver):
    scene = scenes.ridge(0.37)
    inner = LeastSquares(scene.problem.inner.X.astype(np.float32), scene.problem.inner.y.astype(np.float32))
    run = replace(solver, record=True)(BilevelProblem(inner, inner, 0.37), scene.theta.astype(np.float32))
    for array in (run.value, run.residual_norm, run.path.points, run.path.residual_norms):
        assert array.dtype == np.float32


@EVERY_SOLVER
def test_has_no_reverse_pass(solver):
    scene = scenes.ridge(0.37)
    run = replace(solver, record=True)(scene.problem, scene.theta)
    with pytest.raises(ArgumentError, match="no reverse pass"):
        UnrolledGradient()(scene.problem, scene.theta, run)


@EVERY_SOLVER
def test_settings_are_checked(solver):
    for record in ((99,), (0, 61)):
        with pytest.raises(ArgumentError, match="record"):
            replace(solver, record=record)
    with pytest.raises(ArgumentTypeError, match="record"):
        replace(solver, record=3)
    for steps, error in ((-1, ArgumentError), (2.0, ArgumentTypeError), (True, ArgumentTypeError)):
        with pytest.raises(error, match="steps"):
            replace(solver, steps=steps)
    if hasattr(solver, "rtol"):
        for rtol in (-1e-3, 1.0, np.nan):
            with pytest.raises(ArgumentError, match="rtol"):
                replace(solver, rtol=rtol)
    if getattr(solver, "step_size", None) is not None:
        for alpha in (0.0, -0.1, np.inf):
            with pytest.raises(ArgumentError, match="step_size"):
                replace(solver, step_size=alpha)


@EVERY_SOLVER
def test_paths_beyond_memory_are_refused(solver, monkeypatch):
    """Before any step, and any allocation."""
    from implicit_grad.inner import _recording

    monkeypatch.setattr(_recording, "physical_memory", lambda: 100)
    scene = scenes.ridge(0.37)
    with pytest.raises(ArgumentError, match=r"record: .* need"):
        replace(solver, record=True)(scene.problem, scene.theta)
