"""A sweep to be spoilt beside one that nobody disturbed, and the promises that are checked after each fault."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.engine_cells import LOG
from implicit_grad.engine import Store

ROOT = Path(__file__).resolve().parents[2]
KILOBYTES, SECONDS = 300, 0.004
"""Size and duration of a cell: about half of its life is spent writing, so that kills meet writes too."""


class LostError(Exception):
    """A cell is lost or wrong: the engine broke its promise."""


@dataclass(frozen=True)
class Count:
    """What was done in one kind of fault, and what became of it."""

    fault: str
    times: int
    cells: int
    detail: str

    def __str__(self) -> str:
        return f"{self.fault:34} {self.times:6d} {self.cells:7d}  {self.detail}"


class Bench:
    """A folder to be spoilt beside the folder of an undisturbed sweep of the same cells."""

    def __init__(self, home: Path, cells: int, kilobytes: int = KILOBYTES, seconds: float = SECONDS) -> None:
        self.cells, self.kilobytes, self.seconds = cells, kilobytes, seconds
        self.folder, self.log, self.code = home / "spoilt", home / "runs.log", home / "code"
        if not self.code.exists():
            self._freeze()
        self.keys, self.duration = self._undisturbed(home / f"sound-{cells}")
        self.truth = files_of(home / f"sound-{cells}", self.keys)

    def _undisturbed(self, folder: Path) -> tuple[list[str], float]:
        """Return the keys of the cells and the seconds from the first cell to the end of a sweep in one process."""
        with self.start("--keys", folder=folder) as process:
            assert process.stdout is not None
            keys = process.stdout.readline().split()
            said = [process.stdout.readline() for _ in range(2)]
            began = time.perf_counter()
            _, errors = process.communicate(timeout=300)
        if process.returncode or not said[-1]:
            raise LostError(f"an undisturbed sweep failed: {errors}")
        self.log.unlink()
        return keys, time.perf_counter() - began

    def _freeze(self) -> None:
        """Copy the sources, which name the cells: editing one while faults are injected would not be a fault."""
        for package in ("implicit_grad", "benchmarks"):
            shutil.copytree(ROOT / package, self.code / package)

    def start(self, *more: str, folder: Path | None = None, jobs: int = 1, **options: Any) -> subprocess.Popen[str]:
        """Start a victim in a process group of its own."""
        command = [sys.executable, "-m", "benchmarks.victim", str(folder or self.folder), str(self.cells)]
        command += ["--kilobytes", str(self.kilobytes), "--seconds", str(self.seconds), "--jobs", str(jobs), *more]
        return subprocess.Popen(
            command,
            cwd=self.code,
            env={**os.environ, LOG: str(self.log)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            **options,
        )

    def finish(self, **options: Any) -> None:
        """Run the same command undisturbed; then every file must be what it should be.

        Raises
        ------
        LostError
        """
        with self.start(**options) as process:
            _, errors = process.communicate(timeout=300)
        if process.returncode:
            raise LostError(f"the sweep after the fault failed: {errors}")
        self.compare()

    def compare(self) -> None:
        """Hold every file of the spoilt folder against the undisturbed sweep.

        Raises
        ------
        LostError
            Also for half-written files that were left behind.
        """
        cells = self.folder / "cells"
        found = files_of(self.folder, self.keys)
        for key, data in self.truth.items():
            if found.get(key) != data:
                raise LostError(f"cell {key} differs from that of an undisturbed sweep")
        known = {f"{key}{end}" for key in self.truth for end in (".npz", ".lock")}
        stray = [path.name for path in cells.rglob("*") if path.is_file() and path.name not in known]
        if stray:
            raise LostError(f"left behind: {stray}")

    def check_promises(self, said: list[str]) -> int:
        """After a kill: what was reported done is there, whole, and no damaged file is in a cell's place.

        Raises
        ------
        LostError
        """
        keys, store = self.keys, Store(self.folder)
        done = [keys[int(word)] for word in said if word.isdigit()]
        for key in done:
            if files_of(self.folder, [key]).get(key) != self.truth[key]:
                raise LostError(f"cell {key} was reported done and is lost")
        for path in (self.folder / "cells").glob("*/[!.]*.npz"):
            reason = store.fault(path.stem)
            if reason is not None:
                raise LostError(f"{path}: {reason}")
        return len(done)

    def runs(self) -> int:
        """Runs of cells since the last call."""
        with suppress(FileNotFoundError):
            count = len(self.log.read_text().split())
            self.log.unlink()
            return count
        return 0

    def clear(self) -> None:
        """Forget the spoilt folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.log.unlink(missing_ok=True)


def files_of(folder: Path, keys: list[str]) -> dict[str, bytes]:
    """Bytes of the cells that are there."""
    store = Store(folder)
    return {key: store.path(key).read_bytes() for key in keys if store.path(key).exists()}
