"""A strict stand-in for CuPy on NumPy: arrays that live on a device which happens to be this machine.

It refuses what CuPy refuses and keeps count of what CuPy would make wait. Every rule was read in the source of
CuPy 14.2; `test_device_cupy.py` holds its tables against an installed CuPy.

- no `__array__`: implicit conversion raises; `get()`, `float`, `int`, `bool`, `item`, `tolist` are reads (each waits
  for the device) and are counted, as are boolean-mask indexing and `nonzero`;
- NumPy arrays never meet device arrays: `TypeError: Unsupported type`; NumPy and Python scalars do;
- NumPy arrays get in through `asarray` and `array` only, counted as uploads; so are lists and host index arrays;
- reductions and single elements are arrays of no axes that stay on the device;
- `__array_ufunc__` and `__array_function__` look a function up by name, and only what CuPy has is there;
- `None` is no memory order, and CuPy's functions take CuPy's arguments;
- `linalg` says nothing about failures.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.linalg
import scipy.special
from device_tables import ARGUMENTS, NOT_IN_CUPY, NOT_IN_CUPY_LINALG

from implicit_grad.backend import Backend, register


class Traffic:
    """Transfers between host and device since the last `reset`."""

    reads = 0
    uploads = 0

    @classmethod
    def reset(cls) -> None:
        cls.reads = cls.uploads = 0


_SCALARS = (bool, int, float, complex, np.bool_, np.number)
_COMPARISONS = frozenset(["greater", "greater_equal", "less", "less_equal", "equal", "not_equal"])


def _inside(value: Any) -> Any:
    """The NumPy side of arguments, or CuPy's refusal."""
    if isinstance(value, DeviceArray):
        return value._host
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}")
    if isinstance(value, list | tuple):
        return type(value)(_inside(each) for each in value)
    return value


def _outside(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return DeviceArray(np.asarray(value))
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(_outside, value))
    return type(value)(map(_outside, value)) if isinstance(value, list | tuple) else value


def _index(index: Any) -> Any:
    """NumPy's index; host arrays and lists are sent, boolean masks are read."""
    if isinstance(index, tuple):
        return tuple(map(_index, index))
    if isinstance(index, DeviceArray):
        if index.dtype == bool:
            Traffic.reads += 1
        return index._host
    if isinstance(index, np.ndarray | list):
        Traffic.uploads += 1
    return index


class DeviceArray:
    """An array of the double."""

    __array_priority__ = 100
    __slots__ = ("_host",)

    def __init__(self, host: np.ndarray[Any, Any]) -> None:
        self._host = host

    # The explicit way out, and the hidden ones.

    def get(self) -> np.ndarray[Any, Any]:
        Traffic.reads += 1
        return self._host.copy()

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct a NumPy array "
            "explicitly."
        )

    def item(self, *args: Any) -> Any:
        return self.get().item(*args)

    def tolist(self) -> Any:
        return self.get().tolist()

    def __float__(self) -> float:
        return float(self.get())

    def __int__(self) -> int:
        return int(self.get())

    def __index__(self) -> int:
        return self.get().__index__()

    def __bool__(self) -> bool:
        return bool(self.get())

    def __repr__(self) -> str:
        return f"DeviceArray({self.get()!r})"

    def __format__(self, spec: str) -> str:
        return format(self.get(), spec)

    __hash__ = None  # type: ignore[assignment]

    # What is known on the host.

    shape = property(lambda self: self._host.shape)
    ndim = property(lambda self: self._host.ndim)
    size = property(lambda self: self._host.size)
    dtype = property(lambda self: self._host.dtype)
    nbytes = property(lambda self: self._host.nbytes)
    T = property(lambda self: DeviceArray(self._host.T))
    mT = property(lambda self: DeviceArray(self._host.mT))  # noqa: N815 -- the array API's name

    def __len__(self) -> int:
        return len(self._host)

    def __iter__(self) -> Iterator[DeviceArray]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: Any) -> DeviceArray:
        return DeviceArray(np.asarray(self._host[_index(index)]))

    def __setitem__(self, index: Any, value: Any) -> None:
        self._host[_index(index)] = _inside(value)

    # NumPy's protocols, as CuPy answers them.

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        function = XP.__dict__.get(ufunc.__name__) or SPECIAL.get(ufunc.__name__)
        if function is None:
            return NotImplemented
        if method != "__call__":
            function = getattr(function, method, None)
            if function is None:
                return NotImplemented
        outputs = kwargs.get("out", ())
        for each in (*inputs, *outputs):
            if not isinstance(each, (DeviceArray, np.ndarray, *_SCALARS)):
                return NotImplemented
        if ufunc.__name__ in _COMPARISONS:
            inputs = tuple(x.item() if isinstance(x, np.ndarray) and x.ndim == 0 else x for x in inputs)
        if outputs:
            kwargs["out"] = outputs[0]
        return function(*inputs, **kwargs)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        space: Any = XP
        for part in func.__module__.split(".")[1:]:
            space = getattr(space, part, None)
        function = getattr(space, func.__name__, None)
        if function is None or not all(issubclass(t, DeviceArray | np.ndarray) for t in types):
            return NotImplemented
        return function(*args, **kwargs)

    def reshape(self, *shape: Any, order: Any = "C") -> DeviceArray:
        return XP.reshape(self, shape[0] if len(shape) == 1 else shape, order)

    def ravel(self, order: Any = "C") -> DeviceArray:
        return XP.ravel(self, order)

    def transpose(self, *axes: Any) -> DeviceArray:
        return DeviceArray(self._host.transpose(*axes))

    def astype(self, dtype: Any, copy: bool = True) -> DeviceArray:
        return DeviceArray(self._host.astype(dtype, copy=copy))

    def copy(self) -> DeviceArray:
        return DeviceArray(self._host.copy())

    def view(self, dtype: Any = None) -> DeviceArray:
        if isinstance(dtype, type) and issubclass(dtype, np.ndarray):
            # CuPy takes the class for a dtype and reads the bits as pointers. Nobody may want that.
            raise AssertionError("view(numpy.ndarray) of a device array is garbage in CuPy")
        return DeviceArray(self._host.view(dtype) if dtype is not None else self._host.view())


def _method(name: str) -> Any:
    return lambda self, *args, **kwargs: getattr(XP, name)(self, *args, **kwargs)


_METHODS = "all any argmax argmin clip cumsum diagonal dot max mean min prod repeat squeeze std sum swapaxes take"
for _name in _METHODS.split():
    setattr(DeviceArray, _name, _method(_name))


def _operator(ufunc: Any, *, swapped: bool = False, inplace: bool = False) -> Any:
    def operate(self: DeviceArray, other: Any = None) -> Any:
        if ufunc.nin == 1:
            return XP.__dict__[ufunc.__name__](self)
        # Whoever answers for ufuncs gets to see this one: so a traced value keeps its trace.
        if not isinstance(other, (DeviceArray, np.ndarray, *_SCALARS)):
            return NotImplemented
        function = XP.__dict__[ufunc.__name__]
        if inplace:
            return function(self, other, out=self)
        return function(other, self) if swapped else function(self, other)

    return operate


_BINARY = "add:add sub:subtract mul:multiply truediv:true_divide floordiv:floor_divide mod:remainder pow:power"
_MORE = "matmul:matmul and:bitwise_and or:bitwise_or xor:bitwise_xor"
_REST = (
    "neg:negative abs:absolute invert:invert lt:less le:less_equal gt:greater ge:greater_equal eq:equal ne:not_equal"
)
for _pair in f"{_BINARY} {_MORE}".split():
    _name, _ufunc = _pair.split(":")[0], getattr(np, _pair.split(":")[1])
    setattr(DeviceArray, f"__{_name}__", _operator(_ufunc))
    setattr(DeviceArray, f"__r{_name}__", _operator(_ufunc, swapped=True))
    setattr(DeviceArray, f"__i{_name}__", _operator(_ufunc, inplace=True))
for _pair in _REST.split():
    setattr(DeviceArray, f"__{_pair.split(':')[0]}__", _operator(getattr(np, _pair.split(":")[1])))


# The namespace.

XP: Any = types.ModuleType("device_double")
XP.linalg = types.ModuleType("device_double.linalg")
_READING = frozenset(["nonzero", "argwhere", "flatnonzero", "unique"])
_ON_THE_HOST = frozenset(["shape", "ndim", "size", "result_type", "iscomplexobj", "isdtype", "broadcast_shapes"])


_ARRAYS_FIRST = {
    "tensordot": 2,
    "transpose": 1,
    "reshape": 1,
    "sum": 1,
    "squeeze": 1,
    "moveaxis": 1,
    "broadcast_to": 1,
}
"""Functions whose further arguments are axes and shapes: these may well be host arrays."""
_SHAPES = ("axis", "axes", "shape")


class _Function:
    """A function of NumPy on device arrays, with CuPy's arguments."""

    def __init__(self, name: str, function: Any) -> None:
        self.name, self.function = name, function
        if isinstance(function, np.ufunc):
            self.nin = function.nin

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        known = ARGUMENTS.get(self.name, "").split()
        if known and (len(args) > len(known) or not set(kwargs) <= set(known)):
            raise TypeError(f"{self.name}() takes {known}, got {len(args)} arguments and {sorted(kwargs)}")
        if self.name in ("reshape", "ravel"):
            at = known.index("order")
            if (args[at] if len(args) > at else kwargs.get("order", "C")) is None:
                raise TypeError("object of type 'NoneType' has no len()")
            if self.name == "reshape" and "newshape" in kwargs:
                kwargs["shape"] = kwargs.pop("newshape")
        out = kwargs.pop("out", None)
        if self.name in _READING or (self.name == "where" and len(args) == 1):
            Traffic.reads += 1
        arrays = _ARRAYS_FIRST.get(self.name, len(args))
        given = [*map(_inside, args[:arrays]), *args[arrays:]]
        options = {key: value if key in _SHAPES else _inside(value) for key, value in kwargs.items()}
        if out is not None:
            options["out"] = _inside(out)
        result = self.function(*given, **options)
        if self.name in _ON_THE_HOST:
            return result
        return out if out is not None else _outside(result)

    def at(self, a: DeviceArray, index: Any, *rest: Any) -> None:
        self.function.at(a._host, _index(index), *map(_inside, rest))


def _fill(space: Any, source: Any, missing: frozenset[str]) -> None:
    for name in dir(source):
        if name.startswith("_") or name in missing or isinstance(getattr(source, name), types.ModuleType):
            continue
        value = getattr(source, name)
        constant = isinstance(value, type) or not callable(value)
        setattr(space, name, value if constant else _Function(name, value))


_fill(XP, np, NOT_IN_CUPY)
_SPECIAL_NAMES = ("erf", "expit", "gammaln", "digamma", "psi", "polygamma")
SPECIAL = {name: _Function(name, getattr(scipy.special, name)) for name in _SPECIAL_NAMES}
"""Ufuncs of SciPy that CuPy answers for."""
_fill(XP.linalg, np.linalg, NOT_IN_CUPY_LINALG)


def _enter(value: Any, dtype: Any = None, order: Any = None, *, copy: Any = None, **options: Any) -> DeviceArray:
    if isinstance(value, DeviceArray):
        host = value._host
    else:
        flat = list(value) if isinstance(value, list | tuple) else []
        if any(isinstance(each, DeviceArray) for each in flat):
            host = np.stack([_inside(each) for each in flat])
        else:
            Traffic.uploads += 1
            host, copy = np.asarray(value), True
    host = host.astype(dtype, copy=False) if dtype is not None else host
    return DeviceArray(np.array(host, copy=True, **options) if copy else host)


XP.asarray = _enter
XP.array = lambda obj, dtype=None, copy=True, order="K", ndmin=0: _enter(obj, dtype, copy=copy, ndmin=ndmin)
_GARBAGE = 7.0


def _quiet(function: Any) -> Any:
    """What CuPy does by default: garbage where there is no answer, matrix by matrix, and not a word about it."""

    def one(*args: Any) -> Any:
        try:
            return function(*args)
        except np.linalg.LinAlgError:
            return np.full_like(args[-1], _GARBAGE)

    def call(a: DeviceArray, *args: Any) -> Any:
        whole = (a._host, *map(_inside, args))
        try:
            return _outside(function(*whole))
        except np.linalg.LinAlgError:
            flat = [each.reshape(-1, *each.shape[-2:]) for each in whole]
            return _outside(np.stack([one(*parts) for parts in zip(*flat, strict=True)]).reshape(whole[-1].shape))

    return call


def _solve(a: Any, b: Any) -> Any:
    if a.shape[:-2] != b.shape[: a.ndim - 2]:
        raise ValueError("a and b must have the same batch shape")
    return np.linalg.solve(a, b)


for _name, _call in {"cholesky": np.linalg.cholesky, "inv": np.linalg.inv, "solve": _solve}.items():
    setattr(XP.linalg, _name, _quiet(_call))


def _solve_triangular(L: DeviceArray, b: DeviceArray, transposed: bool) -> DeviceArray:
    if L.shape[:-2] != b.shape[:-1]:
        raise ValueError("incompatible batch count")
    factors, sides = L._host.reshape(-1, *L.shape[-2:]), b._host.reshape(-1, b.shape[-1])
    trans = "T" if transposed else "N"
    rows = [
        scipy.linalg.solve_triangular(f, r, trans=trans, lower=True, check_finite=False)
        for f, r in zip(factors, sides, strict=True)
    ]
    return DeviceArray(np.stack(rows).reshape(b.shape))


DOUBLE = register(
    Backend(
        "device_double",
        XP,
        DeviceArray,
        _enter,
        DeviceArray.get,
        lambda: None,
        XP.linalg.cholesky,
        _solve_triangular,
    )
)
"""The double as a registered backend: `get_backend("device_double")`."""
