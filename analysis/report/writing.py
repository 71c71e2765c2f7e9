"""Write both documents, atomically."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from analysis.report.ledger import ledger
from analysis.report.page import page
from analysis.report.stored import Stored
from implicit_grad import storage


def write(
    results: Sequence[Stored],
    *,
    report: Path | None = None,
    register: Path | None = None,
    missing: Sequence[str] = (),
) -> list[Path]:
    """Write the page to `report` and the ledger to `register`, where given, and return what was written."""
    written = []
    for path, document in ((report, page), (register, ledger)):
        if path is not None:
            storage.check_writable(path.parent)
            with storage.atomic_target(path) as target:
                target.write_text(document(results, missing=missing), encoding="utf-8")
            written.append(path)
    return written
