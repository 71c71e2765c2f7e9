"""Costs are exact: what the results claim is what a counting loss sees, per problem of the batch."""

from dataclasses import fields

import numpy as np
import pytest
from oracles import scenes
from oracles.losses import Counting, Diagonal

from implicit_grad import (
    CG,
    EXACT,
    GMRES,
    LSMR,
    LU,
    MINRES,
    Autodiff,
    BiCGSTAB,
    BilevelProblem,
    BlockCG,
    Cholesky,
    Cost,
    Eigh,
    FirstOrderGradient,
    GradientDescent,
    ImplicitGradient,
    MetaGradient,
    MixedPrecision,
    Neumann,
    Newton,
    Nystrom,
    NystromPreconditioner,
    PreconditionedCG,
    ScipyCG,
    ScipyMinimize,
    UnrolledGradient,
)
from implicit_grad.estimators import CheckpointedGradient, ForwardModeGradient

EXPLICIT = [
    EXACT,
    MetaGradient(Newton(linear_solver=CG(20, 1e-12)), ImplicitGradient(CG(30, 1e-13))),
    MetaGradient(Newton(max_steps=2), ImplicitGradient(CG(3, record=True))),
    MetaGradient(GradientDescent(0.02, 9), ImplicitGradient(CG(4))),
    MetaGradient(GradientDescent(None, 9), ImplicitGradient(CG(0))),
    MetaGradient(GradientDescent(None, 9), ImplicitGradient(Cholesky(refinements=3))),
    MetaGradient(GradientDescent(None, 0), ImplicitGradient(CG(2, 1e-3, record=True))),
    MetaGradient(GradientDescent(None, 7, record=True), UnrolledGradient()),
    MetaGradient(GradientDescent(None, 7, record=True, proximal=False), UnrolledGradient(3)),
    MetaGradient(GradientDescent(None, 7), FirstOrderGradient()),
    MetaGradient(GradientDescent(None, 7), CheckpointedGradient()),
    MetaGradient(GradientDescent(0.02, 9, proximal=False), CheckpointedGradient(1)),
    MetaGradient(GradientDescent(None, 4), ForwardModeGradient()),
    *(
        MetaGradient(GradientDescent(None, 4), ImplicitGradient(solver))
        for solver in (
            LU(),
            Eigh(refinements=2),
            PreconditionedCG(4),
            PreconditionedCG(9, 1e-6, NystromPreconditioner(2), record=True),
            BlockCG(4, record=True),
            Neumann(None, 5),
            Neumann(0.02, 5, record=True),
            Nystrom(3),
            MixedPrecision(CG(20, 1e-5)),
            MixedPrecision(LU()),
            MixedPrecision(Cholesky(), dense=True),
        )
    ),
]
# SciPy goes problem by problem: the batch is charged for its slowest one.
SCIPY = [
    MetaGradient(GradientDescent(None, 9), ImplicitGradient(ScipyCG(4))),
    MetaGradient(GradientDescent(None, 9), ImplicitGradient(ScipyCG(40, 1e-10, record=True))),
    *(
        MetaGradient(GradientDescent(None, 4), ImplicitGradient(solver))
        for solver in (MINRES(5), MINRES(40, 1e-10, record=True), GMRES(9, 1e-8), BiCGSTAB(9, 1e-8), LSMR(9, 1e-8))
    ),
    *(
        MetaGradient(ScipyMinimize(method, max_steps=30), FirstOrderGradient())
        for method in ("BFGS", "L-BFGS-B", "CG", "Newton-CG", "trust-krylov", "Nelder-Mead", "Powell")
    ),
]


def _name(method):
    return f"{type(method.inner_solver).__name__}, {method.label}"


def _check(problem, theta, method):
    """Run with counting losses and compare."""
    train, test = Counting(problem.inner), Counting(problem.outer)
    estimate = method(BilevelProblem(train, test, problem.lam), theta)
    batch = int(np.prod(estimate.inner.residual_norm.shape))
    kinds = [f.name for f in fields(Cost) if f.name != "peak_bytes"]
    seen = {what: (train.calls[what] + test.calls[what]) / batch for what in kinds}
    assert {what: getattr(estimate.cost, what) for what in kinds} == seen
    assert not test.calls["hvps"] + test.calls["hessians"]
    return estimate


@pytest.mark.parametrize("method", EXPLICIT + SCIPY, ids=_name)
@pytest.mark.parametrize("make", [scenes.ridge, scenes.softmax], ids=["ridge", "softmax"])
def test_one_problem(make, method):
    scene = make(0.37)
    _check(scene.problem, scene.theta, method)


@pytest.mark.parametrize("method", EXPLICIT + SCIPY, ids=_name)
def test_a_loss_without_a_curvature_bound(method):
    """The Lanczos estimate of the step size, and Newton's product for the rounding floor, are charged, too."""
    scene = scenes.network(0.9, (3,), "tanh", 0)
    _check(scene.problem, scene.theta, method)
    plain = BilevelProblem(Autodiff(scene.traced[0]), Autodiff(scene.traced[1]), 0.9)
    _check(plain, scene.theta, method)


@pytest.mark.parametrize("method", EXPLICIT, ids=_name)
def test_a_batch(method):
    """Every problem of the batch is charged what it cost; rows taken out of the batch are linearised anew."""
    scene = scenes.softmax(0.37)
    lams = np.array([[0.02], [3.1]])
    problem = BilevelProblem(scene.problem.inner, scene.problem.outer, lams)
    estimate = _check(problem, np.stack([scene.theta, -scene.theta, 0.1 * scene.theta]), method)
    assert estimate.gradient.shape == (2, 3, 9)


def test_newton_off_a_saddle():
    """The second, shifted solve is charged."""
    problem = BilevelProblem(Diagonal(np.array([1.0, -3.0]), 0.4), Diagonal(np.ones(2)), 0.5)
    _check(problem, np.array([0.2, 0.1]), MetaGradient(Newton(max_steps=4), FirstOrderGradient()))


@pytest.mark.parametrize("solver", [CG(9, 1e-9, record=True), CG(6, record=True), ScipyCG(9, 1e-9, record=True)])
def test_costs_of_shorter_linear_solves(solver):
    scene = scenes.ridge(0.05)
    inner = GradientDescent(None, 4)(scene.problem, scene.theta)
    run = ImplicitGradient(solver)(scene.problem, scene.theta, inner).linear
    for k in range(solver.max_steps + 1):
        shorter = type(solver)(k, solver.rtol)
        alone = ImplicitGradient(shorter)(scene.problem, scene.theta, inner).linear
        at = run.at(k)
        assert at.cost == alone.cost
        assert at.status is alone.status
        assert at.steps == alone.steps
        assert np.array_equal(at.value, alone.value)
        assert at.residual_norm == alone.residual_norm


def test_costs_of_shorter_inner_runs():
    scene = scenes.network(0.9, (3,), "tanh", 0)
    run = GradientDescent(None, 8, record=(0, 3, 8))(scene.problem, scene.theta)
    for k in (0, 3, 8):
        assert run.at(k).cost == GradientDescent(None, k)(scene.problem, scene.theta).cost
