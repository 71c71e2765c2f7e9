"""Which libraries are tried, whether they are there, and how a recipe becomes a candidate."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from benchmarks.peers.cases import Case, Setup
from benchmarks.peers.recipes import Recipe
from implicit_grad.backend import Array
from implicit_grad.verify import jax_candidate, torch_candidate


@dataclass(frozen=True)
class Library:
    """A module of recipes with the packages it needs, the first being the one it is about."""

    module: str
    world: str
    packages: tuple[str, ...]

    @property
    def missing(self) -> str | None:
        """Why its recipes cannot run, or None: whatever importing them raises is the reason."""
        try:
            importlib.import_module(self.module)
        except Exception as error:  # old packages break in ways of their own
            return f"{type(error).__name__}: {error}"
        return None

    @property
    def recipes(self) -> tuple[Recipe, ...]:
        """Its recipes."""
        return tuple(importlib.import_module(self.module).RECIPES)

    @property
    def versions(self) -> dict[str, str]:
        """Versions of its packages, and of what they stand on."""
        found = {}
        for package in (*self.packages, "numpy", "implicit-grad"):
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                found[package] = importlib.metadata.version(package)
        return found


LIBRARIES = {
    "jax": Library("benchmarks.peers.with_jax", "jax", ("jax",)),
    "jaxopt": Library("benchmarks.peers.with_jaxopt", "jax", ("jaxopt", "jax")),
    "optimistix": Library("benchmarks.peers.with_optimistix", "jax", ("optimistix", "lineax", "jax")),
    "torch": Library("benchmarks.peers.with_torch", "torch", ("torch",)),
    "torchopt": Library("benchmarks.peers.with_torchopt", "torch", ("torchopt", "torch")),
    "higher": Library("benchmarks.peers.with_higher", "torch", ("higher", "torch")),
}


def candidate(
    library: Library, recipe: Recipe, case: Case, strict: frozenset[str], precision: str
) -> Callable[[Any], Any]:
    """Return a recipe as a callable on trees of NumPy arrays."""
    make = _on_jax if library.world == "jax" else _on_torch
    return make(recipe, case, strict, precision)


@cache
def _compiled(recipe: Recipe, n_classes: int | None, strict: frozenset[str], precision: str) -> Any:
    """Data and numbers are arguments: problems that differ in nothing else are compiled once for each precision."""
    import jax

    del precision

    def meta_gradient(theta: Any, data: dict[str, Any], lam: Any, step_size: Any) -> Any:
        setup = Setup(**data, lam=lam, step_size=step_size, n_classes=n_classes, strict=strict)
        return recipe.build(setup)(theta)

    return jax.jit(meta_gradient)


def _on_jax(recipe: Recipe, case: Case, strict: frozenset[str], precision: str) -> Callable[[Any], Any]:
    import jax

    with jax.enable_x64(precision == "float64"):
        data, lam, step_size = jax.tree.map(jax.numpy.asarray, (case.arrays, case.lam, case.step_size))
    compiled = _compiled(recipe, case.n_classes, strict, precision)
    meta_gradient = jax_candidate(lambda theta: compiled(theta, data, lam, step_size))

    def call(theta: Any) -> Any:
        with jax.enable_x64(precision == "float64"):
            return meta_gradient(theta)

    return call


def _on_torch(recipe: Recipe, case: Case, strict: frozenset[str], precision: str) -> Callable[[Any], Any]:
    import torch

    dtype = getattr(torch, precision)

    def convert(array: Array) -> Any:
        tensor = torch.from_numpy(array.copy())
        return tensor.to(dtype) if tensor.is_floating_point() else tensor

    data = {name: convert(array) for name, array in case.arrays.items()}
    setup = Setup(**data, lam=case.lam, step_size=case.step_size, n_classes=case.n_classes, strict=strict)
    return torch_candidate(recipe.build(setup), dtype=dtype)
