"""JAX by hand: losses for the libraries on JAX, and the three ways that need nothing else."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from benchmarks.peers.cases import Setup
from benchmarks.peers.recipes import Knob, Recipe

STEPS = Knob("inner steps", "16", "1000")


def outputs(params: Any, X: Any) -> Any:
    """The tanh network whose layer i is `params["i.W"]`, `params["i.b"]`."""
    last = len(params) // 2 - 1
    for i in range(last):
        X = jnp.tanh(X @ params[f"{i}.W"] + params[f"{i}.b"])
    return X @ params[f"{last}.W"] + params[f"{last}.b"]


def loss(params: Any, X: Any, y: Any, n_classes: int | None) -> Any:
    """Half the mean squared error, or the mean cross-entropy, of the network."""
    out = outputs(params, X)
    if n_classes is None:
        return 0.5 * jnp.mean((out[:, 0] - y) ** 2)
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(out), y[:, None], axis=1))


def pull(params: Any, theta: Any, lam: Any) -> Any:
    """½λ‖φ − θ‖² over the tree."""
    return 0.5 * lam * sum(jnp.sum((params[name] - theta[name]) ** 2) for name in params)


def objectives(setup: Setup) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return G(φ, θ) and L_test(φ)."""

    def inner(params: Any, theta: Any) -> Any:
        return loss(params, setup.X, setup.y, setup.n_classes) + pull(params, theta, setup.lam)

    return inner, partial(loss, X=setup.X_test, y=setup.y_test, n_classes=setup.n_classes)


def minimum(setup: Setup, inner: Callable[..., Any], theta: Any, newton: int = 6) -> Any:
    """φ* by gradient descent and then Newton: somebody's own solver, which no library differentiates."""
    start, unravel = ravel_pytree(theta)

    def objective(flat: Any) -> Any:
        return inner(unravel(flat), theta)

    def descend(flat: Any, _: None) -> tuple[Any, None]:
        return flat - setup.step_size * jax.grad(objective)(flat), None

    def step(flat: Any, _: None) -> tuple[Any, None]:
        return flat - jnp.linalg.solve(jax.hessian(objective)(flat), jax.grad(objective)(flat)), None

    near, _ = jax.lax.scan(descend, start, None, length=300)
    return unravel(jax.lax.scan(step, near, None, length=newton)[0])


def unrolled(setup: Setup) -> Callable[[Any], Any]:
    """Gradient descent in a scan, differentiated by `jax.grad`."""
    inner, outer = objectives(setup)

    def meta_loss(theta: Any) -> Any:
        def step(phi: Any, _: None) -> tuple[Any, None]:
            slope = jax.grad(inner)(phi, theta)
            return jax.tree.map(lambda p, g: p - setup.step_size * g, phi, slope), None

        steps = setup.pick("inner steps", 16, 1000)
        return outer(jax.lax.scan(step, theta, None, length=steps)[0])

    return jax.grad(meta_loss)


def by_hand(setup: Setup) -> Callable[[Any], Any]:
    """λ q with (H + λI) q = ∇L_test by `jax.scipy.sparse.linalg.cg`."""
    inner, outer = objectives(setup)

    def meta_gradient(theta: Any) -> Any:
        phi = minimum(setup, inner, theta)

        def curvature(v: Any) -> Any:
            return jax.jvp(lambda at: jax.grad(inner)(at, theta), (phi,), (v,))[1]

        tol = setup.pick("CG tolerance", 1e-5, 1e-14)
        q, _ = jax.scipy.sparse.linalg.cg(curvature, jax.grad(outer)(phi), tol=tol)
        return jax.tree.map(lambda leaf: setup.lam * leaf, q)

    return meta_gradient


def custom_root(setup: Setup) -> Callable[[Any], Any]:
    """`jax.lax.custom_root` with a dense solve of the tangent."""
    inner, outer = objectives(setup)

    def meta_loss(theta: Any) -> Any:
        _, unravel = ravel_pytree(theta)

        def solve(f: Any, start: Any) -> Any:
            del f
            return ravel_pytree(minimum(setup, inner, jax.lax.stop_gradient(unravel(start))))[0]

        def tangent(g: Any, y: Any) -> Any:
            return jnp.linalg.solve(jax.jacobian(g)(y), y)

        def stationarity(flat: Any) -> Any:
            return ravel_pytree(jax.grad(inner)(unravel(flat), theta))[0]

        flat = jax.lax.custom_root(stationarity, ravel_pytree(theta)[0], solve, tangent)
        return outer(unravel(flat))

    return jax.grad(meta_loss)


RECIPES = (
    Recipe("JAX", "gradient descent in `lax.scan`, unrolled", unrolled, (STEPS,)),
    Recipe("JAX", "`scipy.sparse.linalg.cg` by hand", by_hand, (Knob("CG tolerance", "1e-5", "1e-14"),)),
    Recipe("JAX", "`lax.custom_root`, dense tangent solve", custom_root),
)
