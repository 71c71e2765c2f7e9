"""Command line: `python -m benchmarks [--jobs a b c d e] [--quick] [--out FOLDER]`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent


def say(text: str) -> None:
    """Write a line of progress."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def main(arguments: list[str] | None = None) -> None:
    """Run the jobs, print the tables, and write them where they belong."""
    from benchmarks.figures import draw_figures
    from benchmarks.jobs import FULL, JOBS, QUICK, Results
    from benchmarks.machine import machine
    from benchmarks.pairing import Contest
    from benchmarks.report import Report
    from benchmarks.startup import startup

    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--jobs", nargs="+", choices=sorted(JOBS), default=sorted(JOBS), help="default: all")
    parser.add_argument("--quick", action="store_true", help="small sizes, few rounds: a look, not a result")
    parser.add_argument("--out", type=Path, help="folder for tables and figures; a full run has its own places")
    options = parser.parse_args(arguments)
    plan, results, described = QUICK if options.quick else FULL, Results(), machine()
    with Contest(plan.effort, say) as contest:
        for job in options.jobs:
            JOBS[job](contest, plan, results)
    report = Report(plan, results, described, startup())
    sys.stdout.write(report.markdown())
    complete = not options.quick and set(options.jobs) == set(JOBS)
    if options.out is None and not complete:
        say("only a full run writes the committed tables and figures; --out FOLDER keeps this one")
        return
    tables, figures = (ROOT, ROOT.parent / "figures") if options.out is None else (options.out, options.out)
    for folder in (tables, figures):
        folder.mkdir(parents=True, exist_ok=True)
    for path in [*report.write(tables), *draw_figures(plan, results, figures)]:
        say(f"wrote {path}")


if __name__ == "__main__":
    main()
