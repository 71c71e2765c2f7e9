"""Cells whose results show every lost bit, for the fault injection and the timings of the sweep engine."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np

from implicit_grad.engine import Cell

LOG = "IMPLICIT_GRAD_ENGINE_LOG"
"""Environment variable: a file to which every run of a cell appends its number."""
DEADLY = "IMPLICIT_GRAD_ENGINE_DEADLY"
"""Environment variable: a folder of files named by cells; who runs such a cell first takes the file and dies."""


def system(number: int, kilobytes: int = 0, seconds: float = 0.0) -> dict[str, Any]:
    """Solve a random 40 × 40 system, which shows the number of BLAS threads in its last bits, and add some bulk."""
    _note(number)
    rng = np.random.default_rng(number)
    solution = np.linalg.solve(rng.normal(size=(40, 40)), rng.normal(size=40))
    bulk = rng.integers(0, 256, size=1024 * kilobytes, dtype=np.uint8)
    if seconds:
        time.sleep(seconds)
    return {"solution": solution, "bulk": bulk}


def busy(number: int, steps: int) -> dict[str, Any]:
    """Iterate a map whose matrix fits the cache, as inner solvers do."""
    A = np.random.default_rng(number).normal(size=(100, 100)) / 10
    x = A[0]
    for _ in range(steps):
        x = np.tanh(A @ x)
    return {"x": x}


def tiny(number: int) -> dict[str, Any]:
    """Return a hundred numbers at once."""
    return {"x": np.full(100, float(number))}


def systems(count: int, kilobytes: int = 0, seconds: float = 0.0) -> list[Cell]:
    """Return cells 0 … count − 1."""
    return [
        Cell(system, {"number": n, "kilobytes": kilobytes, "seconds": seconds}, label=str(n)) for n in range(count)
    ]


def _note(number: int) -> None:
    if LOG in os.environ:
        handle = os.open(os.environ[LOG], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(handle, f"{number}\n".encode())  # one write of a few bytes is atomic
        os.close(handle)
    if DEADLY in os.environ:
        try:
            (Path(os.environ[DEADLY]) / str(number)).unlink()
        except FileNotFoundError:
            return
        os.kill(os.getpid(), signal.SIGKILL)
