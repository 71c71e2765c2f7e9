"""What a worker does with one cell: claim, compute, write; the same in every kind of sweep."""

from __future__ import annotations

import threading
import time
import traceback
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Any

from implicit_grad.engine import container
from implicit_grad.engine.cell import Job
from implicit_grad.engine.provenance import source_digest
from implicit_grad.engine.store import Store
from implicit_grad.errors import MissingDependency, SourceChanged

THREADS = 1
"""BLAS threads of a cell, everywhere: the number of threads changes the order of sums, and with it the last bits."""

_ONE_AT_A_TIME = threading.Lock()
"""Autograd's tape and the BLAS thread limit belong to the process: a worker of many threads still runs one cell."""


class Fate(Enum):
    """What became of a cell."""

    COMPUTED = "computed now"
    REUSED = "found, whole"
    HELD = "another process is computing it"
    FAILED = "its function raised an error"


@dataclass(frozen=True)
class Outcome:
    """Report of a worker on one cell.

    Attributes
    ----------
    key : str
    fate : Fate
    seconds : float
        Time inside the cell's function.
    quarantined : str
        Where a damaged file went; "" if there was none.
    reason : str
        Type and message of the error.
    trace : str
        Its traceback.
    """

    key: str
    fate: Fate
    seconds: float = 0.0
    quarantined: str = ""
    reason: str = ""
    trace: str = ""


@dataclass(frozen=True)
class Made:
    """The file of a computed cell, or the error that there is instead."""

    data: bytes | None
    seconds: float
    reason: str = ""
    trace: str = ""


def make(job: Job) -> Made:
    """Run the cell's function and pack what it returns.

    Raises
    ------
    SourceChanged
        If this process sees other sources than the one that named the cell: its result would carry a wrong name.
    """
    found = source_digest(job.modules)
    if found != job.source:
        raise SourceChanged(
            f"{job.cell}: the sources here have hash {found[:12]}, the sweep was started with {job.source[:12]}; "
            f"install the same code on every worker, and do not edit it while a sweep runs"
        )
    with _ONE_AT_A_TIME, _blas().limit(limits=THREADS):
        began, seconds = time.perf_counter(), 0.0
        try:
            content = job.cell.function(**job.cell.config)
            seconds = time.perf_counter() - began
            return Made(container.pack(content, job.key, job.identity), seconds)
        except Exception as error:
            return Made(None, seconds, f"{type(error).__name__}: {error}", traceback.format_exc())


def fulfil(store: Store, job: Job, fresh: bool) -> Outcome:
    """See to it that the store holds a cell; with `fresh`, compute it even if it does."""
    with store.claim(job.key) as granted:
        if not granted:
            return Outcome(job.key, Fate.HELD)
        ready, aside = prepare(store, job.key, fresh)
        if ready:
            return Outcome(job.key, Fate.REUSED, quarantined=aside)
        return keep(store, job.key, make(job), aside)


def prepare(store: Store, key: str, fresh: bool) -> tuple[bool, str]:
    """Look again, now that the cell is claimed: whether it is there, and where a damaged file was moved."""
    try:
        reason = store.fault(key)
    except FileNotFoundError:
        return False, ""
    if reason is None:
        return not fresh, ""
    return False, str(store.quarantine(key, reason))


def keep(store: Store, key: str, made: Made, aside: str = "") -> Outcome:
    """Store what was made, and report on it."""
    if made.data is None:
        return Outcome(key, Fate.FAILED, made.seconds, aside, made.reason, made.trace)
    store.write(key, made.data)
    return Outcome(key, Fate.COMPUTED, made.seconds, aside)


@cache
def _blas() -> Any:
    """Find the BLAS libraries once: that takes milliseconds."""
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError as error:
        raise MissingDependency("sweeps need threadpoolctl: pip install 'implicit-grad[sweep]'") from error
    import scipy.linalg  # noqa: F401  SciPy brings a BLAS of its own, which must be loaded to be found

    return ThreadpoolController()
