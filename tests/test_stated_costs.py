"""No method is dearer than its row in the README says: every row of the catalogue is counted.

Each row repeats the cost that the card states, so that a card cannot be changed without its count, and says it as a
number of calls; a loss that counts sees exactly those. A method without a row fails.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pytest
from oracles import scenes
from oracles.losses import Counting

from implicit_grad import (
    CG,
    GMRES,
    LBFGS,
    LSMR,
    LU,
    MINRES,
    SGD,
    Adam,
    BiCGSTAB,
    BilevelProblem,
    BlockCG,
    CheckpointedGradient,
    Cholesky,
    ComplexStepGradient,
    Continuation,
    ContrastiveGradient,
    Cost,
    DiagonalGradient,
    Eigh,
    FiniteDifferenceGradient,
    FirstOrderGradient,
    ForwardModeGradient,
    GaussNewtonGradient,
    GeneralGMRES,
    GeneralLU,
    GradientDescent,
    HeavyBall,
    IdentityGradient,
    ImplicitGradient,
    LambdaPath,
    MetaGradient,
    MixedPrecision,
    Nesterov,
    Neumann,
    Newton,
    NewtonCG,
    NewtonStep,
    Nystrom,
    OneStepGradient,
    PreconditionedCG,
    ReptileDirection,
    RichardsonGradient,
    ScipyCG,
    ScipyMinimize,
    SuperEfficientGradient,
    UnrolledGradient,
    Woodbury,
    catalogue,
    estimators,
    inner,
    linear,
)
from implicit_grad.estimators import complex_step

K, k = 6, 4  # inner steps, linear steps
KINDS = [f.name for f in fields(Cost) if f.name != "peak_bytes"]
SCENES = {
    # d = 9; the loss assembles its Hessian and bounds its curvature.
    "softmax": lambda: scenes.softmax(2.3),
    # d = 13; it does neither.
    "network": lambda: scenes.network(2.3, (3,), "tanh", 0),
}
LANCZOS = 20


@dataclass(frozen=True, eq=False)
class Row:
    """A method, the words of its card, and the calls they stand for, of both losses together."""

    method: Any
    stated: str
    calls: Callable[[int, bool], dict[str, int]]


def _linear(method: Any, stated: str, hvps: Any) -> Row:
    """The linear solve of an implicit gradient, which adds a gradient of either loss."""

    def calls(d: int, assembles: bool) -> dict[str, int]:
        spent = hvps(d, assembles) if callable(hvps) else hvps
        spent = spent if isinstance(spent, dict) else {"hvps": spent}
        return {"gradients": 2, **spent}

    return Row(ImplicitGradient(method), stated, calls)


def _dense(d: int, assembles: bool) -> dict[str, int]:
    return {"hvps": 2, "hessians": 1} if assembles else {"hvps": d + 2}


def _jacobi(d: int, assembles: bool) -> dict[str, int]:
    return {"hvps": k + 1, "hessians": 1} if assembles else {"hvps": k + 1 + d}


LINEAR = [
    _linear(BiCGSTAB(k), "3k + 1 HVPs", 3 * k + 1),
    _linear(BlockCG(k), "k + 1 HVPs for each b", k + 1),
    _linear(CG(k), "k + 1 HVPs", k + 1),
    _linear(Cholesky(), "d + 2 HVPs (2 and an assembled H) + d³/3", _dense),
    _linear(Eigh(), "d + 2 HVPs (2 and an assembled H) + 9d³", _dense),
    _linear(GMRES(k), "k + 2 HVPs + k²d", k + 2),
    _linear(GeneralGMRES(k), "k + 1 products + k²d", k + 1),
    _linear(GeneralLU(), "d + 2 products + 2d³", lambda d, _: d + 2),
    _linear(LSMR(k), "3k + 2 HVPs", 3 * k + 2),
    _linear(LU(), "d + 2 HVPs (2 and an assembled H) + 2d³", _dense),
    _linear(MINRES(k), "k + 1 HVPs", k + 1),
    # Three corrections of CG-k: each k + 1 products and one for the residual; the scale of A and the last residual.
    _linear(
        MixedPrecision(CG(k), max_steps=3, rtol=0.0), "its float32 solves, 1 HVP each, 2 more", 3 * (k + 1 + 1) + 2
    ),
    _linear(
        Neumann(None, k),
        "k + 1 HVPs (+ min(20, d) where no bound of λ_max is known)",
        lambda d, bounded: k + 1 + (0 if bounded else min(LANCZOS, d)),
    ),
    _linear(Nystrom(k), "rank + 1 HVPs", k + 1),
    _linear(PreconditionedCG(k), "k + 1 HVPs, and M (Jacobi: d HVPs, or an assembled H)", _jacobi),
    _linear(ScipyCG(k), "k + 1 HVPs", k + 1),
    _linear(Woodbury(), "3 HVPs, 6 products with F or Fᵀ, r³/3", 3),
]

DESCENT = GradientDescent(0.05, K)


def _counts(**calls: Any) -> Callable[[int, bool], dict[str, int]]:
    """Numbers, or functions of d."""
    return lambda d, _: {name: n(d) if callable(n) else n for name, n in calls.items()}


ESTIMATORS = [
    Row(ImplicitGradient(CG(k)), "the linear solve + 2 gradients", _counts(hvps=k + 1, gradients=2)),
    Row(UnrolledGradient(), "K HVPs + K + 1 gradients", _counts(hvps=K, gradients=K + 1)),
    Row(CheckpointedGradient(), "K HVPs + at most 7K/2 + 2 gradients", _counts(hvps=K, gradients=14)),
    Row(ForwardModeGradient(), "K·d HVPs + 2K + 1 gradients", _counts(hvps=lambda d: K * d, gradients=2 * K + 1)),
    Row(FirstOrderGradient(), "1 gradient", _counts(gradients=1)),
    Row(IdentityGradient(1.5), "1 gradient", _counts(gradients=1)),
    Row(ReptileDirection(0.7), "nothing", _counts()),
    Row(DiagonalGradient(), "d HVPs + 2 gradients", _counts(hvps=lambda d: d, gradients=2)),
    Row(
        LambdaPath((0.5, 1.0, 2.0), k),
        "k HVPs for all λ, 1 for each, 2 gradients",
        _counts(hvps=k + 3, gradients=2),
    ),
    Row(
        GaussNewtonGradient(CG(k)),
        "as implicit, with Gauss–Newton products",
        _counts(hvps=k + 1, gradients=2),
    ),
    Row(SuperEfficientGradient(CG(k)), "2 linear solves + 4 gradients", _counts(hvps=2 * (k + 1), gradients=4)),
    Row(
        OneStepGradient(NewtonStep(CG(k))),
        "2 gradients (Newton step: and 2 linear solves)",
        _counts(hvps=2 * (k + 1), gradients=2),
    ),
    # An inner solve of K steps takes K + 1 gradients; a nudged one asks both losses.
    Row(
        ContrastiveGradient(1e-2, DESCENT),
        "2 inner solves from φ, of both losses, 1 gradient, 3 values (one-sided: 1, 2, 2)",
        _counts(gradients=2 * 2 * (K + 1) + 1, values=3),
    ),
    Row(
        ContrastiveGradient(1e-2, DESCENT, two_sided=False),
        "2 inner solves from φ, of both losses, 1 gradient, 3 values (one-sided: 1, 2, 2)",
        _counts(gradients=2 * (K + 1) + 2, values=2),
    ),
    Row(
        FiniteDifferenceGradient(DESCENT),
        "4d + 9 inner solves from φ with a value each (8d + 13 with a step), 1 gradient",
        _counts(gradients=lambda d: (4 * d + 9) * (K + 1) + 1, values=lambda d: 4 * d + 9),
    ),
    Row(
        FiniteDifferenceGradient(DESCENT, 1e-3),
        "4d + 9 inner solves from φ with a value each (8d + 13 with a step), 1 gradient",
        _counts(gradients=lambda d: (8 * d + 13) * (K + 1) + 1, values=lambda d: 8 * d + 13),
    ),
    Row(
        RichardsonGradient(ContrastiveGradient(1e-2, DESCENT), ContrastiveGradient(5e-3, DESCENT), 2),
        "both estimators",
        _counts(gradients=2 * (2 * 2 * (K + 1) + 1), values=6),
    ),
]


def _spent(row: Row, scene: Any) -> tuple[dict[str, int], Cost]:
    """What the losses saw after the inner solve, and what the estimate claims."""
    solved = GradientDescent(0.05, K, record=True)(scene.problem, scene.theta)
    train, test = Counting(scene.problem.inner), Counting(scene.problem.outer)
    estimate = row.method(BilevelProblem(train, test, scene.lam), scene.theta, solved)
    seen = {kind: train.calls[kind] + test.calls[kind] for kind in KINDS}
    assert not test.calls["hvps"] + test.calls["hessians"] or isinstance(row.method, ContrastiveGradient)
    return seen, estimate.cost + solved.cost.times(-1)


def _named(row: Row) -> str:
    method = row.method.linear_solver if row in LINEAR else row.method
    return repr(method)[:60]


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("row", LINEAR + ESTIMATORS, ids=_named)
def test_every_method_costs_what_its_row_says(row, scene):
    method = row.method.linear_solver if row in LINEAR else row.method
    assert method.card.cost == row.stated
    if isinstance(method, Woodbury) and scene == "network":
        return  # refused: no factor
    made = SCENES[scene]()
    seen, claimed = _spent(row, made)
    expected = {**dict.fromkeys(KINDS, 0), **row.calls(made.theta.size, scene == "softmax")}
    assert seen == expected
    assert {kind: getattr(claimed, kind) for kind in KINDS} == seen


def test_a_complex_step_costs_what_its_row_says(monkeypatch):
    """Its losses are written a second time, for complex numbers: counted there."""
    assert ComplexStepGradient.card.cost == "d + 1 gradients and a spectrum of A a Newton step, 5d more"
    scene = scenes.softmax(2.3)
    solved, d = Newton()(scene.problem, scene.theta), scene.theta.size
    calls = {"gradients": 0, "values": 0}
    original = complex_step.complex_loss

    def counting(name: str, loss: Any) -> Any:
        made = original(name, loss)

        class Counted:
            def gradient(self, x: Any) -> Any:
                calls["gradients"] += int(np.prod(x.shape[:-1]))
                return made.gradient(x)

            def value(self, x: Any) -> Any:
                calls["values"] += int(np.prod(x.shape[:-1]))
                return made.value(x)

        return Counted()

    monkeypatch.setattr(complex_step, "complex_loss", counting)
    estimate = ComplexStepGradient()(scene.problem, scene.theta, solved)
    spent = estimate.cost + solved.cost.times(-1)
    assert calls == {"gradients": spent.gradients, "values": spent.values}
    steps = round((spent.gradients + spent.values - 5 * d) / (d + 1))
    assert spent.gradients + spent.values == steps * (d + 1) + 5 * d
    assert 1 <= steps <= 3


@pytest.mark.parametrize("steps", [1, 2, 6, 25, 64, 400])
def test_checkpoints_stay_below_what_is_stated(steps):
    scene = scenes.softmax(2.3)
    solved = GradientDescent(0.05, steps)(scene.problem, scene.theta)
    spent = CheckpointedGradient()(scene.problem, scene.theta, solved).cost + solved.cost.times(-1)
    assert spent.hvps == steps
    assert 2 * steps <= spent.gradients <= 3.5 * steps + 2


INNER = [
    Adam(0.05, K),
    Continuation(np.array([4.0, 2.3]), Newton()),
    DESCENT,
    GradientDescent(None, K),
    HeavyBall(None, K),
    LBFGS(K),
    Nesterov(None, K),
    Newton(),
    NewtonCG(K),
    SGD(0.05, K, 2, seed=5),
    ScipyMinimize("L-BFGS-B"),
    ScipyMinimize("Nelder-Mead", max_steps=20),
]
K_GRADIENTS = (Adam, GradientDescent, HeavyBall, Nesterov)


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("solver", INNER, ids=lambda s: repr(s)[:60])
def test_every_inner_solver_is_counted(solver, scene):
    made = SCENES[scene]()
    train = Counting(made.problem.inner)
    run = solver(BilevelProblem(train, made.problem.outer, made.lam), made.theta)
    seen = {kind: train.calls[kind] for kind in KINDS}
    assert {kind: getattr(run.cost, kind) for kind in KINDS} == seen
    if isinstance(solver, K_GRADIENTS):
        # One a step and one for the residual; the default step size of a loss without a bound takes a Lanczos run.
        lanczos = scene == "network" and solver.step_size is None
        assert seen["gradients"] == K + 1 + lanczos
        assert seen["hvps"] == (min(LANCZOS, made.theta.size) if lanczos else 0)


def test_every_method_of_the_catalogue_is_counted():
    """A new method without a count fails here."""
    assert {type(row.method.linear_solver).__name__ for row in LINEAR} == set(catalogue.methods(linear))
    own = {"ComplexStepGradient"}
    assert {type(row.method).__name__ for row in ESTIMATORS} | own == set(catalogue.methods(estimators))
    assert {type(solver).__name__ for solver in INNER} == set(catalogue.methods(inner))
    method = MetaGradient(DESCENT, FirstOrderGradient())  # a composition adds nothing of its own
    scene = scenes.softmax(2.3)
    assert method(scene.problem, scene.theta).cost == Cost(gradients=K + 2)
