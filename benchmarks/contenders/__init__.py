"""The libraries that are compared: one module each, with the same function names.

A module offers any of `products(case, data)`, `meta_gradient(case, data)` and `sweep(case, data)`, each returning
`{quantity: {name of the form: Form}}`, and `memory(...)`. Where it offers several forms of one quantity, the fastest
is reported.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Form:
    """One way to compute a quantity.

    Attributes
    ----------
    call : callable
        `() → result`, finished when it returns.
    host : callable
        `result → array, or {name: array}` in the library's layout, for comparison.
    """

    call: Callable[[], Any]
    host: Callable[[Any], Any]


Forms = dict[str, dict[str, Form]]


@dataclass(frozen=True)
class Setting:
    """How a process is started: a name, and environment variables set before any import."""

    name: str
    environment: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Contender:
    """A library, where its code stands, what it imports, and the settings it is tried under."""

    name: str
    module: str
    packages: tuple[str, ...]
    settings: tuple[Setting, ...] = (Setting("default"),)

    @property
    def missing(self) -> str | None:
        """Why it cannot run, or None."""
        absent = [package for package in self.packages if importlib.util.find_spec(package) is None]
        return f"not installed: {', '.join(absent)}" if absent else None

    @property
    def versions(self) -> dict[str, str]:
        """Version of each package that is installed."""
        found = {}
        for package in self.packages:
            name = package.replace("_", "-")
            try:
                found[name] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                continue
        return found


def _threads(count: int) -> tuple[tuple[str, str], ...]:
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return tuple((name, str(count)) for name in names)


_BLAS = (Setting("1 BLAS thread", _threads(1)), Setting("2 BLAS threads", _threads(2)))
_XLA = (Setting("XLA's own pool"),)
_SPLIT = (Setting("one device a core", (("XLA_FLAGS", "--xla_force_host_platform_device_count=2"),)),)
_TORCH = (Setting("1 thread", _threads(1)), Setting("2 threads", _threads(2)))

LIBRARY = Contender("implicit_grad", "benchmarks.contenders.library", ("implicit_grad", "numpy", "scipy"), _BLAS)
JAX = Contender("JAX", "benchmarks.contenders.jax", ("jax", "jaxlib"), _XLA)
JAX_SPLIT = Contender("JAX, batch split", "benchmarks.contenders.jax", ("jax", "jaxlib"), _SPLIT)
"""The same code with the tasks split over two host devices, which few users do, and which takes both cores."""
PEERS = (
    JAX,
    JAX_SPLIT,
    Contender("JAXopt", "benchmarks.contenders.jaxopt", ("jaxopt", "jax"), _XLA),
    Contender("Optimistix, Lineax", "benchmarks.contenders.lineax", ("optimistix", "lineax", "jax"), _XLA),
    Contender("PyTorch", "benchmarks.contenders.torch", ("torch",), _TORCH),
    Contender("TorchOpt", "benchmarks.contenders.torchopt", ("torchopt", "torch"), _TORCH[:1]),
)
CONTENDERS = (LIBRARY, *PEERS)
