"""Optimistix and Lineax: implicit adjoints of their solvers, checkpointed unrolling, and a linear solve by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import lineax as lx
import optimistix as optx

from benchmarks.peers.cases import Setup
from benchmarks.peers.recipes import Knob, Recipe
from benchmarks.peers.with_jax import STEPS, minimum, objectives, outputs

_INNER = Knob("inner tolerance", "1e-8; in float32 1e-6", "1e-12")
_START = Knob("start", "θ", "300 gradient steps from θ")
_POSITIVE = frozenset({lx.positive_semidefinite_tag})


def _tolerance(setup: Setup) -> dict[str, float]:
    tol = setup.pick("inner tolerance", 1e-8 if setup.X.dtype == "float64" else 1e-6, 1e-12)
    return {"rtol": tol, "atol": tol}


def _linear_tolerance(setup: Setup) -> dict[str, float]:
    tol = setup.pick("linear tolerance", 1e-6, 1e-12)
    return {"rtol": tol, "atol": tol}


def _minimise(setup: Setup) -> Callable[[Any], Any]:
    """`minimise` with BFGS and the default adjoint."""
    inner, outer = objectives(setup)

    def meta_loss(theta: Any) -> Any:
        found = optx.minimise(inner, optx.BFGS(**_tolerance(setup)), theta, theta, max_steps=2000)
        return outer(found.value)

    return jax.grad(meta_loss)


def _minimise_cg(setup: Setup) -> Callable[[Any], Any]:
    """`minimise` with BFGS; the adjoint by CG."""
    inner, outer = objectives(setup)
    adjoint = optx.ImplicitAdjoint(lx.CG(**_linear_tolerance(setup)))

    def meta_loss(theta: Any) -> Any:
        solver = optx.BFGS(**_tolerance(setup))
        found = optx.minimise(inner, solver, theta, theta, adjoint=adjoint, tags=_POSITIVE, max_steps=2000)
        return outer(found.value)

    return jax.grad(meta_loss)


def _root_find(setup: Setup) -> Callable[[Any], Any]:
    """`root_find` of the stationarity by Newton."""
    inner, outer = objectives(setup)

    def meta_loss(theta: Any) -> Any:
        solver = optx.Newton(**_tolerance(setup))
        start = jax.lax.stop_gradient(minimum(setup, inner, theta, newton=0)) if "start" in setup.strict else theta
        return outer(optx.root_find(jax.grad(inner), solver, start, theta).value)

    return jax.grad(meta_loss)


def _least_squares(setup: Setup) -> Callable[[Any], Any]:
    """`least_squares` of errors and √λ(φ − θ), by Levenberg and Marquardt."""
    _, outer = objectives(setup)

    def residuals(params: Any, theta: Any) -> Any:
        errors = outputs(params, setup.X)[:, 0] - setup.y
        away = jax.tree.map(lambda p, t: setup.lam**0.5 * (p - t), params, theta)
        return errors / len(setup.y) ** 0.5, away

    def meta_loss(theta: Any) -> Any:
        solver = optx.LevenbergMarquardt(**_tolerance(setup))
        return outer(optx.least_squares(residuals, solver, theta, theta).value)

    return jax.grad(meta_loss)


def _fixed_point(setup: Setup) -> Callable[[Any], Any]:
    """`fixed_point` of one gradient step."""
    inner, outer = objectives(setup)

    def step(params: Any, theta: Any) -> Any:
        return jax.tree.map(lambda p, g: p - setup.step_size * g, params, jax.grad(inner)(params, theta))

    def meta_loss(theta: Any) -> Any:
        solver = optx.FixedPointIteration(**_tolerance(setup))
        return outer(optx.fixed_point(step, solver, theta, theta, max_steps=20_000).value)

    return jax.grad(meta_loss)


def _checkpointed(setup: Setup) -> Callable[[Any], Any]:
    """Gradient descent under `RecursiveCheckpointAdjoint`."""
    inner, outer = objectives(setup)

    def meta_loss(theta: Any) -> Any:
        solver = optx.GradientDescent(learning_rate=setup.step_size, rtol=0.0, atol=0.0)
        found = optx.minimise(
            inner,
            solver,
            theta,
            theta,
            adjoint=optx.RecursiveCheckpointAdjoint(),
            max_steps=setup.pick("inner steps", 16, 1000),
            throw=False,
        )
        return outer(found.value)

    return jax.grad(meta_loss)


def _by_hand(make: Any) -> Callable[[Setup], Callable[[Any], Any]]:
    """λ q by `lineax.linear_solve` at φ*."""

    def build(setup: Setup) -> Callable[[Any], Any]:
        inner, outer = objectives(setup)

        def meta_gradient(theta: Any) -> Any:
            phi = minimum(setup, inner, theta)
            A = lx.JacobianLinearOperator(lambda at, _: jax.grad(inner)(at, theta), phi, tags=_POSITIVE)
            q = lx.linear_solve(A, jax.grad(outer)(phi), make(**_linear_tolerance(setup))).value
            return jax.tree.map(lambda leaf: setup.lam * leaf, q)

        return meta_gradient

    return build


_LINEAR = Knob("linear tolerance", "1e-6", "1e-12")
_SQUARES = ("ridge", "MLP")

RECIPES = (
    Recipe("Optimistix", "`minimise`, `BFGS`, `ImplicitAdjoint()`", _minimise, (_INNER,)),
    Recipe("Optimistix", "`minimise`, `BFGS`, `ImplicitAdjoint(lineax.CG)`", _minimise_cg, (_INNER, _LINEAR)),
    Recipe(
        "Optimistix",
        "`root_find`, `Newton`, `ImplicitAdjoint()`",
        _root_find,
        (_INNER, _START),
    ),
    Recipe(
        "Optimistix",
        "`least_squares`, `LevenbergMarquardt`, `ImplicitAdjoint()`",
        _least_squares,
        (_INNER,),
        _SQUARES,
    ),
    Recipe("Optimistix", "`fixed_point` of a gradient step, `ImplicitAdjoint()`", _fixed_point, (_INNER,)),
    Recipe(
        "Optimistix",
        "`GradientDescent`, `RecursiveCheckpointAdjoint`",
        _checkpointed,
        (STEPS,),
        remark="`max_steps=16` makes 15 steps, which is the K of the diagnosis",
    ),
    Recipe("Lineax", "`CG` by hand", _by_hand(lx.CG), (_LINEAR,)),
    Recipe("Lineax", "`GMRES` by hand", _by_hand(lx.GMRES), (_LINEAR,)),
)
