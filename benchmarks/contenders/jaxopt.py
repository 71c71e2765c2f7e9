"""JAXopt: implicit differentiation of a solver by `custom_root`, and its conjugate gradient alone."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import jax

from benchmarks.cases import Data, MetaCase
from benchmarks.contenders import Form, Forms
from benchmarks.contenders.jax import curvature_of, form, loss_of, on_devices

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # the package announces its retirement
    from jaxopt import implicit_diff, linear_solve


def meta_gradient(case: MetaCase, data: Data) -> Forms:
    """λ q by `solve_cg(maxiter=k, tol=0)`."""
    loss, lam = partial(loss_of, case.model), case.lam
    solve = partial(linear_solve.solve_cg, maxiter=case.cg_steps, tol=0.0)
    *samples, phi, theta = on_devices(*(data[name] for name in ("X", "y", "X_test", "y_test", "phi", "theta")))

    def stationarity(phi: Any, theta: Any, X: Any, y: Any) -> Any:
        return jax.grad(loss)(phi, X, y) + lam * (phi - theta)

    def rooted(phi: Any, X: Any, y: Any, X_test: Any, y_test: Any) -> Any:
        @implicit_diff.custom_root(stationarity, solve=solve)
        def given(init: Any, theta: Any, X: Any, y: Any) -> Any:
            return init

        return jax.grad(lambda theta: loss(given(phi, theta, X, y), X_test, y_test))(theta)

    def direct(phi: Any, X: Any, y: Any, X_test: Any, y_test: Any) -> Any:
        apply = curvature_of(case.model, phi, lam, X, y, linearized=True)
        return lam * solve(apply, jax.grad(loss)(phi, X_test, y_test))

    forms: dict[str, Form] = {
        "custom_root, solve_cg": form(jax.vmap(rooted), phi, *samples, tasks=case.tasks),
        "solve_cg": form(jax.vmap(direct), phi, *samples, tasks=case.tasks),
    }
    return {"meta-gradient": forms}
