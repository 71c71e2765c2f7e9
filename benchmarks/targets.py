"""What the library sets itself, held against what was measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from benchmarks.cases import ProductCase
from benchmarks.contenders import JAX, JAX_SPLIT, LIBRARY
from benchmarks.jobs import Plan, Results, Series, state_bytes
from benchmarks.pairing import Row
from benchmarks.startup import Startup


@dataclass(frozen=True)
class Verdict:
    """One target: the bound, the value, and whether it is kept."""

    what: str
    bound: float
    value: float
    unit: str = ""
    low: float = float("-inf")

    @property
    def bound_text(self) -> str:
        """The bound as a reader writes it."""
        return f"0 ± {self.bound:g}" if self.low == -self.bound else f"≤ {self.bound:g} {self.unit}".rstrip()

    @property
    def met(self) -> bool:
        """Whether the value lies within its bounds; not so for NaN."""
        return self.low <= self.value <= self.bound


def verdicts(plan: Plan, results: Results, startup: Startup) -> list[Verdict]:
    """Return every target whose job was run."""
    return [
        *_products(plan, results),
        *_meta_gradients(results),
        *_sweep(results),
        *_memory(plan, results),
        *_growth(results),
        Verdict("`import implicit_grad`", 0.5, startup.seconds, "s"),
    ]


def _products(plan: Plan, results: Results) -> Iterator[Verdict]:
    for case in plan.products:
        found = {row.contender: row for row in results.find(case=case.label, quantity="HVP")}
        bound = _jax_bound(case)
        for name in (JAX.name, JAX_SPLIT.name):
            if bound is not None and (jax := found.get(name)) is not None and jax.ratio is not None:
                yield Verdict(f"HVP against {name}: {case.label}", bound, jax.ratio.median)
        if (torch := found.get("PyTorch")) is not None and torch.ratio is not None:
            yield Verdict(f"HVP against PyTorch: {case.label}", 1.0, torch.ratio.median)
        gradient = results.find(case=case.label, quantity="gradient", contender=LIBRARY.name)
        if LIBRARY.name in found and gradient:
            value = found[LIBRARY.name].seconds / gradient[0].seconds
            yield Verdict(f"HVP over gradient: {case.label}", 2.0, value)


def _jax_bound(case: ProductCase) -> float | None:
    if case.tasks >= 25:
        return 0.8
    return 1.5 if case.tasks == 1 else None


def _meta_gradients(results: Results) -> Iterator[Verdict]:
    by_case: dict[str, list[Row]] = {}
    for row in results.find(quantity="meta-gradient"):
        if row.contender != LIBRARY.name and row.ratio is not None:
            by_case.setdefault(row.case, []).append(row)
    for case, rows in by_case.items():
        fastest = min(rows, key=lambda row: row.seconds)
        usual = min(
            (row for row in rows if row.contender != JAX_SPLIT.name), key=lambda row: row.seconds, default=fastest
        )
        for row in (fastest,) if fastest is usual else (fastest, usual):
            assert row.ratio is not None
            which = "the fastest peer" if row is fastest else "the fastest on one device"
            yield Verdict(f"meta-gradient against {which}, {row.contender}: {case}", 0.7, row.ratio.median)


def _sweep(results: Results) -> Iterator[Verdict]:
    for quantity, bound in (("sweep", 0.9), ("sweep, first call", 0.33)):
        for row in results.find(quantity=quantity):
            if row.ratio is not None and row.contender != LIBRARY.name:
                yield Verdict(f"{quantity} against {row.contender}", bound, row.ratio.median)


def _memory(plan: Plan, results: Results) -> Iterator[Verdict]:
    for series in _of(results, "memory"):
        if series.label.startswith("implicit"):
            yield Verdict(
                "growth of the implicit gradient's memory with K, exponent", 0.02, series.exponent, low=-0.02
            )
        if series.label == "checkpointed":
            states = path_states(series, plan)
            worst = max(state / k**0.5 for state, k in zip(states, series.x, strict=True))
            yield Verdict("path states of the checkpointed gradient over √K, largest", 2.5, worst)


def path_states(series: Series, plan: Plan) -> list[float]:
    """Peak memory beyond that of the shortest run, in units of one inner iterate of all tasks."""
    return [(peak - series.y[0]) / state_bytes(plan) for peak in series.y]


def _growth(results: Results) -> Iterator[Verdict]:
    for series in _of(results, "growth"):
        if series.size == "tasks":
            each = [seconds / tasks for seconds, tasks in zip(series.y, series.x, strict=True)]
            yield Verdict(f"time per task, {series.x[-1]:.0f} tasks over 1 task", 1.0, each[-1] / each[0])
            rise = max(later / earlier for earlier, later in pairwise(each))
            yield Verdict("time per task, largest rise from one batch size to the next", 1.1, rise)


def _of(results: Results, job: str) -> list[Series]:
    return [series for series in results.series if series.job == job and series.y]
