"""JAXopt: implicit differentiation of its solvers, `custom_root` around one's own, and unrolling."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import jax

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # its notice that nobody maintains it
    import jaxopt
    from jaxopt import linear_solve
    from jaxopt.implicit_diff import custom_root

from benchmarks.peers.cases import Setup
from benchmarks.peers.recipes import Knob, Recipe
from benchmarks.peers.with_jax import STEPS, minimum, objectives

_INNER = Knob("inner solve", "tol=1e-3, maxiter=500", "tol=1e-12, maxiter=20000")
_LINEAR = Knob("linear solve", "normal CG, tol=1e-5", "normal CG, tol=1e-14")


def _solver(kind: Any) -> Callable[[Setup], Callable[[Any], Any]]:
    """A solver of JAXopt as it comes, differentiated implicitly, which is its default."""

    def build(setup: Setup) -> Callable[[Any], Any]:
        inner, outer = objectives(setup)
        settings = setup.pick("inner solve", {}, {"tol": 1e-12, "maxiter": 20_000})
        if "linear solve" in setup.strict:
            settings["implicit_diff_solve"] = partial(linear_solve.solve_normal_cg, tol=1e-14)
        solver = kind(fun=inner, **settings)
        return jax.grad(lambda theta: outer(solver.run(theta, theta).params))

    return build


def _budget(setup: Setup) -> Callable[[Any], Any]:
    """A fixed budget, as in iMAML: 16 gradient steps, five of CG."""
    inner, outer = objectives(setup)
    settings = setup.pick("inner steps", {"maxiter": 16}, {"maxiter": 1000, "tol": 1e-13})
    solve = partial(linear_solve.solve_cg, **setup.pick("CG steps", {"maxiter": 5}, {"tol": 1e-14}))
    solver = jaxopt.GradientDescent(
        fun=inner, stepsize=lambda _: setup.step_size, acceleration=False, implicit_diff_solve=solve, **settings
    )
    return jax.grad(lambda theta: outer(solver.run(theta, theta).params))


def _root(solve: Any) -> Callable[[Setup], Callable[[Any], Any]]:
    """`custom_root` around one's own Newton."""

    def build(setup: Setup) -> Callable[[Any], Any]:
        inner, outer = objectives(setup)
        linear = partial(solve, tol=1e-14) if "linear solve" in setup.strict else solve

        @custom_root(jax.grad(inner), solve=linear)
        def solve_inner(start: Any, theta: Any) -> Any:
            del start
            return minimum(setup, inner, theta)

        return jax.grad(lambda theta: outer(solve_inner(None, theta)))

    return build


def _unrolled(setup: Setup) -> Callable[[Any], Any]:
    """`implicit_diff=False`: through the iterations."""
    inner, outer = objectives(setup)
    solver = jaxopt.GradientDescent(
        fun=inner,
        stepsize=lambda _: setup.step_size,
        acceleration=False,
        maxiter=setup.pick("inner steps", 16, 1000),
        tol=0.0,
        implicit_diff=False,
        unroll=True,
    )
    return jax.grad(lambda theta: outer(solver.run(theta, theta).params))


def _linear(name: str) -> Knob:
    return Knob("linear solve", f"{name}, tol=1e-5", f"{name}, tol=1e-14")


RECIPES = (
    Recipe("JAXopt", "`GradientDescent`, implicit", _solver(jaxopt.GradientDescent), (_INNER, _LINEAR)),
    Recipe("JAXopt", "`LBFGS`, implicit", _solver(jaxopt.LBFGS), (_INNER, _LINEAR)),
    Recipe(
        "JAXopt",
        "`GradientDescent`, implicit, 16 steps and 5 of CG",
        _budget,
        (STEPS, Knob("CG steps", "5", "to tol=1e-14")),
    ),
    Recipe("JAXopt", "`custom_root`, `solve_cg`", _root(linear_solve.solve_cg), (_linear("CG"),)),
    Recipe(
        "JAXopt", "`custom_root`, `solve_normal_cg`", _root(linear_solve.solve_normal_cg), (_linear("normal CG"),)
    ),
    Recipe("JAXopt", "`custom_root`, `solve_gmres`", _root(linear_solve.solve_gmres), (_linear("GMRES"),)),
    Recipe("JAXopt", "`custom_root`, `solve_bicgstab`", _root(linear_solve.solve_bicgstab), (_linear("BiCGSTAB"),)),
    Recipe("JAXopt", "`GradientDescent`, unrolled", _unrolled, (STEPS,)),
)
