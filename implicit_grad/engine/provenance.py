"""What a result depends on besides its settings: sources and library versions."""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from implicit_grad import storage

LIBRARY = "implicit_grad"


def versions() -> dict[str, str]:
    """Versions that a cell depends on; scikit-learn is one, since the digits come with it."""
    found = storage.versions()
    with suppress(importlib.metadata.PackageNotFoundError):
        found["scikit-learn"] = importlib.metadata.version("scikit-learn")
    return found


@lru_cache(maxsize=256)
def source_digest(modules: frozenset[str]) -> str:
    """Hash the sources behind some modules, once per process.

    This library counts as a whole: a cell reaches most of it, and a stale result is worse than a computed one. Of
    other packages, only the modules count that the given ones import, directly or not; of what is installed
    elsewhere (NumPy, SciPy), the versions stand in the key instead. `__main__` is the script that runs.
    """
    files = {f"{LIBRARY}/{path.relative_to(root).as_posix()}": path for root in [_root()] for path in _python(root)}
    for module in sorted(modules):
        if module.split(".")[0] != LIBRARY:
            files.update(_reachable(module))
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name} {hashlib.sha256(files[name].read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def _root() -> Path:
    return Path(__file__).parents[1]


def _python(root: Path) -> list[Path]:
    return sorted(root.rglob("*.py"))


def _reachable(module: str) -> dict[str, Path]:
    """Modules of the same top-level package that `module` imports, with itself; a lone module is itself alone."""
    start = _file(module)
    if start is None:
        return {}
    top = module.split(".")[0]
    if top == module:
        return {module: start}
    package = _file(top)
    if package is None:  # a namespace package: its parts are not known from one place
        return {module: start}
    known = {_dotted(top, package.parent, path): path for path in _python(package.parent)}
    found: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in known and name not in found:
            found[name] = known[name]
            waiting.extend(_imports(known[name], name))
    return found


def _dotted(top: str, folder: Path, path: Path) -> str:
    parts = (top, *path.relative_to(folder).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(path: Path, name: str) -> Iterator[str]:
    """Every module that a file may import, and the packages above it, which run first."""
    parts = name.split(".")
    yield from (".".join(parts[:i]) for i in range(1, len(parts)))
    package = parts if path.name == "__init__.py" else parts[:-1]
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        else:
            continue
        for each in names:
            pieces = each.split(".")
            yield from (".".join(pieces[:i]) for i in range(1, len(pieces) + 1))


def _file(module: str) -> Path | None:
    """Source file of a module, without importing it where it is not yet."""
    loaded = sys.modules.get(module)
    name = getattr(loaded, "__file__", None)
    if loaded is None:
        with suppress(ImportError, ValueError):
            spec = importlib.util.find_spec(module)
            name = spec.origin if spec is not None else None
    return Path(name) if name and name.endswith(".py") and Path(name).is_file() else None
