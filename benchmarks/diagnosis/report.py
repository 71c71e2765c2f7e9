"""The page: how often a cause was named, how right gradients fared, and what is worse than promised."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.diagnosis.wrong import AMONG, MISSED, NAMED, OUTCOMES, PROBLEMS, SOUND, UNSURE, WRONG, Trial
from implicit_grad.verify import CATALOGUE

PAGE = Path(__file__).parents[2] / "docs" / "diagnosis.md"
WANTED = 0.9


def table(rows: list[tuple[Trial, str, tuple[str, ...], float]]) -> list[str]:
    """One row a formula: how often it was named."""
    lines = [f"| formula | {' | '.join(OUTCOMES)} | confused with |", "|---" * (len(OUTCOMES) + 2) + "|"]
    for formula in CATALOGUE:
        mine = [row for row in rows if row[0].formula == formula.name]
        counts = Counter(row[1] for row in mine)
        others = sorted({name for row in mine for name in row[2]} - {formula.name})
        cells = " | ".join(str(counts[each] or "·") for each in OUTCOMES)
        lines.append(f"| {formula.name} | {cells} | {', '.join(others)} |")
    return lines


def shares(rows: list[tuple[Trial, str, tuple[str, ...], float]]) -> tuple[Counter[str], int]:
    """Counts of outcomes, and how many gradients were wrong."""
    counts = Counter(row[1] for row in rows)
    return counts, len(rows) - counts[SOUND]


def page(rows: list[Any], rights: list[Any]) -> str:
    """The whole page."""
    counts, wrong = shares(rows)
    right = counts[NAMED] + counts[UNSURE] + counts[AMONG]
    verdicts = Counter(verdict for _, verdict, _ in rights)
    seconds = sorted(row[3] for row in rows)
    lines = [
        "# How well `verify` judges",
        "",
        "Written by `python -m benchmarks.diagnosis`; nothing here is typed by hand.",
        "",
        "## Wrong gradients: is the cause named?",
        "",
        f"All {len(CATALOGUE)} formulas of the catalogue as `(problem, theta) -> gradient`, free numbers drawn at",
        "random, on the problems below; a formula that has no meaning on a problem is left out there. Of the oracles",
        "the unrolled limit is left out on this page: it costs seconds where κ is large, and decides nothing.",
        "",
        *(f"- {name}" for name in PROBLEMS),
        "",
        f"Of {wrong} wrong gradients the right cause was named in {right} ({right / max(wrong, 1):.1%}): with",
        f"confidence {counts[NAMED]}, alone without confidence {counts[UNSURE]}, among several that are the same",
        f"vector there {counts[AMONG]}. Not named: {counts[MISSED]}. A wrong cause with confidence: {counts[WRONG]}.",
        f"Right on that problem, and passed: {counts[SOUND]}. Median time {seconds[len(seconds) // 2]:.1f} s.",
        "",
        *table(rows),
        "",
        "## Right gradients: is one called wrong?",
        "",
        f"{len(rights)} random problems and methods: condition numbers to 1e6, λ from 1e-6 to 1e6, losses scaled by "
        "1e-12 to 1e12.",
        "",
        "| method | family | pass | inconclusive | fail | largest error |",
        "|---|---|---|---|---|---|",
    ]
    groups = sorted({(right.method, right.family) for right, _, _ in rights})
    for method, family in groups:
        mine = [(v, e) for r, v, e in rights if (r.method, r.family) == (method, family)]
        n = Counter(v for v, _ in mine)
        errors = [e for v, e in mine if v == "PASS" and np.isfinite(e)]
        largest = f"{max(errors):.1e}" if errors else ""
        lines.append(f"| {method} | {family} | {n['PASS']} | {n['INCONCLUSIVE']} | {n['FAIL']} | {largest} |")
    lines += [
        "",
        f"Passed {verdicts['PASS']}, inconclusive {verdicts['INCONCLUSIVE']}, false alarms {verdicts['FAIL']}. The "
        "largest error is over ‖∇F‖, of those that passed.",
        "",
    ]
    return "\n".join(lines)


def complaints(rows: list[Any], rights: list[Any]) -> list[str]:
    """What is worse than promised."""
    counts, wrong = shares(rows)
    found = [f"{row[0]}: named {row[2]} with confidence" for row in rows if row[1] == WRONG]
    found += [f"{right}: called wrong, error {error:.1e}" for right, verdict, error in rights if verdict == "FAIL"]
    right = counts[NAMED] + counts[UNSURE] + counts[AMONG]
    if wrong and right < WANTED * wrong:
        found.append(f"{right} of {wrong} causes named, fewer than {WANTED:.0%}")
    return found
