"""The ledger: formula or figure of a paper → script → number → verdict, as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from analysis.report.page import counted, number, short, tally, wanted
from analysis.report.stored import STANDING, Stored, Verdict, standing

_SPECIAL = re.compile(r"([\\`*_\[\]<>|#])")


def ledger(results: Sequence[Stored], *, missing: Sequence[str] = ()) -> str:
    """Return the ledger; `missing` are figures without stored results, which it names."""
    lines = [
        "# Ledger",
        "",
        "Generated from the stored results of the figures by `make ledger`; do not edit. Each row is a number that a",
        "script measured, with what it was to be. What does not hold stays in.",
        "",
        *_counts(results),
        *_table(
            ("figure", "claims", "command"),
            ((f"[{each.stem}](#{each.stem})", plain(tally(each)), _command(each)) for each in results),
        ),
    ]
    if missing:
        lines += ["Without stored results, and so not here: " + ", ".join(f"`{stem}`" for stem in missing) + ".", ""]
    lines += _failing(results)
    for each in results:
        lines += _figure(each)
    lines += _examined(results)
    return "\n".join(lines).rstrip() + "\n"


def plain(text: str) -> str:
    """Return text on one line with Markdown's own characters escaped."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def code(text: str) -> str:
    """Return text as code that a table cell can hold; as plain text where it has backticks of its own."""
    return plain(text) if "`" in text else "`" + text.replace("|", r"\|") + "`"


def _command(each: Stored) -> str:
    return code(each.text("command") or f"implicit-grad reproduce {each.stem}")


def _counts(results: Sequence[Stored]) -> list[str]:
    counts = {verdict: sum(each.count(verdict) for each in results) for verdict in Verdict}
    lines = [f"{sum(counts.values())} claims: " + ", ".join(counted(n, v) for v, n in counts.items() if n) + "."]
    if any(each.quick for each in results):
        lines += ["", "**Some figures were drawn on quick grids: what does not hold there is not judged.**"]
    return [*lines, ""]


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """Return the lines of a table whose cells are Markdown already, and an empty one."""
    head = tuple(head)
    lines = [head, ("---",) * len(head), *rows]
    return [*("| " + " | ".join(cells) + " |" for cells in lines), ""]


def _failing(results: Sequence[Stored]) -> list[str]:
    failing = [
        (f"`{each.stem}`", plain(claim.name), number(claim.measured), wanted(claim))
        for each in results
        for claim in each.claims
        if each.verdict(claim) in (Verdict.FAILS, Verdict.UNMEASURED)
    ]
    if not failing:
        return []
    return ["## What does not hold", "", *_table(("script", "claim", "measured", "wanted"), failing)]


def _figure(each: Stored) -> list[str]:
    lines = [f"## {each.stem}", "", plain(each.text("headline")), ""]
    if each.text("source"):
        lines += [f"Source: {plain(each.text('source'))}", ""]
    lines += [f"Script: `analysis/{each.stem}.py`{', on quick grids' if each.quick else ''}.", ""]
    if not each.claims:
        return [*lines, "It states no number that could be judged.", ""]
    rows = (
        (
            ("against: " if claim.refutes else "") + (plain(claim.source) or "this project"),
            plain(claim.name),
            number(claim.measured),
            wanted(claim),
            each.verdict(claim).value,
        )
        for claim in each.claims
    )
    return [*lines, *_table(("statement of", "claim", "measured", "wanted", "verdict"), rows)]


def _examined(results: Sequence[Stored]) -> list[str]:
    """Statements of others, with the measured effect over λ."""
    lines: list[str] = []
    for each in results:
        for statement in each.statements:
            verdict = STANDING[standing(statement, results)]
            lines += [
                f"### {plain(statement.says)}",
                "",
                f"**{verdict.capitalize()}.** {plain(statement.instead)}",
                "",
            ]
            if statement.quoted:
                lines += [plain(statement.quoted), ""]
            grids: dict[tuple[float, ...], list[tuple[str, ...]]] = {}
            for effect in statement.effects:
                row = (plain(f"{effect.problem}: {effect.quantity}"), *map(short, effect.value))
                grids.setdefault(effect.lam, []).append(row)
            for lam, rows in grids.items():
                lines += _table(("median over tasks", *(f"λ = {x:.3g}" for x in lam)), rows)
    if not lines:
        return []
    opening = (
        "In our words, with the measured effect over λ. A statement does not hold if every claim refuting it does."
    )
    return ["## Published statements, examined", "", opening, "", *lines]
