"""Disks that run full, and files that may not grow."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.faults.bench import Bench, Count, LostError

FULL_DISK = 3
"""Megabytes of the small disk: one of them is the room a sweep asks for at its start."""


def full_disk(bench: Bench) -> Count:
    """A disk that is full in the middle of a sweep, then one that is full before it."""
    with small_disk() as disk:
        if disk is None:
            return limited_files(bench)
        bench_folder, bench.folder = bench.folder, disk / "sweep"
        try:
            with bench.start() as process:
                said, errors = process.communicate(timeout=60)
            if process.returncode != 2 or "No space left on device" not in errors or "Traceback" in errors:
                raise LostError(f"exit code {process.returncode} on a full disk: {errors}")
            kept = bench.check_promises(said.split())
            (disk / "filler").write_bytes(bytes(_free(disk)))
            with bench.start() as process:
                again, errors = process.communicate(timeout=60)
            if process.returncode != 2 or "nothing was computed" not in errors or again:
                raise LostError(f"a full disk was noticed too late: {errors}")
            (disk / "filler").unlink()
            size = 4 * bench.cells * bench.kilobytes
            subprocess.run(["mount", "-o", f"remount,size={size}k", str(disk)], check=True)
            bench.finish()
        finally:
            bench.folder = bench_folder
    return Count("full disk (tmpfs of 3 MB)", 2, bench.cells, f"{kept} kept, 0 lost; a clear error each time")


def limited_files(bench: Bench) -> Count:
    """Where nothing can be mounted: no file may grow beyond half a cell, so that each write ends half-way."""
    limit = 1 << 20
    bench = Bench(bench.folder.parent / "limited", 4, 2 * limit >> 10, 0.0)

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    with bench.start(preexec_fn=limited) as process:
        said, errors = process.communicate(timeout=60)
    if process.returncode != 2 or "File too large" not in errors or "Traceback" in errors:
        raise LostError(f"exit code {process.returncode} where files are limited: {errors}")
    bench.check_promises(said.split())
    bench.finish()
    return Count("files limited to 1 MB", 1, bench.cells, "0 lost; a clear error")


def _free(disk: Path) -> int:
    found = os.statvfs(disk)
    return found.f_bavail * found.f_frsize


@contextmanager
def small_disk() -> Iterator[Path | None]:
    """Mount a file system of `FULL_DISK` megabytes; None where that is not allowed."""
    with tempfile.TemporaryDirectory() as name:
        if not (hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("mount")):
            yield None
            return
        options = ["-t", "tmpfs", "-o", f"size={FULL_DISK}m", "none", name]
        if subprocess.run(["mount", *options], check=False, capture_output=True).returncode:
            yield None
            return
        try:
            yield Path(name)
        finally:
            subprocess.run(["umount", name], check=True)
