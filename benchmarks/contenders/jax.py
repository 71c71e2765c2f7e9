"""JAX, as its users write it: vmap, jit, scan, and derivatives of derivatives."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from benchmarks.cases import Data, MetaCase, Model, ProductCase, SweepCase
from benchmarks.contenders import Form, Forms

jax.config.update("jax_enable_x64", True)

DEVICES = jax.device_count()


def loss_of(model: Model, x: Any, X: Any, y: Any) -> Any:
    """Loss of one task: parameters (d,), features (n, in), targets (n,)."""
    start, a = 0, X
    for n_in, n_out in pairwise(model.widths):
        z = a @ x[start : start + n_in * n_out].reshape(n_in, n_out)
        start += n_in * n_out
        if model.bias:
            z = z + x[start : start + n_out]
            start += n_out
        a = jnp.tanh(z)
    if model.n_classes is None:
        return 0.5 * jnp.mean((z[:, 0] - y) ** 2)
    return -jnp.mean(jnp.sum(jax.nn.one_hot(y, model.n_classes, dtype=z.dtype) * jax.nn.log_softmax(z), axis=-1))


def on_devices(*arrays: Any) -> list[Any]:
    """Put arrays on the devices, split along the tasks; the last task is repeated until they come out even."""
    if DEVICES == 1:
        return [jnp.asarray(array) for array in arrays]
    split = NamedSharding(Mesh(np.array(jax.devices()), ("tasks",)), PartitionSpec("tasks"))
    even = [np.concatenate([array, *[array[-1:]] * (-len(array) % DEVICES)]) for array in arrays]
    return [jax.device_put(array, split) for array in even]


def splits(tasks: int) -> bool:
    """Whether every device has a task of its own."""
    return tasks >= DEVICES


def form(function: Callable[..., Any], *arguments: Any, tasks: int, host: Callable[[Any], Any] = lambda x: x) -> Form:
    """Jit a function of these arguments; the results of the first `tasks` tasks are compared."""
    compiled = jax.jit(function)

    def arrays(result: Any) -> Any:
        return host(jax.tree.map(lambda array: np.asarray(array)[:tasks], result))

    return Form(lambda: jax.block_until_ready(compiled(*arguments)), arrays)


def products(case: ProductCase, data: Data) -> Forms:
    """HVPs: forward over reverse afresh, and the jitted linear map that `linearize` or `vjp` leaves."""
    if not splits(case.tasks):
        return {}
    x, v, X, y = on_devices(*(data[name] for name in ("x", "v", "X", "y")))
    gradient = jax.grad(partial(loss_of, case.model))

    def forward(x: Any, v: Any, X: Any, y: Any) -> Any:
        return jax.jvp(lambda at: gradient(at, X, y), (x,), (v,))[1]

    def gradients(at: Any) -> Any:
        return jax.vmap(gradient)(at, X, y)

    _, tangent = jax.jit(lambda at: jax.linearize(gradients, at))(x)
    _, cotangent = jax.jit(lambda at: jax.vjp(gradients, at))(x)
    return {
        "HVP": {
            "jit, vmap, jvp of grad": form(jax.vmap(forward), x, v, X, y, tasks=case.tasks),
            "linearize of grad, jit": form(lambda apply, v: apply(v), tangent, v, tasks=case.tasks),
            "vjp of grad, jit": form(lambda apply, v: apply(v)[0], cotangent, v, tasks=case.tasks),
        },
        "gradient": {"jit, vmap, grad": form(jax.vmap(gradient), x, X, y, tasks=case.tasks)},
    }


def curvature_of(model: Model, phi: Any, lam: Any, X: Any, y: Any, *, linearized: bool) -> Callable[[Any], Any]:
    """Return v ↦ H v + λ v at φ, of one task."""
    gradient = partial(jax.grad(partial(loss_of, model)), X=X, y=y)
    if linearized:
        _, product = jax.linearize(gradient, phi)
    else:

        def product(v: Any) -> Any:
            return jax.jvp(gradient, (phi,), (v,))[1]

    return lambda v: product(v) + lam * v


def conjugate_gradient(apply: Callable[[Any], Any], b: Any, steps: int) -> tuple[Any, Any]:
    """Return the last iterate and all of them, 1 to `steps`."""

    def step(state: Any, _: None) -> tuple[Any, Any]:
        x, r, p, rs = state
        Ap = apply(p)
        alpha = rs / jnp.vdot(p, Ap)
        x, r = x + alpha * p, r - alpha * Ap
        new = jnp.vdot(r, r)
        return (x, r, r + new / rs * p, new), x

    (x, *_), path = jax.lax.scan(step, (jnp.zeros_like(b), b, b, jnp.vdot(b, b)), None, length=steps)
    return x, path


def _scanned(apply: Callable[[Any], Any], b: Any, steps: int) -> Any:
    # Without the path among the outputs of the scan it is not stored.
    return conjugate_gradient(apply, b, steps)[0]


def _supplied(apply: Callable[[Any], Any], b: Any, steps: int) -> Any:
    return jax.scipy.sparse.linalg.cg(apply, b, tol=0.0, maxiter=steps)[0]


def meta_gradient(case: MetaCase, data: Data) -> Forms:
    """λ q with (H + λI) q = ∇L_test(φ), by a scanned CG and by JAX's own."""
    if not splits(case.tasks):
        return {}
    arrays = on_devices(*(data[name] for name in ("phi", "X", "y", "X_test", "y_test")))
    forms = {}
    for solver, name in ((_scanned, "scan CG"), (_supplied, "jax.scipy CG")):
        for linearized, how in ((True, "linearize"), (False, "jvp of grad")):

            def one(
                phi: Any,
                X: Any,
                y: Any,
                X_test: Any,
                y_test: Any,
                solver: Any = solver,
                linearized: bool = linearized,
            ) -> Any:
                b = jax.grad(partial(loss_of, case.model))(phi, X_test, y_test)
                apply = curvature_of(case.model, phi, case.lam, X, y, linearized=linearized)
                return case.lam * solver(apply, b, case.cg_steps)

            forms[f"jit, vmap, {name}, {how}"] = form(jax.vmap(one), *arrays, tasks=case.tasks)
    return {"meta-gradient": forms}


def sweep(case: SweepCase, data: Data) -> Forms:
    """The canonical sweep as one jitted function, with either of three reverse passes."""
    if not splits(case.tasks):
        return {}
    samples = on_devices(*(data[name] for name in ("X", "y", "X_test", "y_test")))
    theta, lams = jnp.asarray(data["theta"]), jnp.asarray(data["lam"][:, 0])
    forms = {}
    reverses = (
        ("shared adjoint", _shared_adjoint),
        ("masked adjoint", _masked_adjoint),
        ("vjp of scan", _vjp_of_scan),
    )
    for name, unrolled in reverses:
        one = partial(_sweep_one, case, data["step_size"], unrolled, theta)
        tasks_then_lams = jax.vmap(jax.vmap(one, in_axes=(0, None, None, None, None)), in_axes=(None, 0, 0, 0, 0))
        forms[f"jit, vmap, scan, {name}"] = form(
            tasks_then_lams, lams, *samples, tasks=case.tasks, host=_in_library_layout
        )
    return {"sweep": forms}


def _sweep_one(
    case: SweepCase, alpha: float, unrolled: Any, theta: Any, lam: Any, X: Any, y: Any, X_test: Any, y_test: Any
) -> tuple[Any, Any, Any]:
    """One task and one λ: inner iterates, implicit gradients and unrolled gradients at every step count."""
    model = case.model
    gradient = partial(jax.grad(partial(loss_of, model)), X=X, y=y)
    test_gradient = partial(jax.grad(partial(loss_of, model)), X=X_test, y=y_test)

    def descend(phi: Any, _: None) -> tuple[Any, Any]:
        return phi - alpha * (gradient(phi) + lam * (phi - theta)), phi

    last, path = jax.lax.scan(descend, theta, None, length=case.last)
    points = jnp.concatenate([path[jnp.array(case.inner_steps[:-1])], last[None]])
    cotangents = jax.vmap(test_gradient)(points)

    def implicit(phi: Any, b: Any) -> Any:
        apply = curvature_of(model, phi, lam, X, y, linearized=True)
        return lam * conjugate_gradient(apply, b, case.cg_steps)[1]

    return (
        points,
        jax.vmap(implicit)(points, cotangents),
        unrolled(case, alpha, lam, theta, gradient, path, cotangents),
    )


def _shared_adjoint(
    case: SweepCase, alpha: float, lam: Any, theta: Any, gradient: Any, path: Any, cotangents: Any
) -> Any:
    """All end points in one reverse pass, each joining at its own step: the algorithm of this library."""

    def back(state: Any, phi: Any) -> tuple[Any, None]:
        v, g = state
        _, product = jax.linearize(gradient, phi)
        return (v - alpha * (jax.vmap(product)(v) + lam * v), g + alpha * lam * v), None

    v, g = jnp.zeros((0, theta.size)), jnp.zeros((0, theta.size))
    ends = case.inner_steps
    for i in range(len(ends) - 1, 0, -1):
        v = jnp.concatenate([cotangents[i][None], v])
        g = jnp.concatenate([jnp.zeros((1, theta.size)), g])
        (v, g), _ = jax.lax.scan(back, (v, g), path[ends[i - 1] : ends[i]], reverse=True)
    return jnp.concatenate([cotangents[:1], v + g])


def _masked_adjoint(
    case: SweepCase, alpha: float, lam: Any, theta: Any, gradient: Any, path: Any, cotangents: Any
) -> Any:
    """The same in one scan: more products, on zeros until an end point joins, but less to compile."""
    ends = jnp.array(case.inner_steps)[:, None]

    def back(state: Any, at: Any) -> tuple[Any, None]:
        (v, g), (phi, k) = state, at
        v = jnp.where(ends == k + 1, cotangents, v)
        _, product = jax.linearize(gradient, phi)
        return (v - alpha * (jax.vmap(product)(v) + lam * v), g + alpha * lam * v), None

    nothing = jnp.zeros_like(cotangents)
    (v, g), _ = jax.lax.scan(back, (nothing, nothing), (path, jnp.arange(case.last)), reverse=True)
    return jnp.where(ends == 0, cotangents, v + g)


def _vjp_of_scan(
    case: SweepCase, alpha: float, lam: Any, theta: Any, gradient: Any, path: Any, cotangents: Any
) -> Any:
    """Reverse mode through the scan, once for each end point."""
    found = []
    for steps, cotangent in zip(case.inner_steps, cotangents, strict=True):

        def run(start: Any, steps: int = steps) -> Any:
            def descend(phi: Any, _: None) -> tuple[Any, None]:
                return phi - alpha * (gradient(phi) + lam * (phi - start)), None

            return jax.lax.scan(descend, start, None, length=steps)[0]

        found.append(jax.vjp(run, theta)[1](cotangent)[0])
    return jnp.stack(found)


def _in_library_layout(result: tuple[Any, Any, Any]) -> dict[str, Any]:
    """(tasks, λ, steps, ..., d) → (..., steps, λ, tasks, d)."""
    points, implicit, unrolled = result
    return {
        "inner": points.transpose(2, 1, 0, 3),
        "implicit": implicit.transpose(3, 2, 1, 0, 4),
        "unrolled": unrolled.transpose(2, 1, 0, 3),
    }


def memory(case: MetaCase, data: Data, inner_steps: tuple[int, ...]) -> dict[str, dict[int, int]]:
    """Bytes of temporaries and results in XLA's own buffer assignment, K inner steps included."""
    names = ("X", "y", "X_test", "y_test")
    samples = [jnp.asarray(data[name]) for name in names]
    theta = jnp.asarray(data["theta"])
    peaks: dict[str, dict[int, int]] = {}
    for label, estimator in ((f"JAX implicit, CG-{case.cg_steps}", _implicit), ("JAX unrolled", _unrolled)):
        peaks[label] = {}
        for steps in inner_steps:
            one = partial(estimator, case, data["step_size"], steps, theta)
            report = jax.jit(jax.vmap(one)).lower(*samples).compile().memory_analysis()
            peaks[label][steps] = int(report.temp_size_in_bytes + report.output_size_in_bytes)
    return peaks


def _run(case: MetaCase, alpha: float, steps: int, X: Any, y: Any, theta: Any) -> Any:
    gradient = partial(jax.grad(partial(loss_of, case.model)), X=X, y=y)

    def descend(phi: Any, _: None) -> tuple[Any, None]:
        return phi - alpha * (gradient(phi) + case.lam * (phi - theta)), None

    return jax.lax.scan(descend, theta, None, length=steps)[0]


def _implicit(case: MetaCase, alpha: float, steps: int, theta: Any, X: Any, y: Any, X_test: Any, y_test: Any) -> Any:
    phi = _run(case, alpha, steps, X, y, theta)
    b = jax.grad(partial(loss_of, case.model))(phi, X_test, y_test)
    apply = curvature_of(case.model, phi, case.lam, X, y, linearized=True)
    return case.lam * _scanned(apply, b, case.cg_steps)


def _unrolled(case: MetaCase, alpha: float, steps: int, theta: Any, X: Any, y: Any, X_test: Any, y_test: Any) -> Any:
    def outer(theta: Any) -> Any:
        return loss_of(case.model, _run(case, alpha, steps, X, y, theta), X_test, y_test)

    return jax.grad(outer)(theta)
