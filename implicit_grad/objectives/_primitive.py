"""Roots and losses as autograd primitives, so that larger autograd programs can be differentiated through them.

The primitives are registered once, when this module is imported; what differs from call to call travels in an
argument that autograd does not look into.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import autograd.numpy as anp
import numpy as np
from autograd import make_vjp
from autograd.extend import defjvp, defvjp, defvjp_argnums, primitive
from autograd.misc import flatten
from autograd.tracer import isbox

from implicit_grad import border
from implicit_grad.backend import Array
from implicit_grad.errors import ArgumentTypeError
from implicit_grad.objectives.autodiff_map import INDEPENDENT

Traced = Any
"""A NumPy array, or autograd's box around one."""


@dataclass(frozen=True, eq=False)
class Root:
    """φ*(θ) with F(φ*, θ) = 0, on flat vectors.

    Attributes
    ----------
    F : callable
        `(phi, theta) → (d,)`, traceable.
    find : callable
        `theta → phi`, on plain arrays.
    solve : callable
        `(phi, theta, b, transposed) → x` with ∂_φF x = b, or (∂_φF)ᵀ x = b, on plain arrays.
    """

    F: Callable[[Traced, Traced], Traced]
    find: Callable[[Array], Array]
    solve: Callable[[Array, Array, Array, bool], Array]


@dataclass(frozen=True, eq=False)
class Loss:
    """A function of θ with a gradient that is computed, not traced.

    Attributes
    ----------
    value : callable
        `theta (..., d) → (...)`, on plain arrays.
    gradient : callable
        `theta → (..., d)`, one gradient a problem.
    """

    value: Callable[[Array], Array]
    gradient: Callable[[Array], Array]


root_of: Any = primitive(lambda theta, root: root.find(theta))
"""`(theta, root) → φ*(θ)`: `(p,) → (d,)`."""

_inverse: Any = primitive(lambda phi, theta, b, root, transposed: root.solve(phi, theta, b, transposed))
"""`(phi, theta, b, root, transposed) → x` with J x = b or Jᵀ x = b, J = ∂_φF(φ, θ)."""

loss_of: Any = primitive(lambda theta, loss: loss.value(theta))
"""`(theta, loss) → F(θ)`: `(..., d) → (...)`."""

_gradient_of: Any = primitive(lambda theta, loss: loss.gradient(theta))


def _pull(f: Callable[[Any], Any], x: Traced, u: Traced) -> Traced:
    """Return (∂f)ᵀ u at x."""
    with warnings.catch_warnings():
        # Derivatives of affine maps are constant: their own derivatives are zero, not mistakes.
        warnings.filterwarnings("ignore", "Output seems independent of input", UserWarning)
        return make_vjp(f)(x)[0](u)


def _push(f: Callable[[Any], Any], x: Traced, v: Traced, size: int) -> Traced:
    """Return ∂f v at x, for f with `size` values: the vjp of u ↦ (∂f)ᵀ u, which is linear."""
    return _pull(lambda u: _pull(f, x, u), anp.zeros(size), v)


def _theta_adjoint(root: Root, phi: Traced, theta: Traced, u: Traced) -> Traced:
    depends = False

    def traced(t: Traced) -> Traced:
        nonlocal depends
        value = root.F(phi, t)
        # Outer traces may box the value, too: only a box of this innermost one depends on t.
        depends |= isbox(value) and value._trace == t._trace
        return value

    result = _pull(traced, theta, u)
    if not depends:
        warnings.warn(INDEPENDENT, UserWarning, stacklevel=2)
    return result


def _size(x: Traced) -> int:
    return int(np.prod(anp.shape(x)))


def _root_vjp(phi: Traced, theta: Traced, root: Root) -> Any:
    return lambda u: -_theta_adjoint(root, phi, theta, _inverse(phi, theta, u, root, True))


def _root_jvp(w: Traced, phi: Traced, theta: Traced, root: Root) -> Any:
    Bw = _push(lambda t: root.F(phi, t), theta, w, _size(phi))
    return -_inverse(phi, theta, Bw, root, False)


def _form(root: Root, left: Traced, right: Traced) -> Callable[[Traced, Traced], Traced]:
    """(φ, θ) ↦ leftᵀ J(φ, θ) right."""
    return lambda p, t: anp.dot(_pull(lambda q: root.F(q, t), p, left), right)


def _inverse_vjp(argnums: tuple[int, ...], x: Traced, args: tuple[Any, ...], _: Any) -> Any:
    # J x = b: x̄ = u gives b̄ = w with Jᵀ w = u, and the change of J alone pulls by −wᵀ dJ x; transposed likewise.
    phi, theta, _, root, transposed = args

    def pull(u: Traced) -> tuple[Traced, ...]:
        w = _inverse(phi, theta, u, root, not transposed)
        form = _form(root, x, w) if transposed else _form(root, w, x)
        parts = {
            0: lambda: -_pull(lambda p: form(p, theta), phi, 1.0),
            1: lambda: -_pull(lambda t: form(phi, t), theta, 1.0),
            2: lambda: w,
        }
        return tuple(parts[i]() for i in argnums)

    return pull


def _jacobian_applied(root: Root, x: Traced, transposed: bool) -> Callable[[Traced, Traced], Traced]:
    """(φ, θ) ↦ J x or Jᵀ x."""
    if transposed:
        return lambda p, t: _pull(lambda q: root.F(q, t), p, x)
    return lambda p, t: _push(lambda q: root.F(q, t), p, x, _size(x))


def _inverse_jvp_phi(
    v: Traced, x: Traced, phi: Traced, theta: Traced, b: Traced, root: Root, transposed: bool
) -> Any:
    Jx = _jacobian_applied(root, x, transposed)
    return -_inverse(phi, theta, _push(lambda p: Jx(p, theta), phi, v, _size(x)), root, transposed)


def _inverse_jvp_theta(
    w: Traced, x: Traced, phi: Traced, theta: Traced, b: Traced, root: Root, transposed: bool
) -> Any:
    Jx = _jacobian_applied(root, x, transposed)
    return -_inverse(phi, theta, _push(lambda t: Jx(phi, t), theta, w, _size(x)), root, transposed)


def _inverse_jvp_b(v: Traced, x: Traced, phi: Traced, theta: Traced, b: Traced, root: Root, transposed: bool) -> Any:
    return _inverse(phi, theta, v, root, transposed)


defvjp(root_of, _root_vjp, argnums=(0,))
defjvp(root_of, _root_jvp, argnums=(0,))
defvjp_argnums(_inverse, _inverse_vjp)
defjvp(_inverse, _inverse_jvp_phi, _inverse_jvp_theta, _inverse_jvp_b, argnums=(0, 1, 2))


def _loss_vjp(value: Traced, theta: Traced, loss: Loss) -> Any:
    def pull(c: Traced) -> Traced:
        every = anp.expand_dims(c, -1) * _gradient_of(theta, loss)
        # Batch axes that θ does not have: it is shared by those problems, and their gradients add up.
        for _ in range(anp.ndim(every) - anp.ndim(theta)):
            every = anp.sum(every, axis=0)
        for axis, size in enumerate(anp.shape(theta)):
            if size == 1 and anp.shape(every)[axis] != 1:
                every = anp.sum(every, axis=axis, keepdims=True)
        return every

    return pull


def _refuse(*_: Any) -> Any:
    raise ArgumentTypeError(
        "second derivatives: an estimator gives first derivatives only; use implicit_function(solver, F), which can "
        "be differentiated to any order"
    )


defvjp(loss_of, _loss_vjp, argnums=(0,))
defjvp(loss_of, lambda w, value, theta, loss: anp.sum(_gradient_of(theta, loss) * w, axis=-1), argnums=(0,))
defvjp(_gradient_of, _refuse, argnums=(0,))
defjvp(_gradient_of, _refuse, argnums=(0,))


def vector_of(theta: Any) -> tuple[Traced, Callable[[Any], Any]]:
    """Flatten a number, an array or a tree of arrays, traced or not, and return the inverse.

    Raises
    ------
    ArgumentTypeError, NonFiniteError
        For leaves that are not real and finite.
    """
    return flatten(_checked(theta, "theta"))


def _checked(tree: Any, name: str) -> Any:
    if isinstance(tree, dict):
        return {key: _checked(leaf, f"{name}[{key!r}]") for key, leaf in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(_checked(leaf, f"{name}[{i}]") for i, leaf in enumerate(tree))
    return tree if isbox(tree) else border.finite(name, border.real_array(name, tree))


def reshape(x: Traced, shape: tuple[int, ...]) -> Traced:
    """Reshape a traced or plain array."""
    return anp.reshape(x, shape)
