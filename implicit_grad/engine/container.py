"""The file of a cell: an ordinary `.npz` without pickle, whose last bytes are its key and its checksum.

The checksum covers every other byte and stands in the comment that a zip archive may end with, so that NumPy and
`unzip` read the file too. Nothing in it depends on when, where or how often it was written: equal cells are equal
files.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from implicit_grad import storage
from implicit_grad.errors import ArgumentTypeError, CorruptData

KEY_DIGITS = 64
TRAILER = 2 * KEY_DIGITS
HEADER = "header.json"

Content = Any
"""What a cell returns: a mapping of names to arrays, or an `xarray.Dataset`."""


def pack(content: Content, key: str, identity: str = "{}") -> bytes:
    """Return the bytes of a cell's file.

    Raises
    ------
    ArgumentTypeError
        For object arrays, which NumPy would pickle, and for what is neither a mapping nor a data set.
    """
    arrays, layout = _take_apart(content)
    header = {"identity": json.loads(identity), "layout": layout}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        _member(archive, HEADER, json.dumps(header, sort_keys=True, allow_nan=False).encode())
        for i, name in enumerate(arrays):
            stream = io.BytesIO()
            np.lib.format.write_array(stream, _plain_array(arrays[name], name), allow_pickle=False)
            _member(archive, f"{i}.npy", stream.getvalue())
        archive.comment = b"0" * TRAILER
    body = buffer.getvalue()[:-TRAILER]
    return body + _trailer(body, key)


def check(data: bytes, key: str) -> str | None:
    """Say what is wrong with the bytes of a cell's file; None if nothing is."""
    if len(data) <= TRAILER:
        return f"truncated: {len(data)} bytes"
    view = memoryview(data)
    if bytes(view[-TRAILER:-KEY_DIGITS]) != key.encode():
        return "truncated, damaged, or the file of another cell"
    if bytes(view[-TRAILER:]) != _trailer(view[:-TRAILER], key):
        return "the checksum does not match the content"
    return None


def unpack(data: bytes, key: str) -> Content:
    """Return what `pack` was given; arrays come back bit by bit, with their dtypes.

    Raises
    ------
    CorruptData
        If a single bit is not what was written.
    """
    reason = check(data, key)
    if reason is not None:
        raise CorruptData(f"cell {key}: {reason}")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            layout = json.loads(archive.read(HEADER))["layout"]
            arrays = {
                name: np.lib.format.read_array(io.BytesIO(archive.read(f"{i}.npy")), allow_pickle=False)
                for i, name in enumerate(layout["arrays"])
            }
        return _put_together(arrays, layout)
    except (ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise CorruptData(f"cell {key}: written by something else, {error!r}") from error


def _member(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    # A ZipInfo made by hand carries no time and no permissions of the moment.
    archive.writestr(zipfile.ZipInfo(name), data)


def _trailer(body: bytes | memoryview, key: str) -> bytes:
    digest = hashlib.sha256(body)
    digest.update(key.encode())
    return (key + digest.hexdigest()).encode()


def _plain_array(value: Any, name: str) -> np.ndarray[Any, Any]:
    array = np.asarray(value)
    if array.dtype.hasobject:
        raise ArgumentTypeError(
            f"{name}: an object array would be stored as a pickle, and no pickle is ever loaded; return numbers, or "
            f"text of a fixed width"
        )
    return array


def _take_apart(content: Content) -> tuple[dict[str, Any], dict[str, Any]]:
    if isinstance(content, Mapping) and not hasattr(content, "data_vars"):
        for name in content:
            if not isinstance(name, str):
                raise ArgumentTypeError(f"result: names of arrays must be text, got {name!r}")
        return dict(content), {"arrays": list(content)}
    if not hasattr(content, "data_vars"):
        raise ArgumentTypeError(f"result: expected a mapping of arrays or an xarray.Dataset, got {type(content)!r}")
    variables = {str(name): content.variables[name] for name in (*content.data_vars, *content.coords)}
    layout = {
        "arrays": list(variables),
        "dims": {name: list(each.dims) for name, each in variables.items()},
        "coords": sorted(map(str, content.coords)),
        "variable_attrs": {name: _attributes(each.attrs) for name, each in variables.items() if each.attrs},
        "attrs": _attributes(content.attrs),
    }
    return {name: each.values for name, each in variables.items()}, layout


def _put_together(arrays: dict[str, Any], layout: dict[str, Any]) -> Content:
    if "dims" not in layout:
        return arrays
    xr = storage.xarray()
    attrs = layout["variable_attrs"]
    variables = {
        name: xr.Variable(layout["dims"][name], array, _restored(attrs.get(name, [])))
        for name, array in arrays.items()
    }
    coords = {name: variables.pop(name) for name in list(variables) if name in layout["coords"]}
    return xr.Dataset(variables, coords, _restored(layout["attrs"]))


def _attributes(attrs: Mapping[Any, Any]) -> list[Any]:
    """Pairs in their order; numbers that JSON lacks are spelled out."""
    return [[str(name), _attribute(str(name), value)] for name, value in attrs.items()]


def _attribute(name: str, value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}
    if isinstance(value, list | tuple):
        return [_attribute(name, each) for each in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ArgumentTypeError(f"{name}: an attribute is a number, text, or a list of these, got {type(value)!r}")


def _restored(pairs: list[Any]) -> dict[str, Any]:
    return {name: _number(value) for name, value in pairs}


def _number(value: Any) -> Any:
    if isinstance(value, list):
        return [_number(each) for each in value]
    return float(value["float"]) if isinstance(value, dict) else value
