"""The page: counts for every recipe, the cause of every failure, and all runs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import groupby
from typing import Any

from benchmarks.peers.cases import CASES, POINTS
from benchmarks.peers.runs import RTOL, STRICT, USUAL, Record, Run

_COLUMNS = (("float32", USUAL), ("float64", USUAL), ("float64", STRICT))


def page(record: Record) -> str:
    """Return `docs/peers.md`."""
    parts = [_opening(record), _summary(record), _settings(record), _all(record)]
    return "\n\n".join(part for part in parts if part) + "\n"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table; bars inside cells are escaped."""
    head = list(head)
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _opening(record: Record) -> str:
    versions = ", ".join(f"{package} {version}" for package, version in sorted(record.versions.items()))
    problems = "; ".join(case.name for case in CASES)
    sizes = ", ".join(f"{c.family} {c.thetas.shape[-1]}" for c in {case.family: case for case in CASES}.values())
    lines = [
        "# Meta-gradients of other libraries, verified",
        f"Written by `make peers`. Every entry is a run of `verify(candidate, problem, thetas, rtol={RTOL:g})` at "
        f"{POINTS} θ: *pass* is right to {RTOL:g} of ‖∇F‖, *fail* is wrong by more than that and the oracles' own "
        "resolution, *cannot tell* is neither; the number is the measured error. ∇F comes from oracles that share no "
        "code with the library under test.",
        f"Problems: {problems}. Parameters: {sizes}; weights and bias are separate arrays. The recipes in "
        "`benchmarks/peers/` are written as users of each library write them. *Usual* settings are the library's "
        "defaults or those of its examples; *strict* ones leave nothing unconverged. A recipe that fails is run "
        "again with all settings strict but one, which says what is to blame. The diagnosis is what `verify` says "
        "from the numbers alone. An unrolled gradient of a few steps is the exact gradient of another function, with "
        "φ_K in place of φ*: here it fails like anything else that is not ∇F.",
        f"Versions: {versions}.",
    ]
    lines += [f"Not run: {name}: {why}." for name, why in record.missing.items()]
    return "\n\n".join(lines)


def _by_recipe(record: Record) -> list[tuple[str, list[Run]]]:
    return [(label, list(runs)) for label, runs in groupby(record.runs, key=lambda run: run.label)]


def _summary(record: Record) -> str:
    rows = []
    for label, runs in _by_recipe(record):
        cells = [_count([r for r in runs if (r.precision, r.settings) == column]) for column in _COLUMNS]
        rows.append([label, *cells, _blame(record, label, runs)])
    head = ["recipe", "usual, float32", "usual, float64", "strict, float64", "why it fails"]
    told = []
    for precision, settings in _COLUMNS:
        these = [run for run in record.runs if (run.precision, run.settings) == (precision, settings)]
        passed = sum(run.verdict == "PASS" for run in these)
        told.append(f"{passed} of {len(these)} runs with {settings} settings in {precision} pass")
    text = f"{'; '.join(told)}. Largest error of each column in brackets."
    return f"## Summary\n\n{text}\n\n" + table(head, rows)


def _count(runs: list[Run]) -> str:
    if not runs:
        return "–"
    passed = sum(run.verdict == "PASS" for run in runs)
    text = "pass" if passed == len(runs) else f"**{sum(run.failed for run in runs)} of {len(runs)} fail**"
    unknown = sum(run.verdict == "INCONCLUSIVE" for run in runs)
    text = f"{text}, {unknown} cannot tell" if unknown else text
    errors = [run.error for run in runs]
    return f"{text} ({max(e for e in errors if e is not None):.0e})" if None not in errors else f"{text} (no number)"


def _blame(record: Record, label: str, runs: list[Run]) -> str:
    """Return the causes over all problems, each once."""
    causes: dict[str, int] = {}
    failing = 0
    for _, group in groupby(runs, key=lambda run: run.case):
        why = cause(record.recipes[label], list(group))
        failing += bool(why)
        for each in why:
            causes[each] = causes.get(each, 0) + 1
    told = [each if count == failing else f"{each} ({count} of {failing})" for each, count in causes.items()]
    remark = record.recipes[label]["remark"]
    return "; ".join([*told, *([remark] if remark and failing else [])])


def cause(recipe: dict[str, Any], runs: list[Run]) -> list[str]:
    """Return what the further runs of one recipe on one problem blame its failure on; nothing where it passes."""
    by = {(run.precision, run.settings): run for run in runs}
    narrow, usual, strict = (by.get(column) for column in _COLUMNS)
    if usual is None or not usual.failed:
        return ["float32"] if narrow is not None and narrow.failed else []
    if strict is None or strict.failed:
        said = strict or usual
        # Without the fitted numbers, which differ from problem to problem.
        return [f"no setting: {re.split(': | up to ', said.diagnosis)[0].removeprefix('likely ') or said.seen}"]
    knobs = {name: loose for name, loose, _ in recipe["knobs"]}
    if len(knobs) == 1:
        return [_knob(*knobs.popitem())]
    blamed = [_knob(name, loose) for name, loose in knobs.items() if _failed(by.get(("float64", f"only {name}")))]
    return blamed or ["several together: " + ", ".join(_knob(*each) for each in knobs.items())]


def _knob(name: str, loose: str) -> str:
    return f"{name}: {loose}"


def _failed(run: Run | None) -> bool:
    return run is not None and run.failed


def _settings(record: Record) -> str:
    labels = [label for label, _ in _by_recipe(record)]
    rows = [
        [label, name, loose, strict] for label in labels for name, loose, strict in record.recipes[label]["knobs"]
    ]
    return "## Settings\n\n" + table(["recipe", "setting", "usual", "strict"], rows)


def _all(record: Record) -> str:
    parts = ["## All runs"]
    for library, group in groupby(record.runs, key=lambda run: run.library):
        rows = []
        for _, runs in groupby(group, key=lambda run: (run.recipe, run.case)):
            rows.append(_row(list(runs)))
        head = [
            "recipe",
            "problem",
            "usual, float32",
            "usual, float64",
            "strict, float64",
            "one setting usual",
            "diagnosis",
        ]
        parts.append(f"<details><summary>{library}</summary>\n\n{table(head, rows)}\n\n</details>")
    return "\n\n".join(parts)


def _row(runs: list[Run]) -> list[str]:
    by = {(run.precision, run.settings): run for run in runs}
    rest = [run for run in runs if run.settings not in (USUAL, STRICT)]
    order = [run for column in (_COLUMNS[1], _COLUMNS[2], _COLUMNS[0]) if (run := by.get(column)) and run.failed]
    told = [run.diagnosis for run in order[:1] if run.diagnosis]
    faults = dict.fromkeys(run.seen for run in runs if run.seen and run.failed and run.precision == "float64")
    return [
        runs[0].recipe,
        runs[0].case,
        *(_cell(by.get(column)) for column in _COLUMNS),
        "; ".join(map(_only, rest)),
        "; ".join([*told, *faults]),
    ]


def _only(run: Run) -> str:
    told = f", {run.diagnosis}" if run.causes else ""
    return f"{run.settings.removeprefix('only ')}: {_cell(run)}{told}"


def _cell(run: Run | None) -> str:
    if run is None:
        return "–"
    word = {"PASS": "pass", "FAIL": "**fail**", "INCONCLUSIVE": "cannot tell"}[run.verdict]
    return f"{word} {run.error:.0e}" if run.error is not None else word
