"""One spelling for equal settings: what a cell's key is the hash of."""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import json
import sys
from collections.abc import Mapping
from operator import attrgetter
from pathlib import PurePath
from typing import Any

import numpy as np

from implicit_grad.errors import ArgumentTypeError


def canonical(value: Any, name: str = "config") -> str:
    """Return JSON text that is equal for equal values, and different for different ones.

    Types count: 1, 1.0, True, `numpy.float32(1)` and `(1,)` are five values. Floats are written in base 16, so that
    no bit is lost; arrays are named by the hash of their bytes; a dataclass by its class and all its fields; an
    enumeration member, function or class by where it is defined.

    Raises
    ------
    ArgumentTypeError
        For anything that is not a plain value, naming the place: a generator, an open file, a lambda.
    """
    return json.dumps(plain(value, name), sort_keys=True, separators=(",", ":"), allow_nan=False)


def plain(value: Any, name: str = "config") -> Any:
    """Return the JSON structure behind `canonical`."""
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return {"float": value.hex()}
    if type(value) is complex:
        return {"complex": [value.real.hex(), value.imag.hex()]}
    if isinstance(value, np.ndarray | np.generic):
        return _array(np.asarray(value), name, scalar=isinstance(value, np.generic))
    if type(value) is list:
        return [plain(each, f"{name}[{i}]") for i, each in enumerate(value)]
    if type(value) in (tuple, range):
        return {type(value).__name__: [plain(each, f"{name}[{i}]") for i, each in enumerate(value)]}
    if isinstance(value, Mapping):
        return {"mapping": _fields(value, name)}
    if isinstance(value, bytes):
        return {"bytes": hashlib.sha256(value).hexdigest()}
    return _object(value, name)


def modules_of(value: Any) -> set[str]:
    """Names of the modules in which the classes and functions inside a plain value are defined."""
    if isinstance(value, Mapping):
        return set().union(*map(modules_of, value.values()))
    if isinstance(value, list | tuple):
        return set().union(*map(modules_of, value))
    if isinstance(value, enum.Enum):
        return {type(value).__module__}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        inside = (getattr(value, field.name) for field in dataclasses.fields(value))
        return {type(value).__module__}.union(*map(modules_of, inside))
    if callable(value):
        return {str(value.__module__)}
    return set()


def qualified_name(value: Any, name: str) -> str:
    """Return `module:name` of a function or class that can be found there.

    Raises
    ------
    ArgumentTypeError
        For a lambda, a function defined inside another, a bound method, or a callable without a name.
    """
    module, where = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    try:
        # A bound method has the name of its function, but not its state: only what the name gives back counts.
        found = attrgetter(str(where))(sys.modules[str(module)])
    except (KeyError, AttributeError):
        found = None
    if found is not value:
        raise ArgumentTypeError(f"{name}: expected a function or class at the top level of a module, got {value!r}")
    return f"{module}:{where}"


def _object(value: Any, name: str) -> Any:
    if isinstance(value, enum.Enum):
        return {"member": f"{qualified_name(type(value), name)}.{value.name}"}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        inside = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return {"class": qualified_name(type(value), name), "fields": _fields(inside, name)}
    if isinstance(value, PurePath):
        return {"path": value.as_posix()}
    if callable(value):
        return {"name": qualified_name(value, name)}
    raise ArgumentTypeError(
        f"{name}: expected plain values (numbers, text, tuples, arrays, frozen dataclasses), got {type(value)!r}"
    )


def _fields(value: Mapping[Any, Any], name: str) -> dict[str, Any]:
    for key in value:
        if type(key) is not str:
            raise ArgumentTypeError(f"{name}: keys must be text, got {key!r}")
    return {key: plain(each, f"{name}.{key}") for key, each in value.items()}


def _array(value: np.ndarray[Any, Any], name: str, *, scalar: bool) -> Any:
    if value.dtype.hasobject:
        raise ArgumentTypeError(f"{name}: an object array has no content to hash; use numbers or text")
    digest = hashlib.sha256(value.tobytes()).hexdigest()  # row-major, whatever the layout
    kind = np.lib.format.dtype_to_descr(value.dtype)
    return {"scalar" if scalar else "array": digest, "dtype": repr(kind), "shape": list(value.shape)}
