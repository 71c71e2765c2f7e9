"""A sweep in a process of its own, to be killed: `python -m benchmarks.victim FOLDER COUNT [options]`.

It says `ready` when the sweep starts and the number of each cell once its file is there.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.engine_cells import systems
from implicit_grad.engine import Local, Serial, Tally, sweep
from implicit_grad.engine.cell import job
from implicit_grad.errors import ImplicitGradError


def main(arguments: list[str] | None = None) -> int:
    """Exit with 0, with 2 and a message for an error of this library, with 130 for an interrupt."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("count", type=int)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--kilobytes", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--keys", action="store_true", help="say the keys of the cells first, in one line")
    chosen = parser.parse_args(arguments)
    cells = systems(chosen.count, chosen.kilobytes, chosen.seconds)
    if chosen.keys:
        sys.stdout.write(" ".join(job(cell).key for cell in cells) + "\n")
    try:
        sweep(cells, chosen.folder, runner=Local(chosen.jobs) if chosen.jobs > 1 else Serial(), progress=_say)
    except ImplicitGradError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _say(tally: Tally, label: str) -> None:
    sys.stdout.write(f"{label or 'ready'}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
