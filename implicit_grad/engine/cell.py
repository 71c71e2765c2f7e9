"""A cell: one pure computation of a sweep, and the key that names its result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from implicit_grad.engine.canonical import modules_of, plain, qualified_name
from implicit_grad.engine.provenance import source_digest, versions

SCHEMA = 1
"""Version of keys and files: a change of either starts anew."""


@dataclass(frozen=True, eq=False)
class Cell:
    """One call `function(**config)` whose result depends on nothing else.

    Parameters
    ----------
    function : callable
        At the top level of a module. Returns a mapping of names to arrays, or an `xarray.Dataset`. It must be
        pure: the same values give the same bits, in any process.
    config : mapping
        Plain values: numbers, text, tuples, arrays, frozen dataclasses of these.
    data : str
        Hash of data that the function reads from elsewhere. Data in `config` are hashed with it, and Omniglot and
        the digits need none: their hash and their version are part of every key already.
    alone : bool
        It measures time or memory: run it with no other cell beside it, on this machine. Not part of the key.
    label : str
        For progress and error messages. Not part of the key.
    """

    function: Callable[..., Any]
    config: Mapping[str, Any] = field(default_factory=dict)
    data: str = ""
    alone: bool = field(default=False, kw_only=True)
    label: str = field(default="", kw_only=True)

    def __str__(self) -> str:
        return (
            self.label or f"{self.function.__qualname__}({', '.join(f'{k}={v!r}' for k, v in self.config.items())})"
        )


@dataclass(frozen=True, eq=False)
class Job:
    """A cell with its name, ready to be sent to a worker.

    Attributes
    ----------
    cell : Cell
    key : str
        sha256 of `identity`, in hexadecimal digits.
    identity : str
        Canonical JSON of all that the result depends on: function, settings, data, sources, versions, schema.
    modules : frozenset of str
        Modules that a worker must find; a script's own `__main__` travels with the job.
    source : str
        Hash of the sources of these modules: a worker with others would compute something else.
    """

    cell: Cell
    key: str
    identity: str
    modules: frozenset[str]
    source: str


def job(cell: Cell) -> Job:
    """Name a cell.

    Raises
    ------
    ArgumentTypeError
        If its function or a setting has no canonical form.
    """
    modules = frozenset({str(cell.function.__module__)} | modules_of(cell.config))
    identity = {
        "schema": SCHEMA,
        "function": qualified_name(cell.function, "function"),
        "config": plain(dict(cell.config), "config"),
        "data": plain(cell.data, "data"),
        "source": source_digest(modules),
        "versions": _versions(),
    }
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), allow_nan=False)
    found = modules - {"__main__"}
    return Job(cell, hashlib.sha256(text.encode()).hexdigest(), text, found, source_digest(found))


@cache
def _versions() -> dict[str, str]:
    """Read once: package metadata are files, and a sweep has many cells."""
    return versions()
