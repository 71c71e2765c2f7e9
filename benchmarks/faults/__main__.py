"""Fault injection for the sweep engine: `python -m benchmarks.faults [--quick] [--seed N]`.

Sweeps are killed at random moments, share a folder, run out of disk, and get their files damaged. After each fault
every cell that was reported done must be there, bit for bit, and the same command must bring the folder to the state
of a sweep that nobody disturbed. Exits with 1 if a single cell is lost or wrong. POSIX only.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.faults.bench import Bench, Count, LostError
from benchmarks.faults.damage import damage, every_byte
from benchmarks.faults.disks import full_disk
from benchmarks.faults.processes import concurrent, interrupts, kills, worker_kills

SEED = 20260101


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
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__.splitlines()[0])
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
