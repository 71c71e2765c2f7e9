"""Fault injection for the sweep engine: `python -m benchmarks.faults [--quick] [--seed N]`.

Sweeps are killed at random moments, share a folder, run out of disk, and get their files damaged. After each fault
every cell that was reported done must be there, bit for bit, and the same command must bring the folder to the state
of a sweep that nobody disturbed. Exits with 1 if a single cell is lost or wrong. POSIX only.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.engine_cells import LOG
from implicit_grad.engine import Store, container

SEED = 20260101
ROOT = Path(__file__).resolve().parent.parent
KILOBYTES, SECONDS = 300, 0.004
"""Size and duration of a cell: about half of its life is spent writing, so that kills meet writes too."""
FULL_DISK = 3
"""Megabytes of the small disk: one of them is the room a sweep asks for at its start."""


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


def kills(bench: Bench, rng: np.random.Generator, times: int, *, jobs: int, whole_group: bool = True) -> Count:
    """Kill -9 at random moments, over one folder, until it is complete; then over a new one."""
    killed = finished = done = runs = 0
    bench.clear()
    while killed < times:
        process = bench.start(jobs=jobs)
        assert process.stdout is not None
        said = [process.stdout.readline().strip()]
        if said != ["ready"]:
            raise LostError(f"the sweep after {killed} kills failed: {process.communicate()[1]}")
        if killed % 4 != 3:  # else it may die before its first cell
            said.append(process.stdout.readline().strip())
        # Moments over half of a sweep: several kills meet one folder before it is complete.
        time.sleep(float(rng.uniform(0, 0.5 * bench.duration / jobs)))
        with suppress(ProcessLookupError):
            (os.killpg if whole_group else os.kill)(process.pid, signal.SIGKILL)
        said += process.communicate(timeout=60)[0].split()
        killed += process.returncode == -signal.SIGKILL
        done += bench.check_promises(said)
        if process.returncode == 0:
            bench.compare()
            finished += 1
            runs += bench.runs()
            bench.clear()
    bench.finish(jobs=jobs)
    finished += 1
    runs += bench.runs()
    excess = runs - finished * bench.cells
    if excess > killed * jobs:
        raise LostError(f"{killed} kills cost {excess} runs of cells: more than those that were running")
    name = f"kill -9, {jobs} {'process' if jobs == 1 else 'workers'}{'' if whole_group else ', parent only'}"
    return Count(name, killed, finished * bench.cells, f"{done} reported done, 0 lost; {excess} run twice")


def worker_kills(bench: Bench, rng: np.random.Generator, times: int) -> Count:
    """Kill -9 of one worker of two: the sweep itself goes on to its end."""
    sweeps = killed = 0
    while killed < times:
        bench.clear()
        process = bench.start(jobs=2)
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.readline()  # the first cell is done: the workers are there
        time.sleep(float(rng.uniform(0, 0.3 * bench.duration)))
        children = _workers(process.pid)
        if children:
            with suppress(ProcessLookupError):
                os.kill(int(rng.choice(children)), signal.SIGKILL)
                killed += 1
        said, errors = process.communicate(timeout=120)
        if process.returncode:
            raise LostError(f"a sweep did not outlive its worker: {errors}")
        bench.check_promises(said.split())
        bench.compare()
        sweeps += 1
    return Count("kill -9 of one worker of two", killed, sweeps * bench.cells, "every sweep ended well, 0 lost")


def _workers(pid: int) -> list[int]:
    """Loky's workers among the children of a process; its resource tracker is left alone."""
    listed = subprocess.run(
        ["ps", "--ppid", str(pid), "-o", "pid=,args="], capture_output=True, text=True, check=False
    )
    return [int(line.split()[0]) for line in listed.stdout.splitlines() if "popen_loky" in line]


def interrupts(bench: Bench, rng: np.random.Generator, times: int) -> Count:
    """SIGINT to the process group, as a terminal sends it: exit code 130, finished cells kept."""
    done = interrupted = 0
    while interrupted < times:
        bench.clear()
        process = bench.start(jobs=1 + interrupted % 2)
        assert process.stdout is not None
        said = [process.stdout.readline().strip() for _ in range(2)]
        time.sleep(float(rng.uniform(0, 0.2 * bench.duration)))
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        more, errors = process.communicate(timeout=60)
        said += more.split()
        if len(said) > bench.cells:
            continue  # it was over before the signal came
        if process.returncode != 130:
            raise LostError(f"exit code {process.returncode} after SIGINT: {errors}")
        interrupted += 1
        done += bench.check_promises(said)
    bench.finish()
    return Count("SIGINT to the group", times, bench.cells, f"exit code 130; {done} reported done, 0 lost")


def concurrent(bench: Bench, times: int, writers: int = 3) -> Count:
    """Several sweeps of the same cells on one folder at once: each cell is computed once."""
    runs = 0
    for _ in range(times):
        bench.clear()
        crowd = [bench.start(jobs=1 + i % 2) for i in range(writers)]
        for process in crowd:
            _, errors = process.communicate(timeout=300)
            if process.returncode:
                raise LostError(f"a writer failed: {errors}")
        bench.compare()
        runs += bench.runs()
    if runs != times * bench.cells:
        raise LostError(f"{runs} runs for {times * bench.cells} cells")
    return Count(f"{writers} writers on one folder", times, times * bench.cells, f"{runs} runs: each cell once")


def damage(bench: Bench, rng: np.random.Generator, times: int) -> Count:
    """Flip one bit, cut the file, empty it, or put another cell's file in its place; the sweep finds every one."""
    bench.clear()
    bench.finish()
    bench.runs()
    keys, store, spoilt = bench.keys, Store(bench.folder), 0
    while spoilt < times:
        chosen = rng.choice(len(keys), size=min(times - spoilt, len(keys) // 2), replace=False)
        for n, i in enumerate(chosen):
            path = store.path(keys[i])
            path.write_bytes(spoil(path.read_bytes(), rng, n, bench.truth[keys[i - 1]]))
        bench.finish()
        runs = bench.runs()
        if runs != len(chosen):
            raise LostError(f"{len(chosen)} files were damaged and {runs} computed again")
        spoilt += len(chosen)
    aside = len(list((bench.folder / "quarantine").glob("*.npz")))
    if aside != spoilt:
        raise LostError(f"{spoilt} files were damaged and {aside} are in quarantine")
    return Count("bit flips, cuts, swaps of files", spoilt, spoilt, f"{aside} quarantined and computed again, 0 lost")


def spoil(data: bytes, rng: np.random.Generator, kind: int, other: bytes) -> bytes:
    """Damage a file: mostly one flipped bit, every fourth a cut, now and then nothing or another's content."""
    if kind % 16 == 5:
        return b""
    if kind % 16 == 13:
        return other
    if kind % 4 == 3:
        return data[: int(rng.integers(1, len(data)))]
    at, bit = int(rng.integers(len(data))), 1 << int(rng.integers(8))
    return data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]


def every_byte(bench: Bench) -> Count:
    """Damage every byte, and cut at every length, of one file."""
    key = bench.keys[0]
    data = container.pack({"x": np.arange(20.0)}, key)
    tried = 0
    for at in range(len(data)):
        for spoilt in (data[:at] + bytes([data[at] ^ (1 << at % 8)]) + data[at + 1 :], data[:at]):
            tried += 1
            if container.check(spoilt, key) is None:
                raise LostError(f"byte {at} can be damaged unseen")
    return Count("every byte, every length of a file", tried, 1, "all seen")


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


def inject(home: Path, seed: int, *, quick: bool, say: Callable[[str], Any]) -> list[Count]:
    """Run every fault; return the counts.

    Raises
    ------
    LostError
        At the first cell that is lost or wrong.
    """
    bench = Bench(home, 30 if quick else 100)
    faults: dict[str, Callable[[np.random.Generator], Count]] = {
        "serial": lambda rng: kills(bench, rng, 3 if quick else 25, jobs=1),
        "workers": lambda rng: kills(bench, rng, 1 if quick else 15, jobs=2),
        "parent": lambda rng: kills(bench, rng, 1 if quick else 5, jobs=2, whole_group=False),
        "one worker": lambda rng: worker_kills(bench, rng, 1 if quick else 5),
        "interrupts": lambda rng: interrupts(bench, rng, 2 if quick else 10),
        "concurrent": lambda rng: concurrent(bench, 1 if quick else 5),
        "damage": lambda rng: damage(bench, rng, 15 if quick else 300),
        "every byte": lambda rng: every_byte(bench),
        "full disk": lambda rng: full_disk(bench),
    }
    counts = []
    for number, fault in enumerate(faults.values()):
        counts.append(fault(np.random.default_rng([seed, number])))
        say(str(counts[-1]))
    return counts


def main(arguments: list[str] | None = None) -> int:
    """Print the counts; 1 if a cell was lost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few of each")
    parser.add_argument("--seed", type=int, default=SEED)
    chosen = parser.parse_args(arguments)
    _say(f"{'fault':34} {'times':>6} {'cells':>7}  what became of them")
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as home:
        try:
            inject(Path(home), chosen.seed, quick=chosen.quick, say=_say)
        except LostError as error:
            _say(f"LOST: {error}")
            return 1
    _say(f"nothing lost, nothing wrong; {time.perf_counter() - began:.0f} s")
    return 0


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
