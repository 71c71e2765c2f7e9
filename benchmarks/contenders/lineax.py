"""Optimistix' implicit adjoint, and the conjugate gradient of Lineax alone."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import lineax as lx
import optimistix as optx

from benchmarks.cases import Data, MetaCase
from benchmarks.contenders import Form, Forms
from benchmarks.contenders.jax import curvature_of, form, loss_of, on_devices

_POSITIVE = frozenset({lx.positive_semidefinite_tag})


class _Given(optx.AbstractRootFinder):
    """Takes its starting point for the root: φ is given, only the adjoint is of interest."""

    rtol: float = 0.0
    atol: float = 0.0
    norm: Any = optx.max_norm

    def init(self, fn: Any, y: Any, args: Any, options: Any, f_struct: Any, aux_struct: Any, tags: Any) -> Any:
        return None

    def step(self, fn: Any, y: Any, args: Any, options: Any, state: Any, tags: Any) -> Any:
        return y, state, None

    def terminate(self, fn: Any, y: Any, args: Any, options: Any, state: Any, tags: Any) -> Any:
        return jnp.array(True), optx.RESULTS.successful

    def postprocess(
        self, fn: Any, y: Any, aux: Any, args: Any, options: Any, state: Any, tags: Any, result: Any
    ) -> Any:
        return y, None, {}


def meta_gradient(case: MetaCase, data: Data) -> Forms:
    """λ q by `lineax.CG` of k steps without tolerance; the residual is never recomputed."""
    loss, lam = partial(loss_of, case.model), case.lam
    solver = lx.CG(rtol=0.0, atol=0.0, max_steps=case.cg_steps, stabilise_every=None)
    *samples, phi, theta = on_devices(*(data[name] for name in ("X", "y", "X_test", "y_test", "phi", "theta")))

    def adjoint(phi: Any, X: Any, y: Any, X_test: Any, y_test: Any) -> Any:
        def stationarity(at: Any, theta: Any) -> Any:
            return jax.grad(loss)(at, X, y) + lam * (at - theta)

        def outer(theta: Any) -> Any:
            found = optx.root_find(
                stationarity,
                _Given(),
                phi,
                theta,
                adjoint=optx.ImplicitAdjoint(solver),
                tags=_POSITIVE,
                throw=False,
            )
            return loss(found.value, X_test, y_test)

        return jax.grad(outer)(theta)

    def direct(phi: Any, X: Any, y: Any, X_test: Any, y_test: Any) -> Any:
        apply = curvature_of(case.model, phi, lam, X, y, linearized=True)
        operator = lx.FunctionLinearOperator(apply, jax.eval_shape(lambda: phi), _POSITIVE)
        return lam * lx.linear_solve(operator, jax.grad(loss)(phi, X_test, y_test), solver, throw=False).value

    forms: dict[str, Form] = {
        "root_find, ImplicitAdjoint(CG)": form(jax.vmap(adjoint), phi, *samples, tasks=case.tasks),
        "linear_solve, CG": form(jax.vmap(direct), phi, *samples, tasks=case.tasks),
    }
    return {"meta-gradient": forms}
