"""Formulas at a wrong φ, and derivatives through a finite inner loop."""

from __future__ import annotations

import numpy as np

from implicit_grad.backend import Array
from implicit_grad.verify._formula import Number, Unit, WrongFormula
from implicit_grad.verify._linear_formulas import samples
from implicit_grad.verify._scene import Scene

_STEPS = (*range(1, 17), 20, 25, 32, 40, 50, 64, 100)
_STEP = Number("α", Unit.STEP, 1e-3, 1.9, 0.8)


def _at_steps(scene: Scene, steps: Array, *, proximal: bool) -> Array:
    # One count at a time: the dense Hessians of all of them together would not fit for larger d.
    points = scene.points(steps, _STEPS, proximal=proximal)
    return np.stack([scene.implicit_at(points[:, i]) for i in range(len(_STEPS))], axis=1)


def _first_order(scene: Scene, steps: Array, *, proximal: bool) -> Array:
    return scene.test.gradient(scene.points(steps, _STEPS, proximal=proximal))


INNER = (
    WrongFormula(
        "2λ everywhere",
        "g of the problem with 2λ",
        "the regulariser lacks its ½: it is λ/2 ‖φ − θ‖²",
        lambda s, _: s.implicit_of(np.array([2.0]))[0],
        part_of=("another λ everywhere",),
    ),
    WrongFormula(
        "train loss summed",
        "g of the problem with λ/n, n train samples",
        "the train loss is a sum over samples where the problem has a mean: divide by n, or multiply λ",
        lambda s, _: s.implicit_of(np.array([1 / samples(s.train)]))[0],
        part_of=("another λ everywhere",),
    ),
    WrongFormula(
        "another λ everywhere",
        "g of the problem with cλ",
        "the inner problem is another one: compare its regulariser and the scale of its train loss",
        lambda s, c: s.implicit_of(c),
        number=Number("c", Unit.ONE, 1e-3, 1e3, 3.0, 19),
        most=200,
    ),
    WrongFormula(
        "constant for λ everywhere",
        "g of the problem with λ'",
        "λ is not used: another argument stands in its place (the number of steps?), or a default",
        lambda s, lam: s.implicit_of(lam / s.lam),
        number=Number("λ'", Unit.LAMBDA, 1e-3, 1e3, 3.0, 19),
        grid_of="another λ everywhere",
        most=200,
    ),
    WrongFormula(
        "pulled to 0",
        "λ(H + λI)⁻¹ ∇L_test at argmin L_train + λ/2 ‖φ‖²",
        "the regulariser is λ/2 ‖φ − θ‖²: weight decay pulls to 0, and φ no longer depends on θ",
        lambda s, _: s.implicit_at(s.pulled_to_zero()),
    ),
    WrongFormula(
        "inner solve stopped",
        "λ(H + λI)⁻¹ ∇L_test at φ_K",
        "the inner solve has not converged: take more steps, or the derivative through the steps taken",
        lambda s, step: _at_steps(s, step, proximal=True),
        number=_STEP,
        pairs=lambda s, step, k: s.implicit_at(s.points_at(step, k)),
        counts=_STEPS,
        most=100,
    ),
    WrongFormula(
        "unregularised inner loop",
        "λ(H + λI)⁻¹ ∇L_test at φ_K of steps down L_train alone",
        "the inner loop must minimise L_train + λ/2 ‖φ − θ‖²: at its φ the implicit formula does not hold",
        lambda s, step: _at_steps(s, step, proximal=False),
        number=_STEP,
        pairs=lambda s, step, k: s.implicit_at(s.points_at(step, k, proximal=False)),
        counts=_STEPS,
        most=100,
    ),
    WrongFormula(
        "K-step unrolled",
        "dL_test(φ_K)/dθ through K steps on the regularised loss",
        "right for K steps, not for φ*: take more steps, or differentiate implicitly",
        lambda s, step: s.unrolled(step, _STEPS)[0],
        number=_STEP,
        pairs=lambda s, step, k: s.unrolled_at(step, k)[0],
        counts=_STEPS,
        most=300,
    ),
    WrongFormula(
        "K-step unrolled, start held",
        "dL_test(φ_K)/dθ through K steps, φ₀ held constant",
        "start the inner loop at θ itself, not at a detached copy, or take more steps",
        lambda s, step: s.unrolled(step, _STEPS)[1],
        number=_STEP,
        pairs=lambda s, step, k: s.unrolled_at(step, k)[1],
        counts=_STEPS,
        most=100,
    ),
    WrongFormula(
        "MAML",
        "dL_test(φ_K)/dθ through K steps down L_train alone",
        "the regulariser is missing from the inner loop: this is MAML's gradient, not iMAML's",
        lambda s, step: s.unrolled(step, _STEPS, proximal=False)[0],
        number=_STEP,
        pairs=lambda s, step, k: s.unrolled_at(step, k, proximal=False)[0],
        counts=_STEPS,
        most=300,
    ),
    WrongFormula(
        "first-order MAML",
        "∇L_test(φ_K) after K steps down L_train alone",
        "no second derivative is in it, and no regulariser",
        lambda s, step: _first_order(s, step, proximal=False),
        number=_STEP,
        pairs=lambda s, step, k: s.test.gradient(s.points_at(step, k, proximal=False)),
        counts=_STEPS,
        most=300,
    ),
    WrongFormula(
        "first-order, inner solve stopped",
        "∇L_test(φ_K) after K regularised steps",
        "no second derivative is in it: solve (H + λI) q = ∇L_test at a converged φ and return λq",
        lambda s, step: _first_order(s, step, proximal=True),
        number=_STEP,
        pairs=lambda s, step, k: s.test.gradient(s.points_at(step, k)),
        counts=_STEPS,
        most=300,
    ),
)
