"""The studies behind the figures as cells of the sweep engine: kept when a run is stopped, never computed twice."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis import record
from analysis.study import Progress, Study, silent
from implicit_grad.engine import Cell, Results, Runner, Serial, Tally, sweep

if TYPE_CHECKING:
    from analysis.figure import Figure

_STAGES: ContextVar[Progress] = ContextVar("stages", default=silent)
"""Who is told of the stages inside a study: a report is no setting, so that it is not an argument of a cell."""


def run_study(study: Study, seed: int, quick: bool, backend: str) -> Any:
    """Return the data set of a study, stamped with what a drawing from it must know."""
    began = time.perf_counter()
    table = study.run(_STAGES.get(), backend=backend)
    record.stamp(table, seed=seed, quick=quick, seconds=time.perf_counter() - began)
    return table


def cells_of(figure: Figure, *, quick: bool, seed: int, backend: str) -> dict[str, Cell]:
    """Return panel name → cell; a study with a true attribute `alone` measures time or memory, and runs alone."""
    return {
        panel: Cell(
            run_study,
            {"study": study, "seed": seed, "quick": quick, "backend": backend},
            alone=getattr(study, "alone", False),
            label=f"{figure.stem}: {panel}",
        )
        for panel, study in figure.sweeps(quick, seed).items()
    }


def compute(
    cells: Iterable[Cell], folder: Path, *, runner: Runner | None, fresh: bool, progress: Progress | None
) -> Results:
    """Return the data sets of cells; those that `folder` holds already are read.

    Raises
    ------
    CellFailed
        After all others are done.
    """
    tell = progress or silent
    with _told(tell):
        return sweep(
            cells,
            folder,
            runner=runner or Serial(),
            resume=not fresh,
            progress=lambda tally, label: tell(_line(tally)),
        )


def _line(tally: Tally) -> str:
    damaged = f", {len(tally.quarantined)} damaged and set aside" if tally.quarantined else ""
    return f"{tally.done} of {tally.total} panels{damaged}"


@contextmanager
def _told(tell: Progress) -> Iterator[None]:
    token = _STAGES.set(tell)
    try:
        yield
    finally:
        _STAGES.reset(token)
