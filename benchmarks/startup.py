"""How long `import implicit_grad` takes, and what it must not bring along."""

from __future__ import annotations

import statistics
import subprocess
import sys
from dataclasses import dataclass

UNWANTED = ("matplotlib", "xarray", "hypothesis", "sklearn")

_PROBE = f"""
import sys, time
began = time.perf_counter()
import implicit_grad
print(time.perf_counter() - began, *(name for name in {UNWANTED!r} if name in sys.modules))
"""


@dataclass(frozen=True)
class Startup:
    """Median seconds of the import in a fresh interpreter, and the unwanted modules it loaded."""

    seconds: float
    unwanted: tuple[str, ...]


def startup(repeats: int = 5) -> Startup:
    """Import the library in fresh interpreters, after one that warms the disk cache."""
    answers = [
        subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, text=True, check=True).stdout.split()
        for _ in range(repeats + 1)
    ]
    return Startup(statistics.median(float(seconds) for seconds, *_ in answers[1:]), tuple(answers[-1][1:]))
