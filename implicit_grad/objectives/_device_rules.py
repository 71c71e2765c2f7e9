"""Derivative rules for device arrays, where autograd's own make host arrays.

Nothing happens before the first device array is differentiated. From then on a rule looks at the type of its value:
for host arrays it is autograd's own, untouched. Rules are set through `autograd.extend`; for the one exception see
`_device_space`. A function without a rule that was proven on device arrays is refused by name.
"""

from __future__ import annotations

from typing import Any

import autograd.numpy as anp
import autograd.scipy.special  # noqa: F401 -- makes its primitives known
import numpy as np
import scipy.special
from autograd.core import primitive_jvps, primitive_vjps
from autograd.extend import VSpace, defjvp_argnums, defvjp_argnums
from autograd.numpy import numpy_wrapper
from autograd.numpy.numpy_boxes import ArrayBox
from autograd.numpy.numpy_vjps import unbroadcast, unbroadcast_f
from autograd.tracer import getval, trace_primitives_map
from autograd.util import func

from implicit_grad.errors import LossError
from implicit_grad.objectives._device_space import BUILDERS, NAMESPACES, DeviceSpace, expand, on_device, put

PROVEN = {
    np: """
    add subtract multiply divide maximum minimum fmax fmin logaddexp logaddexp2 arctan2 hypot
    negative abs fabs reciprocal exp exp2 expm1 log log2 log10 log1p sin cos tan arcsin arccos arctan
    sinh cosh tanh arcsinh arccosh arctanh square sqrt clip conj real astype
    matmul tensordot outer inner transpose swapaxes moveaxis expand_dims squeeze broadcast_to
    cumsum repeat tile diff roll triu tril flipud fliplr split diag
    atleast_1d atleast_2d
    """,
    np.linalg: "norm solve inv det slogdet",
    scipy.special: "expit erf",
}
"""Functions whose own rules in autograd are right on device arrays: tested one by one, to second order."""


def install(kind: type, xp: Any) -> None:
    """Let autograd differentiate arrays of a type; does nothing if it already does."""
    if kind in NAMESPACES:
        return
    first = not NAMESPACES
    NAMESPACES[kind] = xp
    ArrayBox.register(kind)
    VSpace.register(kind, DeviceSpace)
    if first:
        _refuse_the_unproven()
        for function, rule in RULES.items():
            _choose_by_type(function, rule)
        for function, rule in TANGENTS.items():
            _choose_tangent_by_type(function, rule)
        for name, join in BUILDERS.items():
            setattr(numpy_wrapper, name, join(getattr(numpy_wrapper, name)))


def _kept(shape: tuple[int, ...], axis: Any) -> tuple[int, ...]:
    """Shape after a reduction with `keepdims`."""
    axes = range(len(shape)) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    dropped = {a % len(shape) for a in axes} if shape else set()
    return tuple(1 if i in dropped else n for i, n in enumerate(shape))


def _spread(g: Any, shape: tuple[int, ...], axis: Any) -> Any:
    return expand(anp.reshape(g, _kept(shape, axis)), shape)


def _count(shape: tuple[int, ...], axis: Any) -> int:
    return int(np.prod(shape)) // max(1, int(np.prod(_kept(shape, axis))))


# Rules: (ans, *args, **kwargs) → g ↦ cotangent, one for each argument.


def _sum(ans: Any, x: Any, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Any:
    shape = anp.shape(x)
    return lambda g: _spread(g, shape, axis)


def _mean(ans: Any, x: Any, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Any:
    shape = anp.shape(x)
    return lambda g: _spread(g, shape, axis) / _count(shape, axis)


def _prod(ans: Any, x: Any, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Any:
    shape = anp.shape(x)
    return lambda g: _spread(g * ans, shape, axis) / x


def _var(ans: Any, x: Any, axis: Any = None, dtype: Any = None, ddof: int = 0, keepdims: bool = False) -> Any:
    shape = anp.shape(x)
    free = _count(shape, axis) - ddof

    def vjp(g: Any) -> Any:
        return 2.0 / free * _spread(g, shape, axis) * (x - anp.mean(x, axis=axis, keepdims=True))

    return vjp


def _std(ans: Any, x: Any, axis: Any = None, dtype: Any = None, ddof: int = 0, keepdims: bool = False) -> Any:
    if _count(anp.shape(x), axis) <= 1:  # one number does not spread
        return lambda g: 0.0 * _spread(g, anp.shape(x), axis)
    of_variance = _var(ans, x, axis, dtype, ddof, keepdims)
    return lambda g: of_variance(0.5 * g / ans)


def _extreme(ans: Any, x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    shape, raw = anp.shape(x), getval(x)
    # Where the extreme is taken is constant; equal entries share the cotangent.
    chosen = (raw == getval(ans).reshape(_kept(shape, axis))).astype(raw.dtype)
    share = chosen / chosen.sum(axis=axis, keepdims=True)
    return lambda g: _spread(g, shape, axis) * share


def _reshape(ans: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
    shape, order = anp.shape(x), kwargs.get("order") or (args[-1] if args and isinstance(args[-1], str) else "C")
    if order != "C":
        raise LossError(f"f: `reshape` in order {order!r} has no derivative rule on device arrays; use order 'C'")
    return lambda g: anp.reshape(g, shape)


def _getitem(ans: Any, x: Any, index: Any) -> Any:
    shape, dtype = anp.shape(x), getval(x).dtype
    return lambda g: put(g, index, shape, dtype)


def _where_first(ans: Any, c: Any, x: Any, y: Any) -> Any:
    return unbroadcast_f(x, lambda g: anp.where(c, g, anp.zeros_like(g)))


def _where_second(ans: Any, c: Any, x: Any, y: Any) -> Any:
    return unbroadcast_f(y, lambda g: anp.where(c, anp.zeros_like(g), g))


def _power_base(ans: Any, x: Any, y: Any) -> Any:
    # autograd makes a host array of an exponent that is a NumPy scalar.
    lower = anp.where(y, y - 1, anp.ones_like(y)) if on_device(y) else (float(y) - 1 if y else 1.0)
    return unbroadcast_f(x, lambda g: g * y * x**lower)


def _dot_first(ans: Any, A: Any, B: Any) -> Any:
    a, b = anp.ndim(A), anp.ndim(B)
    if a == 0 or b == 0:
        return unbroadcast_f(A, lambda g: g * B)
    if b == 1:
        return lambda g: anp.tensordot(g, B, 0)
    return lambda g: anp.tensordot(g, anp.swapaxes(B, -1, -2), b - 1)


def _dot_second(ans: Any, A: Any, B: Any) -> Any:
    a, b = anp.ndim(A), anp.ndim(B)
    if a == 0 or b == 0:
        return unbroadcast_f(B, lambda g: g * A)
    rows = list(range(a - 1))

    def vjp(g: Any) -> Any:
        product = anp.tensordot(A, g, [rows, rows])
        return product if b == 1 else anp.moveaxis(product, 0, -2)

    return vjp


def _einsum(argnum: int, ans: Any, operands: tuple[Any, ...], kwargs: Any) -> Any:
    if not isinstance(operands[0], str):
        raise LossError("f: `einsum` of index lists has no derivative rule on device arrays; write 'ij,jk->ik'")
    arrays, shape = operands[1:], anp.shape(operands[argnum])
    # Subscripts are about shapes: stand-ins without content spare the parser the sight of device arrays.
    inputs, output, _ = anp.parse_einsum_input(operands[0], *(np.broadcast_to(0.0, anp.shape(a)) for a in arrays))
    names = inputs.split(",")
    own = names.pop(argnum - 1)
    others = arrays[: argnum - 1] + arrays[argnum:]
    if len(set(own)) < len(own):
        raise LossError("f: `einsum` with a repeated index has no derivative rule on device arrays")
    kept = "".join(name for name in own if name in "".join([output, *names]))
    meta = anp.metadata(operands[argnum])

    def vjp(g: Any) -> Any:
        same = not names and output == kept
        product = g if same else anp.einsum(f"{','.join([output, *names])}->{kept}", g, *others)
        if len(kept) < len(own):  # an index that stood alone was summed out
            sizes = dict(zip(kept, anp.shape(product), strict=True))
            product = anp.reshape(product, tuple(sizes.get(name, 1) for name in own))
            product = expand(product, tuple(sizes.get(name, n) for name, n in zip(own, shape, strict=True)))
        return unbroadcast(product, meta)

    return vjp


RULES: dict[Any, Any] = {
    func(ArrayBox.__getitem__): (_getitem,),
    trace_primitives_map[np.where]: (None, _where_first, _where_second),
    trace_primitives_map[np.power]: (_power_base, None),
    trace_primitives_map[np.dot]: (_dot_first, _dot_second),
    trace_primitives_map[np.einsum]: _einsum,
    **{
        trace_primitives_map[function]: (rule,)
        for function, rule in {
            np.sum: _sum,
            np.mean: _mean,
            np.prod: _prod,
            np.var: _var,
            np.std: _std,
            np.max: _extreme,
            np.min: _extreme,
            np.amax: _extreme,
            np.amin: _extreme,
            np.reshape: _reshape,
            np.ravel: _reshape,
        }.items()
    },
}
"""autograd's function → our rules by argument, for values on a device; None where autograd's own will do."""


def _where_tangent(g: Any, ans: Any, c: Any, chosen: bool) -> Any:
    nothing = anp.zeros_like(ans)
    return anp.where(c, g, nothing) if chosen else anp.where(c, nothing, g)


TANGENTS: dict[Any, Any] = {
    trace_primitives_map[np.where]: {
        1: lambda g, ans, c, x=None, y=None: _where_tangent(g, ans, c, True),
        2: lambda g, ans, c, x=None, y=None: _where_tangent(g, ans, c, False),
    }
}
"""Forward rules that make host arrays in autograd."""


def _choose_by_type(function: Any, rule: Any) -> None:
    """Give values on a device our rule, and all others autograd's."""
    own = primitive_vjps[function]

    def vjps(argnums: tuple[int, ...], ans: Any, args: Any, kwargs: Any) -> Any:
        if not on_device(ans):
            return own(argnums, ans, args, kwargs)
        each = [_one(n, rule, own, ans, args, kwargs) for n in argnums]
        return lambda g: tuple(vjp(g) for vjp in each)

    defvjp_argnums(function, vjps)


def _one(n: int, rule: Any, own: Any, ans: Any, args: Any, kwargs: Any) -> Any:
    if callable(rule):
        return rule(n, ans, args, kwargs)
    if rule[n] is None:
        vjp = own((n,), ans, args, kwargs)
        return lambda g: next(iter(vjp(g)))
    return rule[n](ans, *args, **kwargs)


def _choose_tangent_by_type(function: Any, rule: Any) -> None:
    own = primitive_jvps[function]

    def jvp(argnums: tuple[int, ...], gs: Any, ans: Any, args: Any, kwargs: Any) -> Any:
        if not on_device(ans):
            return own(argnums, gs, ans, args, kwargs)
        parts = [rule[n](g, ans, *args, **kwargs) for n, g in zip(argnums, gs, strict=True)]
        return parts[0] if len(parts) == 1 else parts[0] + parts[1]

    defjvp_argnums(function, jvp)


def _refuse_the_unproven() -> None:
    """Make every other rule of autograd for NumPy and SciPy name its function when it meets a device array."""
    proven = {trace_primitives_map[getattr(space, name)] for space, names in PROVEN.items() for name in names.split()}
    for function, own in list(primitive_vjps.items()):
        raw = getattr(function, "fun", None)
        room = str(getattr(raw, "__module__", "")).partition(".")[0]
        numpy_own = isinstance(raw, np.ufunc) or room in ("numpy", "scipy")
        if numpy_own and function not in proven and function not in RULES:
            defvjp_argnums(function, _refusal(str(getattr(raw, "__name__", raw)), own))


def _refusal(name: str, own: Any) -> Any:
    def vjps(argnums: tuple[int, ...], ans: Any, args: Any, kwargs: Any) -> Any:
        if any(map(on_device, args)):
            raise LossError(f"f: `{name}` has no derivative rule on device arrays")
        return own(argnums, ans, args, kwargs)

    return vjps
