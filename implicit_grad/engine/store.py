"""The folder of a sweep: one file per cell, named by its key, whole or not there."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from implicit_grad import storage
from implicit_grad.engine import container
from implicit_grad.engine.lock import locked
from implicit_grad.errors import CorruptData, StorageError

CELLS, QUARANTINE = "cells", "quarantine"
_ROOM = 1 << 20
_TRIES = 1000


@dataclass(frozen=True)
class Store:
    """Cells under `folder`, 256 subfolders of `folder/cells`.

    A file is written beside its place and renamed: a reader sees a whole file or none, whenever a process is stopped.
    After a power cut the last files may be damaged; they fail their checksum and are computed again, so that no cell
    waits for the disk. Processes that share the folder need not know of each other.

    Parameters
    ----------
    folder : Path
    """

    folder: Path

    def open(self) -> Store:
        """Create the folder and prove that a megabyte can be written there, before anything is computed.

        Raises
        ------
        ArgumentError
            For a path where no folder can be.
        StorageError
            For a full disk.
        """
        folder = storage.check_writable(self.folder / CELLS)
        with _complaint(folder, "nothing was computed"), tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(_ROOM))
        return self

    def path(self, key: str) -> Path:
        """Where the cell is, or would be."""
        return self.folder / CELLS / key[:2] / f"{key}.npz"

    def fault(self, key: str) -> str | None:
        """Read the whole file of a cell and say what is wrong with it; None if nothing is.

        Raises
        ------
        FileNotFoundError
            If there is none.
        StorageError
            If the disk does not give it back.
        """
        return container.check(self._bytes(key), key)

    def holds(self, key: str) -> bool:
        """Whether the cell is there, whole."""
        try:
            return self.fault(key) is None
        except FileNotFoundError:
            return False

    def load(self, key: str) -> container.Content:
        """Return the result of a cell.

        Raises
        ------
        FileNotFoundError, CorruptData
        """
        try:
            return container.unpack(self._bytes(key), key)
        except CorruptData as error:
            raise CorruptData(f"{self.path(key)}: {error}; run the sweep again to replace it") from error

    def _bytes(self, key: str) -> bytes:
        try:
            return self.path(key).read_bytes()
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StorageError(f"{self.path(key)}: cannot be read: {error.strerror or error}") from error

    def write(self, key: str, data: bytes) -> None:
        """Put the file of a cell in its place.

        Raises
        ------
        StorageError
            For a full disk or a lost folder; what was there before is untouched.
        """
        path = self.path(key)
        with _complaint(path, "finished cells are kept"):
            path.parent.mkdir(parents=True, exist_ok=True)
            with storage.atomic_target(path, flush=False) as target:
                target.write_bytes(data)

    def quarantine(self, key: str, reason: str) -> Path:
        """Move the file of a cell out of the way, with a note of the reason beside it; return where it went."""
        folder = self.folder / QUARANTINE
        with _complaint(folder, "the damaged file is where it was"):
            folder.mkdir(parents=True, exist_ok=True)
            aside = next(p for p in (folder / f"{key}.{i}.npz" for i in range(_TRIES)) if not p.exists())
            self.path(key).replace(aside)
            with storage.atomic_target(aside.with_suffix(".json")) as target:
                target.write_text(json.dumps({"cell": key, "reason": reason}) + "\n", encoding="utf-8")
        return aside

    @contextmanager
    def claim(self, key: str) -> Iterator[bool]:
        """Hold a cell for the time of its computation: whether this process has it now, or another does.

        A claim ends with the process, however that ends. It spares work, not results: two processes that computed
        the same cell would write the same bytes.
        """
        path = self.path(key)
        with _complaint(path, "finished cells are kept"):
            path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.with_suffix(".lock")) as hold:
            if hold.certain:
                self._sweep_up(path)
            yield hold.granted

    @staticmethod
    def _sweep_up(path: Path) -> None:
        """Remove what a killed process was writing: nobody else can be, for the claim is held."""
        for left in path.parent.glob(f".{path.stem}-*"):
            left.unlink(missing_ok=True)


@contextmanager
def _complaint(path: Path, comfort: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{path}: cannot be written: {error.strerror or error}; {comfort}: make room or mend the folder, and run "
            f"the same command again"
        ) from error
