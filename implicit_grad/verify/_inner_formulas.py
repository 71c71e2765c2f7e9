"""Formulas at a wrong φ, and derivatives through a finite inner loop."""

from __future__ import annotations

import numpy as np

from implicit_grad.backend import Array
from implicit_grad.verify._formula import Number, Unit, WrongFormula
from implicit_grad.verify._linear_formulas import samples
from implicit_grad.verify._scene import Scene, hessian, solve

_STEPS = (*range(1, 17), 20, 25, 32, 40, 50, 64, 100)
_STEP = Number("α", Unit.STEP, 1e-3, 1.9, 0.8)


def _elsewhere(scene: Scene, factor: float) -> Array:
    """Return g of the problem with factor · Λ."""
    if not np.isfinite(factor):
        return np.full(scene.size, np.nan)
    phi, weights = scene.minimum(factor), factor * scene.weights
    return weights * solve(hessian(scene.train, phi) + np.diag(weights), scene.test.gradient(phi))


def _at_steps(scene: Scene, step: float, *, proximal: bool) -> Array:
    return np.array([scene.implicit_at(phi) for phi in scene.points(step, _STEPS, proximal=proximal)])


def _first_order(scene: Scene, step: float, *, proximal: bool) -> Array:
    return np.array([scene.test.gradient(phi) for phi in scene.points(step, _STEPS, proximal=proximal)])


def _start_held(scene: Scene, step: float) -> Array:
    """Unrolled, without the term of φ₀ = θ: the difference is that of a pull that starts in no λ."""
    whole = scene.unrolled(step, _STEPS)
    run = scene.run(step, max(_STEPS))
    assert run.path is not None  # it is recorded
    problem, points = scene.problem, run.path.points
    rows = []
    for row, steps in zip(whole, _STEPS, strict=True):
        v = problem.outer.gradient(points[steps])
        for k in reversed(range(steps)):
            v = v - step * (problem.inner.linearize(points[k]).hvp(v) + problem.lam * v)
        rows.append(row - scene.scale * v)
    return np.array(rows)


INNER = (
    WrongFormula(
        "2λ everywhere",
        "g of the problem with 2λ",
        "the regulariser lacks its ½: it is λ/2 ‖φ − θ‖²",
        lambda s, _: _elsewhere(s, 2.0),
        part_of="another λ everywhere",
    ),
    WrongFormula(
        "train loss summed",
        "g of the problem with λ/n, n train samples",
        "the train loss is a sum over samples where the problem has a mean: divide by n, or multiply λ",
        lambda s, _: _elsewhere(s, 1 / samples(s.train)),
        part_of="another λ everywhere",
    ),
    WrongFormula(
        "another λ everywhere",
        "g of the problem with cλ",
        "the inner problem is another one: compare its regulariser and the scale of its train loss",
        _elsewhere,
        number=Number("c", Unit.ONE, 1e-3, 1e3, 3.0),
        most=200,
    ),
    WrongFormula(
        "constant for λ everywhere",
        "g of the problem with λ'",
        "λ is not used: another argument stands in its place (the number of steps?), or a default",
        lambda s, lam: _elsewhere(s, lam / s.lam),
        number=Number("λ'", Unit.CURVATURE, 1e-3, 1e3, 0.7),
        most=200,
    ),
    WrongFormula(
        "inner solve stopped",
        "λ(H + λI)⁻¹ ∇L_test at φ_K",
        "the inner solve has not converged: take more steps, or the derivative through the steps taken",
        lambda s, step: _at_steps(s, step, proximal=True),
        number=_STEP,
        counts=_STEPS,
        most=100,
    ),
    WrongFormula(
        "unregularised inner loop",
        "λ(H + λI)⁻¹ ∇L_test at φ_K of steps down L_train alone",
        "the inner loop must minimise L_train + λ/2 ‖φ − θ‖²: at its φ the implicit formula does not hold",
        lambda s, step: _at_steps(s, step, proximal=False),
        number=_STEP,
        counts=_STEPS,
        most=100,
    ),
    WrongFormula(
        "K-step unrolled",
        "dL_test(φ_K)/dθ through K steps on the regularised loss",
        "right for K steps, not for φ*: take more steps, or differentiate implicitly",
        lambda s, step: s.unrolled(step, _STEPS),
        number=_STEP,
        counts=_STEPS,
        most=300,
    ),
    WrongFormula(
        "K-step unrolled, start held",
        "dL_test(φ_K)/dθ through K steps, φ₀ held constant",
        "start the inner loop at θ itself, not at a detached copy, or take more steps",
        _start_held,
        number=_STEP,
        counts=_STEPS,
        most=100,
    ),
    WrongFormula(
        "MAML",
        "dL_test(φ_K)/dθ through K steps down L_train alone",
        "the regulariser is missing from the inner loop: this is MAML's gradient, not iMAML's",
        lambda s, step: s.unrolled(step, _STEPS, proximal=False),
        number=_STEP,
        counts=_STEPS,
        most=300,
    ),
    WrongFormula(
        "first-order MAML",
        "∇L_test(φ_K) after K steps down L_train alone",
        "no second derivative is in it, and no regulariser",
        lambda s, step: _first_order(s, step, proximal=False),
        number=_STEP,
        counts=_STEPS,
        most=300,
    ),
    WrongFormula(
        "first-order, inner solve stopped",
        "∇L_test(φ_K) after K regularised steps",
        "no second derivative is in it: solve (H + λI) q = ∇L_test at a converged φ and return λq",
        lambda s, step: _first_order(s, step, proximal=True),
        number=_STEP,
        counts=_STEPS,
        most=300,
    ),
)
