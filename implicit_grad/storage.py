"""Results on disk: written atomically, never unpickled, with the versions they depend on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from implicit_grad.errors import ArgumentError, CorruptData, MissingDependency


def versions() -> dict[str, str]:
    """Versions that a result depends on."""
    found = {"python": platform.python_version()}
    for name in ("implicit-grad", "numpy", "scipy", "autograd"):
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def save(dataset: Any, path: Path) -> None:
    """Write a data set as NetCDF, atomically: readers see the old file or the new one, never half of one."""
    with atomic_target(path) as temporary:
        dataset.to_netcdf(temporary, engine="h5netcdf")


def load(path: Path) -> Any:
    """Read what `save` wrote.

    Raises
    ------
    CorruptData
        If the file is not a readable NetCDF file.
    """
    xr = xarray()
    try:
        return xr.load_dataset(path, engine="h5netcdf")
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError) as error:
        raise CorruptData(
            f"{path}: not a readable NetCDF file ({error}); delete it and run the sweep again"
        ) from error


@contextmanager
def atomic_target(path: Path, *, flush: bool = True) -> Iterator[Path]:
    """Yield a temporary path in the same folder; on success flush it to disk and rename it to `path`.

    Without the flush a killed process still leaves the old file or the new one, but a power cut may leave half of the
    new one: for files that carry a checksum.
    """
    path = Path(path)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        if flush:
            with temporary.open("rb+") as stream:
                os.fsync(stream.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(folder: Path) -> Path:
    """Create `folder` and prove that a file can be written there, before anything is computed.

    Raises
    ------
    ArgumentError
        With the system's reason.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ArgumentError(f"out: cannot write to {folder}: {error.strerror or error}") from error
    return folder


def xarray() -> Any:
    """Import xarray, which is optional and slow to load.

    Raises
    ------
    MissingDependency
        If it is not installed.
    """
    try:
        import xarray as module
    except ImportError as error:
        raise MissingDependency("sweeps need xarray and h5netcdf: pip install 'implicit-grad[sweep]'") from error
    return module
