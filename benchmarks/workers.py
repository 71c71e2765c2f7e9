"""One process per contender and setting: it holds the case, answers questions, and times itself when told to."""

from __future__ import annotations

import gc
import importlib
import math
import multiprocessing
import os
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.contenders import Contender, Form, Setting

CORES = 2
"""Every process is bound to the same cores, so many of them."""


LONG = 0.5
"""Seconds from which a single call needs no warm-up, and one reading is enough for the screening."""


class ContenderError(RuntimeError):
    """A contender could not be imported, or failed at a case; the message is its own."""


@dataclass(frozen=True)
class Reading:
    """One timed block: wall seconds per call, and cores kept busy (processor time over wall time)."""

    seconds: float
    cores: float


class Worker:
    """A contender in its own process, with the environment of one setting from before its first import."""

    def __init__(self, contender: Contender, setting: Setting) -> None:
        self.contender, self.setting = contender, setting
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, contender.module), daemon=True)
        with _environment(setting):
            self._process.start()
        theirs.close()
        self._answer()

    def ask(self, verb: str, *arguments: Any) -> Any:
        """Return the answer to one question; see `_Bench`.

        Raises
        ------
        ContenderError
            With the contender's own message.
        """
        self._connection.send((verb, arguments))
        return self._answer()

    def _answer(self) -> Any:
        try:
            good, answer = self._connection.recv()
        except EOFError:
            self._process.join()
            raise ContenderError(f"its process ended with code {self._process.exitcode}") from None
        if not good:
            raise ContenderError(answer)
        return answer

    def close(self) -> None:
        """End the process."""
        with suppress(OSError):
            self._connection.send(None)
        self._process.join()
        self._connection.close()


@contextmanager
def _environment(setting: Setting) -> Iterator[None]:
    """Environment variables as a new process should find them; those of this process come back afterwards."""
    before = dict(os.environ)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "XLA_FLAGS"):
        os.environ.pop(name, None)
    os.environ.update(setting.environment)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


class _Bench:
    """What runs inside the process."""

    def __init__(self, module: str) -> None:
        self.module = importlib.import_module(module)
        self.forms: dict[tuple[str, str], Form] = {}
        self.seconds: dict[tuple[str, str], float] = {}
        self.last: Any = None

    def load(self, job: str, case: Any, data: Any) -> dict[str, list[str]]:
        """Prepare a case; return the names of the forms of each quantity, none where the job is not offered."""
        self.forms, self.seconds, self.last = {}, {}, None
        gc.collect()
        make = getattr(self.module, job, None)
        offered = make(case, data) if make is not None else {}
        self.forms = {(quantity, name): form for quantity, each in offered.items() for name, form in each.items()}
        return {quantity: list(each) for quantity, each in offered.items()}

    def first(self, quantity: str, name: str) -> float:
        """Seconds of the first call, compilation included."""
        self.last = None
        began = time.perf_counter()
        self.last = self.forms[quantity, name].call()
        return time.perf_counter() - began

    def result(self, quantity: str, name: str) -> Any:
        """Arrays of the first call."""
        result, self.last = self.forms[quantity, name].host(self.last), None
        return result

    def calls_for(self, quantity: str, name: str, seconds: float) -> tuple[int, Reading]:
        """Return the number of calls that fill a block, and the reading they follow from."""
        call = self.forms[quantity, name].call
        processor, began, done = time.process_time(), time.perf_counter(), 0
        while not done or time.perf_counter() - began < seconds / 2:
            call()
            done += 1
        wall = time.perf_counter() - began
        reading = Reading(wall / done, (time.process_time() - processor) / wall)
        self.seconds[quantity, name] = reading.seconds
        return max(1, math.ceil(seconds / reading.seconds)), reading

    def block(self, quantity: str, name: str, calls: int) -> Reading:
        """Time one block after a warm-up: the caches and thread pools were another process's until now."""
        call = self.forms[quantity, name].call
        if calls > 1 or self.seconds.get((quantity, name), 0.0) < LONG:
            for _ in range(max(1, calls // 10)):
                call()
        gc.disable()
        try:
            processor, began = time.process_time(), time.perf_counter()
            for _ in range(calls):
                call()
            wall = time.perf_counter() - began
            return Reading(wall / calls, (time.process_time() - processor) / wall)
        finally:
            gc.enable()

    def function(self, name: str, *arguments: Any) -> Any:
        """Call a function of the contender's module; None where it has none of that name."""
        function = getattr(self.module, name, None)
        return None if function is None else function(*arguments)


def _serve(connection: Any, module: str) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    bench: _Bench | None = None

    def start() -> None:
        nonlocal bench
        bench = _Bench(module)

    connection.send(_tried(start))
    with suppress(EOFError, OSError):  # the process that asks is gone, and nobody is left to tell
        while (question := connection.recv()) is not None:
            verb, arguments = question
            connection.send(_tried(getattr(bench, verb), *arguments))


def _tried(function: Any, *arguments: Any) -> tuple[bool, Any]:
    try:
        return True, function(*arguments)
    except Exception as error:  # whatever a contender raises is reported, and the others go on
        where = traceback.extract_tb(error.__traceback__)[-1]
        return False, f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
