"""The jobs: which cases, which quantities, and what is kept of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from benchmarks import cases
from benchmarks.cases import MetaCase, ProductCase, SweepCase, sinusoid
from benchmarks.contenders import JAX, JAX_SPLIT, LIBRARY, PEERS
from benchmarks.pairing import Contest, Effort, Row
from benchmarks.workers import ContenderError

_JAX = (JAX.name, JAX_SPLIT.name)


@dataclass(frozen=True)
class Plan:
    """Cases and sizes of every job, and how long each is timed."""

    effort: Effort = field(default_factory=Effort)
    products: tuple[ProductCase, ...] = cases.PRODUCTS
    meta_gradients: tuple[MetaCase, ...] = (sinusoid(25), cases.digits(32))
    sweep: SweepCase = field(default_factory=SweepCase)
    cold_rounds: int = 3
    memory: MetaCase = field(default_factory=lambda: sinusoid(4))
    memory_steps: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
    tasks: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256)
    widths: tuple[int, ...] = (10, 20, 40, 80, 160)
    inner_steps: tuple[int, ...] = (16, 32, 64, 128, 256, 512)
    cg_steps: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)


FULL = Plan()
QUICK = Plan(
    Effort(screening=1, rounds=5, block=0.01, limit=5.0),
    sweep=SweepCase(tasks=4, lams=(40.0, 80.0), last=32, cg_steps=5),
    cold_rounds=1,
    memory_steps=(1, 4, 16, 64),
    tasks=(1, 4, 16, 64),
    widths=(10, 20, 40),
    inner_steps=(16, 32, 64),
    cg_steps=(1, 4, 16),
)


@dataclass(frozen=True)
class Series:
    """One curve: a measured quantity y over a size x.

    Attributes
    ----------
    job, label, size, unit : str
        `size` names x, `unit` is that of y.
    x, y : tuple
    note : str
        How it was measured, or why it is empty.
    """

    job: str
    label: str
    size: str
    unit: str
    x: tuple[float, ...] = ()
    y: tuple[float, ...] = ()
    note: str = ""

    @property
    def exponent(self) -> float:
        """Fitted p of y = c·xᵖ over the whole range."""
        return self._slope(0)

    @property
    def last_exponent(self) -> float:
        """Fitted p over the upper half of the range, where what does not grow has faded."""
        return self._slope(len(self.x) // 2)

    def _slope(self, start: int) -> float:
        x, y = self.x[start:], self.y[start:]
        # Two points always fit.
        return float(np.polyfit(np.log(x), np.log(y), 1)[0]) if len(x) >= 3 else math.nan


@dataclass
class Results:
    """All that was measured."""

    rows: list[Row] = field(default_factory=list)
    series: list[Series] = field(default_factory=list)

    def find(self, **wanted: str) -> list[Row]:
        """Return the rows with these attributes."""
        return [row for row in self.rows if all(getattr(row, name) == value for name, value in wanted.items())]


def products(contest: Contest, plan: Plan, results: Results) -> None:
    """Job a: HVPs after the linearisation, gradients, and what the linearisation itself takes."""
    for case in plan.products:
        quantities = ("HVP", "gradient", "linearisation")
        results.rows += contest.compare("products", case, quantities, (*_JAX, "PyTorch"))


def meta_gradients(contest: Contest, plan: Plan, results: Results) -> None:
    """Job b: one meta-gradient by CG-10 at a given φ."""
    for case in plan.meta_gradients:
        everybody = tuple(peer.name for peer in PEERS)
        results.rows += contest.compare("meta_gradient", case, ("meta-gradient",), everybody)


def sweep(contest: Contest, plan: Plan, results: Results) -> None:
    """Job c: the canonical sweep, warm and with compilation."""
    warm = contest.compare("sweep", plan.sweep, ("sweep",), _JAX)
    results.rows += [*warm, *contest.cold("sweep", plan.sweep, warm, plan.cold_rounds)]


def memory(contest: Contest, plan: Plan, results: Results) -> None:
    """Job d: peak bytes over inner steps."""
    case = plan.memory
    data, size, unit = case.data(), "inner steps K", "bytes"
    for contender, how in (
        (LIBRARY, "tracemalloc: peak of newly allocated bytes"),
        (JAX, "XLA's buffer assignment: temporaries and results"),
    ):
        contest.say(f"{case.label}: memory of {contender.name}")
        try:
            found = contest.function(contender, "memory", case, data, plan.memory_steps)
        except ContenderError as error:
            results.series.append(Series("memory", contender.name, size, unit, note=str(error)))
            continue
        for label, peaks in found.items():
            x, y = tuple(map(float, peaks)), tuple(map(float, peaks.values()))
            results.series.append(Series("memory", label, size, unit, x, y, how))


def state_bytes(plan: Plan) -> int:
    """Bytes of one inner iterate of all tasks of the memory job."""
    return 8 * plan.memory.tasks * plan.memory.model.size


def growth(contest: Contest, plan: Plan, results: Results) -> None:
    """Job e: seconds of this library over the number of tasks, d, K and k, the other three fixed."""
    base = sinusoid(25)
    wide = [sinusoid(25, (width, width)) for width in plan.widths]
    curves: tuple[tuple[str, str, str, dict[int, MetaCase]], ...] = (
        ("tasks", "meta_gradient", "meta-gradient", {tasks: sinusoid(tasks) for tasks in plan.tasks}),
        ("parameters d", "meta_gradient", "meta-gradient", {case.model.size: case for case in wide}),
        ("inner steps K", "descent", "descent", {k: replace(base, inner_steps=k) for k in plan.inner_steps}),
        ("CG steps k", "meta_gradient", "meta-gradient", {k: replace(base, cg_steps=k) for k in plan.cg_steps}),
    )
    for size, job, quantity, by_size in curves:
        contest.say(f"growth with {size}")
        seconds = [contest.alone(job, case, quantity) for case in by_size.values()]
        results.series.append(
            Series("growth", quantity, size, "seconds", tuple(map(float, by_size)), tuple(seconds), base.label)
        )


JOBS: dict[str, Callable[[Contest, Plan, Results], None]] = {
    "a": products,
    "b": meta_gradients,
    "c": sweep,
    "d": memory,
    "e": growth,
}
