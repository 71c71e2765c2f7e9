"""A sweep: find what is there, compute what is missing, and say what happened."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload

from implicit_grad.engine.cell import Cell, Job, job
from implicit_grad.engine.runners import Runner, Serial
from implicit_grad.engine.store import Store
from implicit_grad.engine.work import Fate, Outcome
from implicit_grad.errors import CellFailed

_LONGEST_WAIT = 1.0


@dataclass(frozen=True)
class Tally:
    """How far a sweep is.

    Attributes
    ----------
    total, reused, computed, failed : int
        Different cells: all, found whole, computed now, ended with an error.
    quarantined : tuple of str
        Where damaged files were moved.
    seconds : float
        Inside the functions of the cells computed now, all workers together.
    """

    total: int = 0
    reused: int = 0
    computed: int = 0
    failed: int = 0
    quarantined: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def done(self) -> int:
        """Cells that need no further work."""
        return self.reused + self.computed + self.failed

    def add(self, outcome: Outcome) -> Tally:
        """Count one more."""
        name = {Fate.COMPUTED: "computed", Fate.REUSED: "reused", Fate.FAILED: "failed"}[outcome.fate]
        return replace(
            self,
            **{name: getattr(self, name) + 1},
            quarantined=self.quarantined + ((outcome.quarantined,) if outcome.quarantined else ()),
            seconds=self.seconds + outcome.seconds,
        )


class Results(Sequence[Any]):
    """What the cells returned, in their order; read, and verified, when asked for.

    Attributes
    ----------
    store : Store
    keys : tuple of str
        Of each cell; equal cells share one.
    tally : Tally
    """

    def __init__(self, store: Store, keys: tuple[str, ...], tally: Tally) -> None:
        self.store, self.keys, self.tally = store, keys, tally

    def __len__(self) -> int:
        return len(self.keys)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self.store.load(key) for key in self.keys[index]]
        return self.store.load(self.keys[index])


def sweep(
    cells: Iterable[Cell],
    folder: Path,
    *,
    runner: Runner | None = None,
    resume: bool = True,
    progress: Callable[[Tally, str], Any] = lambda tally, label: None,
) -> Results:
    """Compute the cells that `folder` does not hold yet.

    Interrupt it, kill it, start it twice: what is finished stays, and the same call goes on from there. Damaged files
    are moved to `folder/quarantine` and computed again. A cell that raises an error does not stop the others.

    Parameters
    ----------
    cells : iterable of Cell
    folder : Path
    runner : Runner, optional
        `Serial()`, `Local(jobs)` or `Cluster(address)`.
    resume : bool
        Use what is there; otherwise compute all anew.
    progress : callable
        Called with a `Tally` and the label of the cell that is done.

    Returns
    -------
    Results
        A sequence as long as `cells`.

    Raises
    ------
    ArgumentError, StorageError
        Before anything is computed, if the folder cannot be written.
    CellFailed
        At the end, naming the first of the cells that raised an error.
    StorageError, ClusterError, WorkerLost, SourceChanged
        At once; finished cells are kept.
    """
    store = Store(Path(folder)).open()
    named = [job(cell) for cell in cells]
    jobs = {each.key: each for each in named}
    missing = {key: each for key, each in jobs.items() if not (resume and store.holds(key))}
    tally = Tally(len(jobs), reused=len(jobs) - len(missing))
    progress(tally, "")
    failures = []
    for outcome in _outcomes(store, missing, runner or Serial(), not resume):
        tally = tally.add(outcome)
        progress(tally, str(jobs[outcome.key].cell))
        if outcome.fate is Fate.FAILED:
            failures.append(outcome)
    if failures:
        raise _failure(failures, jobs)
    return Results(store, tuple(each.key for each in named), tally)


def _outcomes(store: Store, missing: dict[str, Job], runner: Runner, fresh: bool) -> Iterable[Outcome]:
    """One outcome per missing cell. What another process computes is waited for, or taken over if that one ends."""
    together = {key: each for key, each in missing.items() if not each.cell.alone}
    alone = {key: each for key, each in missing.items() if each.cell.alone}
    for crew, left in ((runner, together), (Serial(), alone)):
        pause = 0.01
        while left:
            for outcome in crew(store, tuple(left.values()), fresh):
                if outcome.fate is not Fate.HELD:
                    del left[outcome.key]
                    yield outcome
            if left:
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_WAIT)


def _failure(failures: list[Outcome], jobs: dict[str, Job]) -> CellFailed:
    first = failures[0]
    many = f"{len(failures)} of {len(jobs)} cells failed; the first: " if len(failures) > 1 else ""
    error = CellFailed(f"{many}{jobs[first.key].cell}: {first.reason}")
    error.add_note(first.trace)
    return error
