"""The kill table: every law against every mutant, and against the sound controls."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from implicit_grad.testing.law import Result, examine
from implicit_grad.testing.mutants.diagnoses import diagnosis
from implicit_grad.testing.mutants.registry import MUTANTS, Family

EXAMPLES = {Family.LINEAR: 25, Family.INNER: 6, Family.HVP: 15, Family.META: 6}
"""Draws for each law and mutant: enough for every kill, and few enough for all of them in minutes."""


@dataclass(frozen=True)
class Row:
    """What the laws made of one mutant.

    Attributes
    ----------
    name : str
    family : Family
    sound : bool
    results : dict
        Law title to `Result`.
    diagnosis : str
        What `verify` makes of a meta-gradient; "" for other subjects.
    """

    name: str
    family: Family
    sound: bool
    results: dict[str, Result]
    diagnosis: str = ""

    @property
    def killers(self) -> tuple[str, ...]:
        """Titles of the laws that were violated."""
        return tuple(title for title, result in self.results.items() if result is Result.VIOLATED)


def try_mutant(place: int) -> Row:
    """Hold one mutant, by its place in `MUTANTS`, to the laws of its family."""
    mutant = MUTANTS[place]
    findings = examine(mutant.family.laws, mutant.subject, examples=EXAMPLES[mutant.family], shrink=False)
    results = {finding.law.title: finding.result for finding in findings}
    said = diagnosis(mutant.subject.function) if mutant.family is Family.META else ""
    return Row(mutant.name, mutant.family, mutant.sound, results, said)


def kill_table(workers: int = 2, progress: Callable[[Row], None] | None = None) -> tuple[Row, ...]:
    """Try every mutant, in as many processes as there are workers.

    Parameters
    ----------
    workers : int
    progress : callable, optional
        Told each row as it is ready.
    """

    def shown(rows: Iterator[Row]) -> Iterator[Row]:
        for row in rows:
            if progress is not None:
                progress(row)
            yield row

    with ProcessPoolExecutor(workers) as pool:
        return tuple(shown(pool.map(try_mutant, range(len(MUTANTS)))))


def complaints(rows: tuple[Row, ...]) -> list[str]:
    """Return what is wrong with a table: survivors, false alarms, laws that kill nothing."""
    wrong = [f"{row.family.value}: '{row.name}' survives" for row in rows if not row.sound and not row.killers]
    wrong += [
        f"{row.family.value}: false alarm on '{row.name}': {', '.join(row.killers)}"
        for row in rows
        if row.sound and row.killers
    ]
    for family in Family:
        killing = {title for row in rows if row.family is family for title in row.killers}
        wrong += [f"{family.value}: law {law.title} kills nothing" for law in family.laws if law.title not in killing]
    return wrong


_MARK = {Result.VIOLATED: "x", Result.HOLDS: "·", Result.SILENT: " "}


def markdown(rows: tuple[Row, ...]) -> str:
    """Return the tables as a page: x killed, · the law holds, blank: it says nothing about such a subject."""
    mutants = sum(not row.sound for row in rows)
    lines = [
        "# Which law kills which mutant",
        "",
        f"{mutants} mutants, each a sound method with one fault that published code had or is one slip away",
        f"from, and {len(rows) - mutants} sound controls (in bold). `make mutants` writes this page, and fails if a",
        "mutant survives, a control is accused, or a law kills nothing. `x`: the law is violated; `·`: it holds;",
        "blank: it says nothing about what makes that promise.",
    ]
    for family in Family:
        titles = [law.title for law in family.laws]
        lines += ["", f"## {family.value}", "", f"| | {' | '.join(titles)} |", "|---" * (len(titles) + 1) + "|"]
        for row in rows:
            if row.family is family:
                name = f"**{row.name}**" if row.sound else row.name
                lines.append(f"| {name} | {' | '.join(_MARK[row.results[title]] for title in titles)} |")
    return "\n".join([*lines, *_diagnoses(rows)]) + "\n"


def _diagnoses(rows: tuple[Row, ...]) -> list[str]:
    """What `verify` says of the meta-gradients, a list of its own: the table above is wide enough."""
    told = [row for row in rows if row.diagnosis]
    lines = [f"| {f'**{row.name}**' if row.sound else row.name} | {row.diagnosis} |" for row in told]
    head = ["", "## What `verify` makes of the meta-gradients", "", "In bold what is named with confidence.", ""]
    return [*head, "| mutant | diagnosis |", "|---|---|", *lines] if told else []
