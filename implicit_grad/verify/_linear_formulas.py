"""Wrong formulas at the right φ: the system, its right-hand side, its solver."""

from __future__ import annotations

from typing import Any

import numpy as np

from implicit_grad.backend import Array
from implicit_grad.verify._formula import Number, Unit, WrongFormula
from implicit_grad.verify._scene import Scene, hessian, solve

_FACTOR = Number("c", Unit.ONE, 1e-4, 1e4, 3.0)
_DAMPING = Number("δ", Unit.CURVATURE, 1e-12, 1e4, 0.5)
_CONSTANT = Number("λ'", Unit.CURVATURE, 1e-5, 1e5, 0.7)
_STEPS = tuple(range(1, 65))


def _system(scene: Scene, A: Array, b: Array | None = None) -> Array:
    return scene.weights * solve(A, scene.v if b is None else b)


def _blocks(scene: Scene) -> Array:
    A, start = np.diag(scene.weights), 0
    for length in scene.blocks:
        own = slice(start, start + length)
        A[own, own] += scene.H[own, own]
        start += length
    return _system(scene, A)


def _gauss_newton(scene: Scene) -> Array:
    linearize = getattr(scene.train, "linearize_gauss_newton", None)
    if linearize is None:
        return np.full(scene.size, np.nan)
    return _system(scene, linearize(scene.phi).hvp(np.eye(scene.size)) + np.diag(scene.weights))


def _rescaled(scene: Scene, c: Any) -> Array:
    return scene.weights * scene.solve(c, scene.shift, scene.v)


def _constant(scene: Scene, lam: Array) -> Array:
    return lam[:, None] * scene.solve(1.0, lam[:, None], scene.v)


def _damped(scene: Scene, extra: Any, identity: float = 1.0) -> Array:
    """(identity·I + H/(Λ + extra))⁻¹ v."""
    more = scene.shift + np.asarray(extra)[..., None]
    return more * scene.solve(1.0, identity * more, scene.v)


def _conjugate_gradient(scene: Scene, *, stale: bool = False) -> Array:
    """Iterates 1, 2, … of CG from 0 on A x = v, times Λ; `stale` takes the new direction from the old residual."""
    A = scene.H + np.diag(scene.weights)
    x, r = np.zeros(scene.size), scene.v.copy()
    p, rows = r.copy(), []
    for _ in range(min(len(_STEPS), scene.size)):
        Ap = A @ p
        curvature, rr = p @ Ap, r @ r
        if not curvature > 0:
            break
        x = x + rr / curvature * p
        new = r - rr / curvature * Ap
        rows.append(scene.weights * x)
        p = (r if stale else new) + (new @ new) / rr * p
        r = new
    return np.array(rows) if rows else np.full((1, scene.size), np.nan)


def _before_the_last(scene: Scene) -> Array:
    """The iterate before the one that meets a relative residual of 1e-10; 0 where the first one does."""
    iterates = scene.once("cg", lambda: _conjugate_gradient(scene))
    A = scene.H + np.diag(scene.weights)
    off = np.linalg.norm(scene.v - (iterates / scene.weights) @ A, axis=-1)
    met = np.flatnonzero(off <= 1e-10 * np.linalg.norm(scene.v))
    last = int(met[0]) if met.size else len(iterates) - 1
    return iterates[last - 1] if last else np.zeros(scene.size)


def _neumann(scene: Scene, step: Array) -> Array:
    """Truncated Neumann series α Σ_{j<k} (I − αA)ʲ v, times Λ."""
    A = scene.H + np.diag(scene.weights)
    x, rows = np.zeros((step.size, scene.size)), []
    for _ in _STEPS:
        x = x + step[:, None] * (scene.v - x @ A)
        rows.append(scene.weights * x)
    return np.stack(rows, axis=1)


def _entry(name: str, formula: str, remedy: str, rows: Any, **more: Any) -> WrongFormula:
    return WrongFormula(name, formula, remedy, rows, **more)


LINEAR = (
    _entry(
        "zero",
        "0",
        "the gradient never reaches θ: the prox term must be in the inner loss, and θ must not be detached",
        lambda s, _: np.zeros(s.size),
    ),
    _entry(
        "first-order",
        "∇L_test(φ)",
        "no second derivative is in it: solve (H + λI) q = ∇L_test and return λq (PyTorch: create_graph=True)",
        lambda s, _: s.v,
        part_of=("Jacobian-free", "first-order, inner solve stopped"),
    ),
    _entry(
        "Jacobian-free",
        "c ∇L_test(φ)",
        "one step from φ replaces (I + H/λ)⁻¹ by a number: solve the linear system",
        lambda s, _: s.v,
        scaled=True,
    ),
    _entry(
        "train-loss right-hand side",
        "λ(H + λI)⁻¹ ∇L_train(φ)",
        "put the gradient of the test loss on the right-hand side; only the Hessian is that of the train loss",
        lambda s, _: _system(s, s.H + np.diag(s.weights), s.train.gradient(s.phi)),
    ),
    _entry(
        "train gradient",
        "∇L_train(φ)",
        "neither the test loss nor the Jacobian is in it",
        lambda s, _: s.train.gradient(s.phi),
    ),
    _entry(
        "Reptile direction",
        "c (θ − φ)",
        "the step from φ to θ is no gradient of the test loss",
        lambda s, _: s.theta - s.phi,
        scaled=True,
    ),
    _entry(
        "1/λ for λ",
        "(I + λH)⁻¹ ∇L_test",
        "the system is I + H/λ: divide by λ, do not multiply",
        lambda s, _: solve(np.eye(s.size) + s.H * s.weights, s.v),
    ),
    _entry(
        "λ missing from the system",
        "(I + H)⁻¹ ∇L_test",
        "divide H by λ: the system is I + H/λ",
        lambda s, _: s.solve(1.0, np.ones(1), s.v),
        part_of=("constant for λ in the system",),
    ),
    _entry(
        "λ missing in front",
        "(H + λI)⁻¹ ∇L_test",
        "multiply the solution of (H + λI) q = ∇L_test by λ: ∂φ*/∂θ = λ(H + λI)⁻¹",
        lambda s, _: s.solve(1.0, s.shift, s.v),
    ),
    _entry(
        "no λI beside H",
        "λ H⁻¹ ∇L_test",
        "differentiate the regularised inner loss: its Hessian is H + λI",
        lambda s, _: s.weights * s.solve(1.0, np.zeros(1), s.v),
    ),
    _entry(
        "2I + H/λ",
        "(2I + H/λ)⁻¹ ∇L_test",
        "the identity is in twice: H must be the Hessian of the train loss alone, or drop the I",
        lambda s, _: s.weights * s.solve(1.0, 2 * s.shift, s.v),
    ),
    _entry(
        "2I + H/(λ + 10)",
        "(2I + H/(λ + 10))⁻¹ ∇L_test",
        "set cg_damping=0 and lam_damping=0: with the defaults of imaml_dev another system is solved",
        lambda s, _: _damped(s, 10.0, 2.0),
    ),
    _entry(
        "damped λ",
        "(I + H/(λ + δ))⁻¹ ∇L_test",
        "remove the damping of λ: it changes the system, not only its conditioning",
        _damped,
        number=_DAMPING,
    ),
    _entry(
        "damped curvature",
        "λ(H + (λ + δ)I)⁻¹ ∇L_test",
        "remove the damping δI from the linear system",
        lambda s, delta: s.weights * s.solve(1.0, s.shift + delta[:, None], s.v),
        number=_DAMPING,
    ),
    _entry(
        "H scaled",
        "λ(cH + λI)⁻¹ ∇L_test",
        "the Hessian is not that of the loss that φ minimises: a sum for a mean, or a lost ½",
        _rescaled,
        number=_FACTOR,
    ),
    _entry(
        "2λ in the system",
        "2λ(H + 2λI)⁻¹ ∇L_test",
        "the regulariser of the linear system lacks its ½: λ/2 ‖φ − θ‖² has the Hessian λI",
        lambda s, _: 2 * s.weights * s.solve(1.0, 2 * s.shift, s.v),
        part_of=("H scaled",),
    ),
    _entry(
        "H of a sum",
        "λ(nH + λI)⁻¹ ∇L_test, n train samples",
        "the Hessian is that of a sum over samples where the loss is a mean: divide it by n",
        lambda s, _: _rescaled(s, samples(s.train)),
        part_of=("H scaled",),
    ),
    _entry(
        "constant for λ in the system",
        "λ'(H + λ'I)⁻¹ ∇L_test",
        "the system does not see λ: a default, or the number of steps, stands in its place",
        _constant,
        number=_CONSTANT,
    ),
    _entry(
        "−H for H",
        "λ(λI − H)⁻¹ ∇L_test",
        "the sign of the Hessian is wrong",
        lambda s, _: s.weights * s.solve(-1.0, s.shift, s.v),
    ),
    _entry(
        "block-diagonal inverse",
        "λ(blockdiag(H) + λI)⁻¹ ∇L_test",
        "solve for all parameters together: inverting array by array drops the coupling of weights and biases",
        lambda s, _: _blocks(s),
    ),
    _entry(
        "diagonal inverse",
        "λ(diag(H) + λI)⁻¹ ∇L_test",
        "the off-diagonal part of H is dropped: solve the whole system",
        lambda s, _: s.weights * s.v / (np.diag(s.H) + s.weights),
    ),
    _entry(
        "missing transpose",
        "(H + Λ)⁻¹ Λ ∇L_test",
        "transpose the Jacobian: g = Λ(H + Λ)⁻¹ v, not (H + Λ)⁻¹Λ v",
        lambda s, _: s.solve(1.0, s.shift, s.weights * s.v),
    ),
    _entry(
        "θ for φ in H",
        "λ(H(θ) + λI)⁻¹ ∇L_test(φ)",
        "take the Hessian at φ, where the inner solve ended, not at θ",
        lambda s, _: _system(s, hessian(s.train, s.theta) + np.diag(s.weights)),
    ),
    _entry(
        "θ for φ in the test gradient",
        "λ(H(φ) + λI)⁻¹ ∇L_test(θ)",
        "take the test gradient at φ, not at θ",
        lambda s, _: _system(s, s.H + np.diag(s.weights), s.test.gradient(s.theta)),
    ),
    _entry(
        "θ for φ everywhere",
        "λ(H(θ) + λI)⁻¹ ∇L_test(θ)",
        "the inner solve is not used at all: pass φ on",
        lambda s, _: s.implicit_at(s.theta),
    ),
    _entry(
        "no adaptation",
        "∇L_test(θ)",
        "the gradient at θ ignores the inner problem",
        lambda s, _: s.test.gradient(s.theta),
    ),
    _entry(
        "test-loss Hessian",
        "λ(∇²L_test + λI)⁻¹ ∇L_test",
        "take the Hessian of the train loss",
        lambda s, _: _system(s, hessian(s.test, s.phi) + np.diag(s.weights)),
    ),
    _entry(
        "Gauss–Newton matrix",
        "λ(B + λI)⁻¹ ∇L_test",
        "use the Hessian: the Gauss–Newton matrix lacks the curvature of the network",
        lambda s, _: _gauss_newton(s),
    ),
    _entry(
        "CG stopped",
        "k CG steps on (H + λI) q = ∇L_test",
        "raise the number of CG steps, or ask for a residual",
        lambda s, _: s.once("cg", lambda: _conjugate_gradient(s)),
        counts=_STEPS,
        symbol="k",
    ),
    _entry(
        "previous CG iterate",
        "the CG iterate before the one that converged",
        "update x before the test that ends the loop",
        lambda s, _: _before_the_last(s),
    ),
    _entry(
        "stale CG residual",
        "k CG steps whose new direction takes the old residual",
        "p ← r_new + βp, with the residual already updated",
        lambda s, _: _conjugate_gradient(s, stale=True),
        counts=_STEPS,
        symbol="k",
    ),
    _entry(
        "Neumann series cut off",
        "λα Σ_{j<k} (I − α(H + λI))ʲ ∇L_test",
        "take more terms, or solve by CG",
        _neumann,
        number=Number("α", Unit.STEP, 1e-3, 1.9, 0.8),
        counts=_STEPS,
        symbol="k",
    ),
    _entry(
        "wrong sign",
        "−g",
        "the sign: ∂φ*/∂θ = +λ(H + λI)⁻¹",
        lambda s, _: -s.right,
        part_of=("scaled by a constant",),
    ),
    _entry(
        "scaled by a constant",
        "c g",
        "the direction is right and the length is not: a sum for a mean, a lost ½, or a learning rate",
        lambda s, _: s.right,
        scaled=True,
    ),
)


def samples(loss: Any) -> float:
    """Number of samples that the loss is a mean over, NaN where it does not say."""
    loss = getattr(loss, "loss", loss)
    return float(getattr(loss, "n_samples", float("nan")))
