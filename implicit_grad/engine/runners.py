"""Where cells run: in this process, or in several on this machine."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

from implicit_grad import border
from implicit_grad.engine.cell import Job
from implicit_grad.engine.store import Store
from implicit_grad.engine.work import THREADS, Outcome, fulfil
from implicit_grad.errors import MissingDependency, WorkerLost

DEATHS = 3
"""Deaths of workers in a row, without a finished cell between them, after which a sweep gives up."""
ORPHANS_END = 0.5
"""Seconds within which workers notice that the process which started them is gone."""


class Runner(Protocol):
    """A way to get cells computed; the results do not depend on which."""

    def __call__(self, store: Store, jobs: Sequence[Job], fresh: bool) -> Iterator[Outcome]:
        """Yield one outcome for each job, in any order; a cell is on the disk when its outcome comes."""
        ...


@dataclass(frozen=True)
class Serial:
    """One cell after the other, in this process."""

    def __call__(self, store: Store, jobs: Sequence[Job], fresh: bool) -> Iterator[Outcome]:
        """Yield outcomes in the order of the jobs."""
        for job in jobs:
            yield fulfil(store, job, fresh)


@dataclass(frozen=True)
class Local:
    """`jobs` processes on this machine (joblib's loky), each with one BLAS thread.

    Workers write their cells themselves: what is finished is on the disk even if this process is killed. If a worker
    is killed, the pool is built anew and goes on with what is missing.

    Parameters
    ----------
    jobs : int
        Number of processes, or -1 for one on each core.
    """

    jobs: int

    def __post_init__(self) -> None:
        if self.jobs != -1:
            object.__setattr__(self, "jobs", border.count("jobs", self.jobs, minimum=1))

    def __call__(self, store: Store, jobs: Sequence[Job], fresh: bool) -> Iterator[Outcome]:
        """Yield outcomes as they come.

        Raises
        ------
        WorkerLost
            If workers die again and again: the cells need more memory than there is, or crash.
        """
        pending = {job.key: job for job in jobs}
        deaths = 0
        while pending:
            try:
                for outcome in self._round(store, tuple(pending.values()), fresh):
                    del pending[outcome.key]
                    deaths = 0
                    yield outcome
            except BrokenExecutor as error:
                deaths += 1
                if deaths >= DEATHS:
                    raise WorkerLost(
                        f"{deaths} workers were killed in a row, {len(pending)} cells are missing, the next is "
                        f"{next(iter(pending.values())).cell}; is there enough memory for {self.jobs} of them?"
                    ) from error

    def _round(self, store: Store, jobs: Sequence[Job], fresh: bool) -> Any:
        joblib = _joblib()
        with joblib.parallel_config("loky", n_jobs=self.jobs, inner_max_num_threads=THREADS):
            pool = joblib.Parallel(return_as="generator_unordered")
        return pool(joblib.delayed(_as_child)(os.getpid(), store, job, fresh) for job in jobs)


def _as_child(parent: int, store: Store, job: Job, fresh: bool) -> Outcome:
    _end_with(parent)
    return fulfil(store, job, fresh)


@cache
def _end_with(parent: int) -> None:
    """Let this worker end when the sweep is killed: loky's would wait five minutes for further work."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(ORPHANS_END)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _joblib() -> Any:
    try:
        import joblib
    except ImportError as error:
        raise MissingDependency("sweeps on several cores need joblib: pip install 'implicit-grad[sweep]'") from error
    return joblib
