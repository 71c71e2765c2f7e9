"""`python -m implicit_grad.testing.mutants docs/mutants.md`: print the kill table and write it to the file."""

from __future__ import annotations

import sys
from pathlib import Path

from implicit_grad.storage import atomic_target
from implicit_grad.testing.mutants.kill_table import Row, complaints, kill_table, markdown


def main(arguments: list[str]) -> int:
    """Return 0 if every mutant is killed, no control accused, and every law of use."""

    def progress(row: Row) -> None:
        verdict = ", ".join(row.killers) or ("sound" if row.sound else "SURVIVES")
        print(f"{row.family.value:24} {row.name:44} {verdict}", flush=True)

    rows = kill_table(progress=progress)
    wrong = complaints(rows)
    print(*(wrong or [f"{sum(not row.sound for row in rows)} mutants killed, no false alarm"]), sep="\n")
    for name in arguments:
        with atomic_target(Path(name)) as temporary:
            temporary.write_text(markdown(rows), encoding="utf-8")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
