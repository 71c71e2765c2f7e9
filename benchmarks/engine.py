"""What the sweep engine costs: `python -m benchmarks.engine [--quick]`.

Overhead: cells that compute for 0.1 s, the whole sweep over the time inside their functions, and over a bare loop
that makes the same calls. Resume: a complete sweep of 10,000 cells is asked for again by a new process. Cost of a
cell: cells that compute nothing, in one process, in two, and on a Dask cluster of two workers on this machine where
`distributed` is installed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from analysis.environment import environment
from benchmarks.engine_cells import busy, tiny
from implicit_grad.engine import Cell, Cluster, Local, Runner, Serial, sweep

SECONDS = 0.1
TARGETS = {"overhead": 0.05, "resume": 10.0}


def overhead(home: Path, cells: int, rounds: int) -> tuple[float, float, float]:
    """Return medians: sweep over time in functions − 1, over a bare loop − 1 (processor time), cell seconds."""
    steps, inside, outside, bare = _steps(), [], [], []
    for number in range(rounds):
        configs = [{"number": cells * number + n, "steps": steps} for n in range(cells)]
        began, worked = time.perf_counter(), time.process_time()
        with threadpool_limits(1):
            for config in configs:
                busy(**config)
        bare.append((time.perf_counter() - began) / cells)
        loop = time.process_time() - worked
        began, worked = time.perf_counter(), time.process_time()
        results = sweep([Cell(busy, config) for config in configs], home / "overhead")
        inside.append((time.perf_counter() - began) / results.tally.seconds - 1)
        outside.append((time.process_time() - worked) / loop - 1)
    return float(np.median(inside)), float(np.median(outside)), float(np.median(bare))


def _steps() -> int:
    """Steps of the map that take `SECONDS` of processor time here: on a busy machine the clock runs on meanwhile."""
    taken = []
    for _ in range(5):
        began = time.process_time()
        busy(0, 5000)
        taken.append(time.process_time() - began)
    return round(5000 * SECONDS / min(taken))


def cost(folder: Path, runner: Runner, cells: int) -> float:
    """Return the seconds of a sweep per cell that computes nothing, once the workers are there."""
    plan = [Cell(tiny, {"number": n}) for n in range(cells + 20)]
    sweep(plan[:20], folder, runner=runner)
    began = time.perf_counter()
    sweep(plan[20:], folder, runner=runner)
    return (time.perf_counter() - began) / cells


def resume(folder: Path, cells: int) -> tuple[float, float]:
    """Ask for a complete sweep again; return the seconds until it is known to be whole, and to read all results.

    Raises
    ------
    RuntimeError
        If it is not complete.
    """
    began = time.perf_counter()
    results = sweep([Cell(tiny, {"number": n}) for n in range(cells)], folder)
    known = time.perf_counter()
    total = sum(float(each["x"][0]) for each in results)
    if results.tally.reused != cells or total != cells * (cells - 1) / 2:
        raise RuntimeError(f"{results.tally}: not everything was there")
    return known - began, time.perf_counter() - known


def in_a_new_process(folder: Path, cells: int) -> tuple[float, float, float]:
    """Return what `resume` does there, and the seconds of the whole process."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "benchmarks.engine", "--resume", str(folder), "--cells", str(cells)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    known, read = map(float, run.stdout.split())
    return known, read, time.perf_counter() - began


@contextmanager
def two_workers() -> Iterator[Cluster | None]:
    """Start a Dask cluster on loopback; None where `distributed` is not installed."""
    try:
        import distributed
    except ImportError:
        yield None
        return
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=None
    ) as cluster:
        cluster.wait_for_workers(2)
        yield Cluster(cluster.scheduler_address)


def main(arguments: list[str] | None = None) -> int:
    """Print the measurements; 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the cells")
    parser.add_argument("--resume", type=Path, help="only ask for the complete sweep in this folder")
    parser.add_argument("--cells", type=int, default=10_000)
    chosen = parser.parse_args(arguments)
    if chosen.resume is not None:
        _say("{} {}".format(*resume(chosen.resume, chosen.cells)))
        return 0
    cells = chosen.cells // 10 if chosen.quick else chosen.cells
    with tempfile.TemporaryDirectory() as name:
        return measure(Path(name), cells, 2 if chosen.quick else 9)


def measure(home: Path, cells: int, rounds: int) -> int:
    """Measure everything below `home`, and print it."""
    about = environment()
    load = f"load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    _say("; ".join((about["processor"], f"{about['cores']} cores", load, about["versions"])))
    share, outside, bare = overhead(home, 20, rounds)
    _say(f"cells of {SECONDS} s, {bare:.3f} s by the clock; medians of {rounds} rounds of 20 cells:")
    _say(f"  overhead over the time inside the functions, by the clock: {100 * share:+.2f} %")
    _say(f"  overhead over a bare loop, in processor time: {100 * outside:+.2f} %")
    some = max(20, cells // 10)
    _say(f"cost of an empty cell, one process: {1e3 * cost(home / 'serial', Serial(), some):.2f} ms")
    _say(f"cost of an empty cell, two processes: {1e3 * cost(home / 'local', Local(2), some):.2f} ms")
    with two_workers() as cluster:
        if cluster is not None:
            _say(f"cost of an empty cell, two Dask workers: {1e3 * cost(home / 'dask', cluster, some):.2f} ms")
    each = cost(home / "many", Serial(), cells)
    _say(f"{cells:,} empty cells: {1e3 * each:.2f} ms each, {_size(home / 'many') / (cells + 20):.0f} bytes each")
    known, read, whole = in_a_new_process(home / "many", cells)
    _say(f"resume of {cells:,} cells: verified in {known:.2f} s, all read in {read:.2f} s, process {whole:.2f} s")
    missed = [name for name, value in (("overhead", max(share, outside)), ("resume", whole)) if value > TARGETS[name]]
    _say(f"targets missed: {', '.join(missed)}" if missed else "targets met: overhead ≤ 5 %, resume ≤ 10 s")
    return bool(missed)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.npz"))


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
