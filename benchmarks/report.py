"""The tables: RESULTS.md for readers, results.json for machines."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.contenders import LIBRARY
from benchmarks.jobs import Plan, Results, Series
from benchmarks.pairing import TOLERANCE, Ratio, Row
from benchmarks.startup import UNWANTED, Startup
from benchmarks.targets import Verdict, path_states, verdicts
from benchmarks.workers import CORES
from implicit_grad.storage import atomic_target

_TITLES = {
    "products": "a. Hessian-vector products and gradients",
    "meta_gradient": "b. One meta-gradient at a given φ",
    "sweep": "c. The canonical sweep",
    "memory": "d. Memory over inner steps",
    "growth": "e. Growth",
}

_INTRODUCTION = f"""\
Made by `make bench` (`python -m benchmarks`); do not edit. Same problem, same arrays, float64 everywhere. Each
contender is a process of its own, bound to the same {CORES} cores; turns alternate (A B C, A B C, …), each after an
untimed warm-up, and a ratio is the median of the ratios of turns of the same round, with the least and the greatest.
Below 1 the library is faster. Every result was compared with the library's before the clock started: “differs by” is
the largest relative distance ‖g − g′‖/‖g′‖ over problems, and more than {TOLERANCE:g} ends the run. Of several ways
to write something, and of the settings under which a process can start, every contender is shown at its fastest.
“First call” includes compilation. “Cores” is processor time over wall time."""


@dataclass(frozen=True)
class Report:
    """Everything a run leaves."""

    plan: Plan
    results: Results
    machine: dict[str, str]
    startup: Startup

    @property
    def verdicts(self) -> list[Verdict]:
        """The targets, held against the results."""
        return verdicts(self.plan, self.results, self.startup)

    def write(self, folder: Path) -> list[Path]:
        """Write both files, and return them."""
        files = []
        for name, text in (("RESULTS.md", self.markdown()), ("results.json", self.json())):
            path = folder / name
            with atomic_target(path) as target:
                target.write_text(text, encoding="utf-8")
            files.append(path)
        return files

    def json(self) -> str:
        """Return all numbers; NaN is null."""
        content = {
            "machine": self.machine,
            "startup": asdict(self.startup),
            "targets": [{**asdict(verdict), "met": verdict.met} for verdict in self.verdicts],
            "rows": [asdict(row) for row in self.results.rows],
            "series": [
                {**asdict(series), "exponent": series.exponent, "last_exponent": series.last_exponent}
                for series in self.results.series
            ],
        }
        return json.dumps(_finite(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    def markdown(self) -> str:
        """Return the readers' table."""
        blocks = ["# Benchmarks", _INTRODUCTION, _machine(self.machine), self._targets()]
        for job, title in _TITLES.items():
            rows = [row for row in self.results.rows if row.job == job]
            series = [each for each in self.results.series if each.job == job]
            if rows or series:
                blocks.append(f"## {title}")
            blocks += [race_table(each) for each in _grouped(rows)]
            if series:
                blocks.append(self._memory(series) if job == "memory" else _growth(series))
        return "\n\n".join(blocks) + "\n"

    def _targets(self) -> str:
        lines = [(v.what, v.bound_text, f"{_short(v.value)} {v.unit}".rstrip(), _MET[v.met]) for v in self.verdicts]
        loaded = ", ".join(self.startup.unwanted) or "none"
        lines.append((f"modules it must not load ({', '.join(UNWANTED)})", "none", loaded, _MET[loaded == "none"]))
        return "## Targets\n\n" + table(("target", "bound", "measured", ""), lines, numbers=(1, 2))

    def _memory(self, series: Sequence[Series]) -> str:
        shown = [each for each in series if each.y]
        steps = shown[0].x if shown else ()
        head = ("estimator", *(f"K = {k:.0f}" for k in steps), "exponent", "upper half")
        lines = [
            (each.label, *map(_bytes, each.y), exponent_text(each.exponent), exponent_text(each.last_exponent))
            for each in shown
        ]
        text = [
            f"Peak bytes of one meta-gradient with its K inner steps: {self.plan.memory.label}.",
            table(head, lines, numbers=range(1, len(head))),
            "\n".join(f"- {note}" for note in _notes(series)),
        ]
        for each in shown:
            if each.label == "checkpointed":
                states = ", ".join(f"{n:.1f}" for n in path_states(each, self.plan))
                text.append(f"Path states of the checkpointed gradient beyond its first column: {states}.")
        return "\n\n".join(text)


_MET = {True: "met", False: "**missed**"}


def _machine(machine: dict[str, str]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in machine.items())


def _grouped(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows by case and quantity, in the order of their first appearance."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.case, row.quantity), []).append(row)
    return list(groups.values())


def race_table(rows: Sequence[Row]) -> str:
    """Return the contenders of one quantity of one case, the library first and then by speed."""
    ordered = sorted(rows, key=lambda row: (row.contender != LIBRARY.name, bool(row.note), row.seconds))
    head = ("", "fastest form", "setting", "time", "cores", "library / it", "first call", "differs by")
    lines = []
    for row in ordered:
        if row.note:
            lines.append((row.contender, row.note, "", "", "", "", "", ""))
            continue
        own = row.contender == LIBRARY.name
        lines.append(
            (
                row.contender,
                row.form,
                row.setting,
                _seconds(row.seconds),
                "" if math.isnan(row.cores) else f"{row.cores:.1f}",
                "" if own or row.ratio is None else ratio_text(row.ratio),
                "" if math.isnan(row.first_call) else _seconds(row.first_call),
                "" if own or math.isnan(row.first_call) else f"{row.disagreement:.0e}",
            )
        )
    return f"**{rows[0].quantity}** · {rows[0].case}\n\n" + table(head, lines, numbers=range(3, 8))


def ratio_text(ratio: Ratio) -> str:
    """Return "median [least, greatest]"."""
    return f"**{_short(ratio.median)}** [{_short(ratio.low)}, {_short(ratio.high)}]"


def _growth(series: Sequence[Series]) -> str:
    lines = []
    for each in series:
        points = ", ".join(f"{x:.0f}: {_seconds(y)}" for x, y in zip(each.x, each.y, strict=True))
        lines.append((each.label, each.size, points, exponent_text(each.exponent), exponent_text(each.last_exponent)))
    head = ("quantity", "over", "times", "exponent", "upper half")
    what = "The library alone, where not varied: " + "; ".join(_notes(series)) + ", one BLAS thread."
    return f"{what}\n\n" + table(head, lines, numbers=(3, 4))


def _notes(series: Iterable[Series]) -> list[str]:
    """Each note once; that of an absent contender with its name."""
    return list(dict.fromkeys(each.note if each.y else f"{each.label}: {each.note}" for each in series if each.note))


def table(head: Sequence[str], lines: Sequence[Sequence[str]], *, numbers: Iterable[int] = ()) -> str:
    """Return a Markdown table; the columns in `numbers` are aligned to the right.

    Raises
    ------
    ValueError
        If a line has another number of cells than the head.
    """
    for line in lines:
        if len(line) != len(head):
            raise ValueError(f"table: {len(head)} columns, but a line of {len(line)} cells: {line}")
    right = set(numbers)
    rule = ["--:" if i in right else ":--" for i in range(len(head))]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in (head, rule, *lines)
    )


def _short(value: float) -> str:
    return (exponent_text(value) or "none") if not abs(value) >= 10 else f"{value:.0f}"


def exponent_text(value: float) -> str:
    """Return two decimals with a true minus sign; nothing for NaN."""
    return "" if math.isnan(value) else f"{value:.2f}".replace("-0.00", "0.00").replace("-", "−")


def _seconds(value: float) -> str:
    """Three significant digits in a fitting unit."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e-6:.3g} µs"


def _bytes(value: float) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.0f} B"


def _finite(value: object) -> object:
    """Replace NaN and infinities by None: JSON has none."""
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
