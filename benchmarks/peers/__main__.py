"""Command line: `python -m benchmarks.peers [--libraries jax torch …] [--families ridge …] [--quick] [--out FOLDER]`.

A run of some libraries or families replaces those rows of the stored table and leaves the others.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.peers.cases import CASES
from benchmarks.peers.libraries import LIBRARIES
from benchmarks.peers.report import page
from benchmarks.peers.runs import Record, runs_of

ROOT = Path(__file__).resolve().parents[2]


def say(text: str) -> None:
    """Write a line of progress."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def save(record: Record, stored: Path, written: Path) -> None:
    """Store the runs so far, and their page."""
    record.write(stored)
    written.write_text(page(record), encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    """Run `verify` on every recipe, and write the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--libraries", nargs="+", choices=[*LIBRARIES], default=[*LIBRARIES], help="default: all")
    families = sorted({case.family for case in CASES})
    parser.add_argument("--families", nargs="+", choices=families, default=families, help="default: all")
    parser.add_argument("--recipes", default="", help="only recipes whose name holds this text")
    parser.add_argument("--quick", action="store_true", help="one λ of each family: a look, stored in --out only")
    parser.add_argument("--render", action="store_true", help="write the page from the stored runs, and run nothing")
    parser.add_argument("--out", type=Path, help="folder for peers.json and peers.md")
    options = parser.parse_args(arguments)
    stored, written = ROOT / "benchmarks" / "peers" / "peers.json", ROOT / "docs" / "peers.md"
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        stored, written = options.out / "peers.json", options.out / "peers.md"
    elif options.quick:
        parser.error("--quick needs --out: the committed table holds full runs only")
    record = Record.read(stored)
    cases = [case for case in CASES if case.family in options.families]
    cases = [case for case in cases if not options.quick or case.name.endswith(("0.3", "2", "3"))]
    for name in [] if options.render else options.libraries:
        library = LIBRARIES[name]
        record = record.with_library(name, library)
        if library.missing:
            say(f"peers: {name} is left out: {library.missing}")
            continue
        for recipe in (each for each in library.recipes if options.recipes in each.label):
            for case in cases:
                if case.family in recipe.families:
                    runs = tuple(runs_of(library, recipe, case))
                    say(
                        "\n".join(
                            f"{' | '.join(run.key)} | {run.verdict} {run.error} {run.diagnosis}" for run in runs
                        )
                    )
                    record = record.with_runs(runs)
                    save(record, stored, written)
    save(record, stored, written)
    say(f"wrote {stored} and {written}")


if __name__ == "__main__":
    main()
