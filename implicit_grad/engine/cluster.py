"""Cells on an existing Dask cluster; results travel back and are written here."""

from __future__ import annotations

import asyncio
import concurrent.futures
import math
import pickle
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

from implicit_grad.engine.cell import Job
from implicit_grad.engine.store import Store
from implicit_grad.engine.work import Fate, Made, Outcome, keep, make, prepare
from implicit_grad.errors import ArgumentError, ClusterError, MissingDependency

AHEAD = 4
"""Cells sent per worker thread: enough that none waits, few enough that the scheduler's memory stays small."""
CONNECT = 10.0
"""Seconds to wait for an answer of the scheduler, at most."""
COUNT_EVERY = 1.0
"""Seconds after which the workers are counted anew."""


@dataclass(frozen=True)
class Cluster:
    """The workers behind the scheduler at `address`, which need the same code but no shared disk.

    A cell whose worker dies is given to another. Trust the scheduler as you trust the code: Dask's own messages are
    pickles; the files are not.

    Parameters
    ----------
    address : str
        As `dask scheduler` prints it: `tcp://host:8786`.
    timeout : float
        Seconds to wait for the scheduler, for its first worker, and, when all are gone, for one to come back.
    """

    address: str
    timeout: float = 30.0

    def __call__(self, store: Store, jobs: Sequence[Job], fresh: bool) -> Iterator[Outcome]:
        """Yield outcomes as they come.

        Raises
        ------
        ClusterError
            If there is no scheduler or worker, or they go away; finished cells are kept.
        SourceChanged
            If a worker has other sources.
        """
        if not jobs:
            return
        for job in jobs:
            if "__main__" in (job.cell.function.__module__, *job.modules):
                raise ArgumentError(
                    f"function: {job.cell} is defined in the script itself, which the workers of a cluster do not "
                    f"have; put it in a module that is installed there"
                )
        client = self._connect()
        with _Flight(client, store, fresh, self.timeout) as flight:
            yield from flight.run(jobs)

    def _connect(self) -> Any:
        distributed = _distributed()
        client = None
        try:
            # A client that fails to connect is closed by the garbage collector, at a moment when that may deadlock.
            place = distributed.comm.get_address_host_port(self.address)
            socket.create_connection(place, timeout=min(self.timeout, CONNECT)).close()
            client = distributed.Client(self.address, timeout=min(self.timeout, CONNECT), set_as_default=False)
            client.wait_for_workers(1, timeout=self.timeout)
        except (OSError, ValueError, TimeoutError) as error:
            what = "no scheduler answers" if client is None else "the scheduler has no worker"
            if client is not None:
                client.close()
            raise ClusterError(f"scheduler: {what} at {self.address!r} ({error}); nothing was computed") from error
        return client


class _Flight:
    """The cells that are under way, each claimed here until it is written."""

    def __init__(self, client: Any, store: Store, fresh: bool, patience: float) -> None:
        self.client, self.store, self.fresh, self.patience = client, store, fresh, patience
        self.sent: dict[str, tuple[ExitStack, str, Any]] = {}
        self.done: SimpleQueue[Any] = SimpleQueue()
        self.threads, self.counted, self.seen = 0, -math.inf, time.monotonic()

    def __enter__(self) -> _Flight:
        return self

    def __exit__(self, *error: object) -> None:
        for claim, _, _ in self.sent.values():
            claim.close()
        with suppress(OSError, TimeoutError):
            self.client.close()  # which forgets, and so cancels, what is still under way

    def run(self, jobs: Sequence[Job]) -> Iterator[Outcome]:
        """Keep `AHEAD` cells per thread under way until all are done."""
        waiting = iter(jobs)
        while True:
            for job in waiting:
                outcome = self._send(job)
                if outcome is not None:
                    yield outcome
                self._count()
                if len(self.sent) >= AHEAD * max(1, self.threads):
                    break
            if not self.sent:
                return
            with suppress(Empty):
                yield self._receive(self.done.get(timeout=COUNT_EVERY))
            self._count()

    def _count(self) -> None:
        """Workers come and go, but asking for each cell would cost a millisecond."""
        now = time.monotonic()
        if now < self.counted + COUNT_EVERY:
            return
        with suppress(OSError):  # a scheduler that goes away cancels what is under way, which is noticed there
            self.threads = sum(self.client.nthreads().values())
        self.counted = now
        self.seen = now if self.threads else self.seen
        if now > self.seen + self.patience:
            raise ClusterError(
                f"scheduler: no worker is left since {self.patience:g} s; finished cells are kept: run the same "
                f"command again"
            )

    def _send(self, job: Job) -> Outcome | None:
        claim = ExitStack()
        if not claim.enter_context(self.store.claim(job.key)):
            claim.close()
            return Outcome(job.key, Fate.HELD)
        ready, aside = prepare(self.store, job.key, self.fresh)
        if ready:
            claim.close()
            return Outcome(job.key, Fate.REUSED, quarantined=aside)
        future = self.client.submit(make, job, key=f"cell-{job.key}", pure=False)
        self.sent[job.key] = claim, aside, future
        future.add_done_callback(self.done.put)
        return None

    def _receive(self, future: Any) -> Outcome:
        key = future.key.removeprefix("cell-")
        made = self._made(future)
        future.release()
        claim, aside, _ = self.sent.pop(key)
        with claim:
            return keep(self.store, key, made, aside)

    def _made(self, future: Any) -> Made:
        """What a cell has become. If the worker that holds it dies now, it is computed again meanwhile."""
        wait = COUNT_EVERY
        while True:
            try:
                made: Made = future.result(timeout=wait)
            except TimeoutError:
                self._count()
                wait *= 2
            except (concurrent.futures.CancelledError, asyncio.CancelledError) as error:
                raise ClusterError(
                    "scheduler: it went away; finished cells are kept: run the same command again"
                ) from error
            except (ImportError, AttributeError, pickle.UnpicklingError) as error:
                raise ClusterError(f"scheduler: a worker cannot import the cell's code: {error}") from error
            except Exception as error:
                if type(error).__name__ != "KilledWorker":
                    raise
                return Made(None, 0.0, f"its workers died: {error}")
            else:
                return made


def _distributed() -> Any:
    try:
        import distributed
    except ImportError as error:
        raise MissingDependency("a cluster needs Dask: pip install 'implicit-grad[dask]'") from error
    return distributed
