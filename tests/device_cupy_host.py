"""Real `cupy.ndarray` objects over host memory: CuPy's own dispatch, names, signatures and views, without a GPU.

`HostCupy` is a subclass whose memory is that of a NumPy array. What CuPy decides in Python and Cython stays CuPy's:
`__array_ufunc__`, `__array_function__`, reshape, transpose, broadcasting, basic indexing, attributes. What would
launch a kernel is computed by NumPy instead, after CuPy's own signature has accepted the arguments. Proves nothing
about kernels, cuBLAS or cuSOLVER.
"""

from __future__ import annotations

import ctypes
import inspect
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import cupy
import numpy as np
import scipy.linalg
from cupy._core import syncdetect
from device_double import SPECIAL, Traffic

from implicit_grad import backend

_NAMES = "reshape transpose swapaxes moveaxis expand_dims squeeze broadcast_to ndim shape size"
_VIEWS = frozenset(_NAMES.split())
_ON_THE_HOST = frozenset(["result_type", "iscomplexobj", "isdtype", "can_cast", "finfo", "iinfo", "broadcast_shapes"])
_ENTRANCES = frozenset(["asarray", "array", "ascontiguousarray", "asnumpy"])


def wrap(value: Any) -> HostCupy:
    """Give a NumPy array's memory to a `cupy.ndarray`."""
    host = np.array(value, copy=True, order="C")
    memory = cupy.cuda.UnownedMemory(host.ctypes.data, max(host.nbytes, 1), host, 0)
    return HostCupy(host.shape, host.dtype, cupy.cuda.MemoryPointer(memory, 0))


def view(x: cupy.ndarray) -> np.ndarray[Any, Any]:
    """The same memory as a NumPy array."""
    spans = [(n - 1) * s for n, s in zip(x.shape, x.strides, strict=True)]
    low, high = sum(s for s in spans if s < 0), sum(s for s in spans if s > 0) + x.dtype.itemsize
    if x.size == 0:
        return np.empty(x.shape, x.dtype)
    buffer = (ctypes.c_char * (high - low)).from_address(x.data.ptr + low)
    return np.ndarray(x.shape, x.dtype, buffer, -low, x.strides)


def _inside(value: Any) -> Any:
    if isinstance(value, cupy.ndarray):
        return view(value)
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}")
    return type(value)(map(_inside, value)) if isinstance(value, list | tuple) else value


def _outside(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return wrap(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(_outside, value))
    return type(value)(map(_outside, value)) if isinstance(value, list | tuple) else value


class HostCupy(cupy.ndarray):
    """A `cupy.ndarray` over host memory."""

    def get(self, *args: Any, **kwargs: Any) -> np.ndarray[Any, Any]:
        syncdetect._declare_synchronize()
        Traffic.reads += 1
        return view(self).copy()

    def __float__(self) -> float:
        return float(self.get())

    def __int__(self) -> int:
        return int(self.get())

    def item(self, *args: Any) -> Any:
        return self.get().item(*args)

    def __bool__(self) -> bool:
        return bool(self.get())

    def __getitem__(self, index: Any) -> Any:
        parts = index if isinstance(index, tuple) else (index,)
        if all(p is None or p is Ellipsis or isinstance(p, int | np.integer | slice) for p in parts):
            return super().__getitem__(index)  # CuPy's own
        if any(isinstance(p, np.ndarray | list) for p in parts):
            Traffic.uploads += 1
        where = tuple(view(p) if isinstance(p, cupy.ndarray) else p for p in parts)
        return wrap(view(self)[where])

    def __setitem__(self, index: Any, value: Any) -> None:
        parts = index if isinstance(index, tuple) else (index,)
        view(self)[tuple(view(p) if isinstance(p, cupy.ndarray) else p for p in parts)] = _inside(value)

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def astype(self, dtype: Any, *args: Any, **kwargs: Any) -> Any:
        return wrap(view(self).astype(dtype))

    def copy(self, order: str = "C") -> Any:
        return wrap(view(self))

    def reshape(self, *shape: Any, **order: Any) -> Any:
        contiguous = self if self.flags.c_contiguous else self.copy()
        return cupy.ndarray.reshape(contiguous, *shape, **order)

    def ravel(self, order: str = "C") -> Any:
        return self.reshape(-1)


def _method(name: str) -> Any:
    return lambda self, *args, **kwargs: getattr(cupy, name)(self, *args, **kwargs)


for _name in ("all", "any", "sum", "max", "min", "mean", "prod", "var", "std", "cumsum", "dot", "clip", "argmax"):
    setattr(HostCupy, _name, _method(_name))


def _operator(ufunc: Any, *, swapped: bool = False, inplace: bool = False) -> Any:
    # NumPy's ufunc asks both sides, and so ends in CuPy's own `__array_ufunc__`, as CuPy's operators do in effect.
    def operate(self: Any, other: Any = None) -> Any:
        if ufunc.nin == 1:
            return ufunc(self)
        if inplace:
            return ufunc(self, other, out=self)
        return ufunc(other, self) if swapped else ufunc(self, other)

    return operate


_BINARY = "add:add sub:subtract mul:multiply truediv:true_divide pow:power matmul:matmul mod:remainder"
_LOGICAL = "and:bitwise_and or:bitwise_or"
_UNARY = "neg:negative abs:absolute invert:invert"
_COMPARING = "eq:equal ne:not_equal lt:less le:less_equal gt:greater ge:greater_equal"
for _pair in f"{_BINARY} {_LOGICAL}".split():
    _name, _ufunc = _pair.split(":")[0], getattr(np, _pair.split(":")[1])
    setattr(HostCupy, f"__{_name}__", _operator(_ufunc))
    setattr(HostCupy, f"__r{_name}__", _operator(_ufunc, swapped=True))
    setattr(HostCupy, f"__i{_name}__", _operator(_ufunc, inplace=True))
for _pair in f"{_UNARY} {_COMPARING}".split():
    _name, _ufunc = _pair.split(":")[0], getattr(np, _pair.split(":")[1])
    setattr(HostCupy, f"__{_name}__", _operator(_ufunc))


def _quiet(function: Any, a: Any, *args: Any, **kwargs: Any) -> Any:
    """The function's answer; in linear algebra garbage for a matrix that has none."""
    try:
        return function(a, *args, **kwargs)
    except np.linalg.LinAlgError:
        if a.ndim == 2:
            return np.full_like(a, 7.0)
        return np.stack([_quiet(function, matrix, *args, **kwargs) for matrix in a])


class Kernel:
    """A function of CuPy that computes by NumPy what CuPy's signature accepts; linear algebra never complains."""

    def __init__(self, name: str, original: Any, function: Any) -> None:
        self.name, self.original, self.function = name, original, function
        try:
            self.signature = inspect.signature(original)
        except (TypeError, ValueError):
            self.signature = None  # ufuncs
        self.__name__ = name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.signature is not None:
            bound = self.signature.bind(*args, **kwargs)
            if self.name in ("reshape", "ravel") and bound.arguments.get("order", "C") is None:
                raise TypeError("object of type 'NoneType' has no len()")
        if self.name in ("nonzero", "argwhere", "flatnonzero", "unique"):
            Traffic.reads += 1
        out = kwargs.pop("out", None)
        if out is not None:
            self.function(*map(_inside, args), out=view(out), **kwargs)
            return out
        axes = {"tensordot": 2, "transpose": 1}.get(self.name, len(args))
        given = [*map(_inside, args[:axes]), *args[axes:]]
        options = {key: _inside(value) for key, value in kwargs.items()}
        return _outside(_quiet(self.function, *given, **options))

    def at(self, a: Any, index: Any, value: Any) -> None:
        parts = index if isinstance(index, tuple) else (index,)
        where = tuple(view(p) if isinstance(p, cupy.ndarray) else p for p in parts)
        self.function.at(view(a), where, _inside(value))


def _enter(value: Any, dtype: Any = None, order: Any = None, *, copy: Any = None, blocking: bool = False) -> Any:
    if isinstance(value, cupy.ndarray):
        same = dtype is None or value.dtype == dtype
        return value if same and not copy else wrap(view(value).astype(dtype or value.dtype))
    Traffic.uploads += 1
    return wrap(np.asarray(value, dtype=dtype))


def _array(obj: Any, dtype: Any = None, copy: bool = True, order: str = "K", ndmin: int = 0, **_: Any) -> Any:
    entered = _enter(obj, dtype, copy=copy)
    return wrap(np.array(view(entered), ndmin=ndmin))


def _solve_triangular(L: Any, b: Any, transposed: bool) -> Any:
    factors, sides = view(L).reshape(-1, *L.shape[-2:]), view(b).reshape(-1, b.shape[-1])
    options = {"trans": "T" if transposed else "N", "lower": True, "check_finite": False}
    rows = [scipy.linalg.solve_triangular(f, s, **options) for f, s in zip(factors, sides, strict=True)]
    return wrap(np.stack(rows).reshape(b.shape))


def patch(monkeypatch: Any) -> Any:
    """Replace what launches kernels in `cupy`, and return the registered CuPy backend over host memory."""
    import cupyx.scipy.special

    for space, source in ((cupy, np), (cupy.linalg, np.linalg)):
        for name in dir(source):
            original, function = getattr(space, name, None), getattr(source, name)
            skipped = name in _VIEWS | _ON_THE_HOST | _ENTRANCES or name.startswith("_")
            if original is None or skipped or isinstance(function, type) or not callable(function):
                continue
            if original is not function:  # some are NumPy's own
                monkeypatch.setattr(space, name, Kernel(name, original, function))
    for name, kernel in SPECIAL.items():
        if hasattr(cupyx.scipy.special, name):
            original = getattr(cupyx.scipy.special, name)
            monkeypatch.setattr(cupyx.scipy.special, name, Kernel(name, original, kernel.function))
    monkeypatch.setattr(cupy, "asarray", _enter)
    monkeypatch.setattr(cupy, "array", _array)
    monkeypatch.setattr(cupy, "asnumpy", lambda x: x.get())
    monkeypatch.setattr(backend, "_REGISTERED", {k: v for k, v in backend._REGISTERED.items() if k != "cupy"})
    monkeypatch.setattr(backend, "_KINDS", {})
    return backend.register(replace(backend._cupy(), solve_triangular=_solve_triangular))
