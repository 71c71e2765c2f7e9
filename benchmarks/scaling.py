"""What a million cells would cost: `python -m benchmarks.scaling [--problems N]`.

A cell here is one problem (one task at one λ) under all estimators of the figures after 64 inner steps. Blocks of
problems are one batched array program and one file. The table gives the cost of a problem over the size of its block,
in processor time of one core, so that other work on the machine does not count. With `--problems`, a sweep of that
many ridge problems is then run through the engine, and held against what the table predicts.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from analysis.panels import PANELS, Panel, methods
from implicit_grad.engine import Cell, Serial, container, sweep
from implicit_grad.sweep import ErrorSweep

INNER_STEPS = 64
LAMS = 10
MILLION = 10**6
TASKS = {"ridge": (1, 4, 16, 64), "digits": (1, 4, 16), "sinusoid": (1, 2)}
"""Tasks of a block, each at ten λ; a dense Hessian of the network has 25 MB."""
CHOSEN = {"ridge": 16, "digits": 16, "sinusoid": 1}


def block(name: str, tasks: int, number: int) -> ErrorSweep:
    """Return block `number` of a sweep: ten λ over the decades of the panel, tasks from a seed of its own."""
    panel: Panel = PANELS[name]
    lams = tuple(np.logspace(*panel.decades, LAMS).tolist())
    seed = int(np.random.SeedSequence([20260102, number]).generate_state(1)[0])
    return ErrorSweep(
        panel.source, methods(), lams, (INNER_STEPS,), tasks, seed, reference_solver=panel.reference_solver
    )


def run_block(name: str, tasks: int, number: int) -> Any:
    """Compute a block, and leave of its attributes what a block of a million must say."""
    table = block(name, tasks, number).run(backend="numpy")
    table.attrs = {key: table.attrs[key] for key in ("source", "seed", "missing_references")}
    return table


def costs(name: str, tasks: int) -> tuple[float, float, int]:
    """Return processor seconds, peak bytes and stored bytes of a block."""
    with threadpool_limits(1):
        run_block(name, tasks, 0)
        taken = []
        for number in range(1, 4):
            began = time.process_time()
            table = run_block(name, tasks, number)
            taken.append(time.process_time() - began)
            if taken[0] > 10:
                break
        tracemalloc.start()
        run_block(name, tasks, 0)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return float(np.median(taken)), peak, len(container.pack(table, "0" * 64))


def rows() -> Iterator[tuple[str, int, float, float, int]]:
    """Yield (panel, problems of a block, processor seconds, peak bytes, stored bytes)."""
    for name, sizes in TASKS.items():
        for tasks in sizes:
            yield name, LAMS * tasks, *costs(name, tasks)


def measure() -> dict[str, float]:
    """Print the table; return processor seconds of a problem in the chosen block of each panel."""
    _say(f"{len(methods())} estimators, {INNER_STEPS} inner steps, blocks of {LAMS} λ × tasks")
    _say("| panel | problems in a block | ms a problem | peak MB | bytes a problem | hours, 10⁶ on 1 core | on 100 |")
    _say("|---|---|---|---|---|---|---|")
    each = {}
    for name, problems, seconds, peak, stored in rows():
        cost = seconds / problems
        hours = MILLION * cost / 3600
        _say(
            f"| {name} | {problems} | {1e3 * cost:.2f} | {peak / 1e6:.0f} | {stored / problems:.0f} | {hours:.2f} | "
            f"{hours / 100:.3f} |"
        )
        if problems == LAMS * CHOSEN[name]:
            each[name] = cost
    return each


def prove(problems: int, each: float) -> None:
    """Run a sweep of so many ridge problems and compare."""
    size = LAMS * CHOSEN["ridge"]
    blocks = -(-problems // size)
    cells = [Cell(run_block, {"name": "ridge", "tasks": CHOSEN["ridge"], "number": n}) for n in range(blocks)]
    with tempfile.TemporaryDirectory() as name:
        began, clock = time.process_time(), time.perf_counter()
        results = sweep(cells, Path(name), runner=Serial())
        taken, clock = time.process_time() - began, time.perf_counter() - clock
        stored = sum(path.stat().st_size for path in Path(name).rglob("*.npz"))
        missing = sum(int(table.attrs["missing_references"]) for table in results)
    _say(
        f"ran {blocks * size:,} ridge problems in {blocks:,} blocks: {taken:.0f} s of processor time, predicted "
        f"{blocks * size * each:.0f} s; {clock:.0f} s by the clock; {stored / 1e6:.1f} MB; "
        f"{missing} without a reference"
    )


def main(arguments: list[str] | None = None) -> int:
    """Print the table, then the sweep that was run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", type=int, default=0, help="run a sweep of so many ridge problems, too")
    chosen = parser.parse_args(arguments)
    each = measure()
    if chosen.problems:
        prove(chosen.problems, each["ridge"])
    return 0


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
