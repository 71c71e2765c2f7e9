"""A sweep is a table of what single runs give, one by one."""

import json
from dataclasses import replace

import numpy as np
import pytest

from implicit_grad import (
    CG,
    EXACT,
    ArgumentError,
    ArgumentTypeError,
    CheckpointedGradient,
    Cholesky,
    FirstOrderGradient,
    ForwardModeGradient,
    GradientDescent,
    ImplicitGradient,
    LambdaPath,
    MetaGradient,
    Newton,
    Status,
    UnrolledGradient,
)
from implicit_grad.linear import spectrum_ends
from implicit_grad.status import STATUSES, status_codes
from implicit_grad.sweep import ErrorSweep, powers_of_two
from implicit_grad.tasks import Digits, RandomRidge, Sinusoid

GD = GradientDescent(None, 0)
PLAIN = GradientDescent(None, 0, proximal=False)
METHODS = (
    MetaGradient(GD, ImplicitGradient(Cholesky())),
    MetaGradient(GD, ImplicitGradient(CG(1), require_minimum=False)),
    MetaGradient(GD, ImplicitGradient(CG(3), require_minimum=False)),
    MetaGradient(GD, ImplicitGradient(CG(50, 1e-3))),
    MetaGradient(GD, UnrolledGradient()),
    MetaGradient(GD, UnrolledGradient(window=2)),
    MetaGradient(PLAIN, UnrolledGradient()),
    MetaGradient(GD, FirstOrderGradient()),
)
PER_RUN = (CheckpointedGradient(), ForwardModeGradient(), LambdaPath((0.5, 2.0), 3))
SOURCES = [RandomRidge(dim=6, train_samples=7), Digits(ways=3, shots=2, queries=4), Sinusoid(3, 4, (3,))]
LAMS = {"random ridge": (0.05, 3.0), "digits": (0.05, 3.0), "sinusoid": (8.0, 50.0)}


def _sweep(source, **changes):
    lams = next(value for name, value in LAMS.items() if source.label.startswith(name))
    settings = {"lams": lams, "inner_steps": (0, 2, 5), "tasks": 3, "seed": 77, **changes}
    return ErrorSweep(source, METHODS, **settings)


@pytest.mark.parametrize("source", SOURCES, ids=repr)
def test_every_cell_is_what_a_single_run_gives(source):
    sweep = _sweep(source)
    table = sweep.run()
    assert dict(table.sizes) == {"estimator": len(METHODS), "lam": 2, "inner_steps": 3, "task": 3}
    task_rng, theta_rng = np.random.default_rng(sweep.seed).spawn(2)
    batch = source.sample(task_rng, tasks=3, lam=np.asarray(sweep.lams)[:, None])
    theta = source.initial_parameters(theta_rng)
    for i, t in np.ndindex(2, 3):
        problem = batch.select((i, t), (2, 3))
        start = GradientDescent(None, 5)(problem, theta).value
        star = Newton(rtol=1e-13)(problem, theta, start=start)
        exact = ImplicitGradient(Cholesky(refinements=2))(problem, theta, star).gradient
        for j, steps in enumerate(sweep.inner_steps):
            for m, method in enumerate(METHODS):
                inner = GradientDescent(None, steps, record=True, proximal=method.inner_solver.proximal)
                g = method.estimator(problem, theta, inner(problem, theta)).gradient
                error = np.linalg.norm(g - exact) / np.linalg.norm(exact)
                kappa = float(table.condition[i, t])
                found = float(table.relative_error[m, i, j, t])
                # Both are NaN where exact inversion refuses an indefinite matrix.
                assert found == pytest.approx(error, rel=1e-6, abs=1e-12 * kappa, nan_ok=True)


def test_labels_statuses_and_attributes():
    sweep = _sweep(SOURCES[0])
    table = sweep.run()
    assert list(table.estimator.values) == [method.label for method in METHODS]
    assert json.loads(table.attrs["statuses"]) == [status.name for status in STATUSES]
    assert json.loads(table.attrs["config"])["source"] == "RandomRidge"
    assert table.attrs["seed"] == 77
    names = {STATUSES[code] for code in np.unique(table.status)}
    assert names <= {Status.BUDGET_SPENT, Status.CONVERGED}


def test_distance_margin_and_condition_are_those_of_the_hessian():
    source = SOURCES[0]
    sweep = _sweep(source)
    table = sweep.run()
    batch = source.sample(np.random.default_rng(77).spawn(2)[0], tasks=3, lam=1.0)
    for i, lam in enumerate(sweep.lams):
        for t in range(3):
            X = batch.inner.X[t]
            values = np.linalg.eigvalsh(X.T @ X / len(X)) + lam
            assert float(table.condition[i, t]) == pytest.approx(values[-1] / values[0], rel=1e-10)
            assert np.allclose(table.margin[i, :, t], values[0], rtol=1e-10, atol=0)
            assert float(table.step_size[i, t]) == pytest.approx(1 / values[-1], rel=1e-10)
    assert np.allclose(table.distance[:, 0], 1, rtol=1e-12, atol=0)


def test_at_the_optimum_only_the_linear_solve_errs():
    table = _sweep(SOURCES[1], at_optimum=True).run()
    last = table.sel(inner_steps=np.inf)
    assert float(last.relative_error.sel(estimator="exact inversion").max()) < 1e-12
    assert float(last.distance.max()) == 0
    assert np.isnan(last.relative_error.sel(estimator="unrolled")).all()
    assert float(last.relative_error.sel(estimator="CG-3").min()) > 1e-6


def test_cells_without_a_converged_reference_are_empty_and_counted():
    table = _sweep(SOURCES[1], reference_solver=Newton(rtol=1e-15, max_steps=1)).run()
    assert table.attrs["missing_references"] == 6
    assert np.isnan(table.relative_error).all()


def test_conjugate_gradient_stopped_at_a_saddle_keeps_the_shorter_runs():
    """A CG run that ends at negative curvature in step 3 was no failure for CG-1."""
    source = Sinusoid(4, 4, (6,))
    sweep = ErrorSweep(
        source,
        tuple(MetaGradient(GD, ImplicitGradient(CG(k), require_minimum=False)) for k in (0, 30)),
        (1e-4,),
        (40,),
        4,
        71,
    )
    table = sweep.run()
    assert (table.margin < 0).any()
    status = table.status.isel(lam=0, inner_steps=0)
    assert (status.sel(estimator="CG-0") == Status.BUDGET_SPENT.code).all()
    assert (status.sel(estimator="CG-30") == Status.INDEFINITE.code).any()


@pytest.mark.parametrize(
    "estimator", [ImplicitGradient(Cholesky()), ImplicitGradient(CG(2)), UnrolledGradient()], ids=repr
)
@pytest.mark.parametrize("inner", [GradientDescent(None, 0, rtol=1e-6), GradientDescent(1.5, 0)], ids=repr)
def test_every_cell_has_the_status_of_a_run_that_ends_there(inner, estimator):
    """Not that of the longest: 2 steps do not meet a tolerance that 400 meet, nor have they diverged as 400 have."""
    source = RandomRidge(dim=6, train_samples=7)
    methods, steps = (MetaGradient(inner, estimator),), (0, 2, 400)
    table = ErrorSweep(source, methods, (0.05, 3.0), steps, 2, 77, at_optimum=True).run()
    task_rng, theta_rng = np.random.default_rng(77).spawn(2)
    batch = source.sample(task_rng, tasks=2, lam=np.array([[0.05], [3.0]]))
    theta = source.initial_parameters(theta_rng)
    for k, step in enumerate(steps):
        record = True if isinstance(estimator, UnrolledGradient) else (step,)
        alone = MetaGradient(replace(inner, steps=step, record=record), estimator)(batch, theta)
        assert np.array_equal(table.status.values[0, :, k], status_codes(alone.status))
    assert len(np.unique(table.status.values[0, :, :3])) > 1
    ends = table.status.values[0, :, 3]
    assert (ends == Status.NONFINITE.code).all() or isinstance(estimator, ImplicitGradient)


def test_same_seed_same_numbers():
    first, second = _sweep(SOURCES[2]).run(), _sweep(SOURCES[2]).run()
    assert first.equals(second)
    assert not first.equals(_sweep(SOURCES[2], seed=78).run())


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"lams": (0.0,)}, "lams"),
        ({"lams": (np.nan,)}, "lams"),
        ({"lams": ()}, "lams"),
        ({"lams": ((0.5, 1.0), (2.0, 3.0))}, "lams"),
        ({"lams": 1.0}, "lams"),
        ({"inner_steps": 5}, "inner_steps"),
        ({"seed": -1}, "seed"),
        ({"seed": None}, "seed"),
        ({"inner_steps": ()}, "inner_steps"),
        ({"inner_steps": (-1,)}, "inner_steps"),
        ({"tasks": 0}, "tasks"),
    ],
)
def test_bad_settings(changes, name):
    with pytest.raises((ArgumentError, ArgumentTypeError), match=rf"^{name}: "):
        _sweep(SOURCES[0], **changes)


def test_methods_need_gradient_descent():
    with pytest.raises(ArgumentError, match="GradientDescent"):
        ErrorSweep(SOURCES[0], (EXACT,), (1.0,), (1,), 1, 7)
    with pytest.raises(ArgumentError, match="at least one"):
        ErrorSweep(SOURCES[0], (), (1.0,), (1,), 1, 7)


@pytest.mark.parametrize(
    "method", [METHODS[0].estimator, MetaGradient, "CG-2", *(MetaGradient(GD, e) for e in PER_RUN)], ids=repr
)
def test_methods_that_cannot_share_a_run_are_refused(method):
    with pytest.raises((ArgumentError, ArgumentTypeError), match=r"^methods: "):
        ErrorSweep(SOURCES[0], (method,), (1.0,), (1,), 1, 7)


def test_a_source_has_to_be_one():
    for source in (None, RandomRidge):
        with pytest.raises(ArgumentTypeError, match=r"^source: "):
            ErrorSweep(source, METHODS, (1.5,), (1,), 1, 7)


def test_a_sweep_of_lists_is_as_hashable_as_one_of_tuples():
    lists = ErrorSweep(SOURCES[0], list(METHODS), [0.5, 2], [1, 4], 1, 7)
    assert hash(lists) == hash(ErrorSweep(SOURCES[0], METHODS, (0.5, 2.0), (1, 4), 1, 7))


def test_powers_of_two():
    assert powers_of_two(8) == (0, 1, 2, 4, 8)


def test_large_spectra_are_estimated_from_inside():
    source = Sinusoid(3, 3, (40, 40))
    problem = source.sample(np.random.default_rng(7), tasks=1, lam=5.0)
    A = problem.curvature(problem.parameters(source.initial_parameters(np.random.default_rng(8))))
    low, high = spectrum_ends(A)
    values = np.linalg.eigvalsh(A.select((0,)).dense())
    slack = 64 * A.size * np.finfo(float).eps * np.abs(values).max()
    assert values[0] - slack <= low[0]
    assert high[0] <= values[-1] + slack
    assert high[0] == pytest.approx(values[-1], rel=1e-6)
