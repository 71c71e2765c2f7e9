"""How well does `verify` judge? Every wrong formula it knows on several problems, and thousands of right gradients.

`python -m benchmarks.diagnosis` writes docs/diagnosis.md; its exit status is 1 if a wrong cause was named with
confidence, a right gradient was called wrong, or fewer than nine in ten causes were named.
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from benchmarks.diagnosis.report import PAGE, complaints, page
from benchmarks.diagnosis.right import right_outcome, right_trials
from benchmarks.diagnosis.wrong import PROBLEMS, applies, outcome, trials
from implicit_grad.storage import atomic_target

RIGHT = 2000
WORKERS = 2


def main(arguments: list[str] | None = None) -> int:
    """Run all, print the page, and write it after a full run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.diagnosis", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one problem and 50 right gradients: a look")
    parser.add_argument("--out", type=Path, help="where the page goes; a full run has its own place")
    options = parser.parse_args(arguments)
    chosen = [trial for trial in trials() if applies(trial)]
    if options.quick:
        first = next(iter(PROBLEMS))
        chosen = [trial for trial in chosen if trial.problem == first]
    with ProcessPoolExecutor(WORKERS) as pool:
        rights = list(pool.map(right_outcome, right_trials(50 if options.quick else RIGHT), chunksize=10))
        rows = []
        for row in pool.map(outcome, chosen):
            rows.append(row)
            sys.stderr.write(f"{row[3]:6.1f} s  {row[0].problem:42} {row[0].formula:34} {row[1]:30} {row[2]}\n")
    text, wrong = page(rows, rights), complaints(rows, rights)
    sys.stdout.write(text)
    sys.stderr.write("\n".join([*wrong, ""]))
    target = options.out or (None if options.quick else PAGE)
    if target is not None:
        with atomic_target(target) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
