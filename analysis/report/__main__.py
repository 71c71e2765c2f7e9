"""Build the report or the ledger from stored results alone: `python -m analysis.report [FOLDER] [--ledger PATH]`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from analysis.figure import STEMS
from analysis.report.stored import read_all
from analysis.report.writing import write
from implicit_grad.errors import ImplicitGradError


def main(arguments: list[str] | None = None) -> None:
    """Write FOLDER/report.html, or with --ledger only the ledger."""
    parser = argparse.ArgumentParser(prog="python -m analysis.report", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("figures"), help="with figures and results/")
    parser.add_argument("--ledger", type=Path, help="write the ledger there, and no page")
    options = parser.parse_args(arguments)
    try:
        results = read_all(options.folder, STEMS)
        missing = [stem for stem in STEMS if stem not in {each.stem for each in results}]
        page = None if options.ledger else options.folder / "report.html"
        written = write(results, report=page, register=options.ledger, missing=missing)
    except ImplicitGradError as error:
        sys.exit(f"analysis.report: {error}")
    print("wrote " + " ".join(map(str, written)))


if __name__ == "__main__":
    main()
