"""What is stored beside a figure's claims: its words, what was run, where, and for how long."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from analysis.environment import environment


def stamp(table: Any, *, seed: int, quick: bool, seconds: float) -> None:
    """Write into a sweep's own attributes what a drawing from the stored sweep must know."""
    table.attrs.update(seed=seed, quick=int(quick), seconds=round(seconds, 2), environment=json.dumps(environment()))


def words(doc: str | None) -> dict[str, str]:
    """Split a script's docstring: headline, claim (all paragraphs up to the source), source."""
    headline, *paragraphs = inspect.cleandoc(doc or "").split("\n\n")
    found: dict[str, list[str]] = {"claim": [], "source": []}
    where = "claim"
    for paragraph in paragraphs:
        for name in found:
            mark = f"{name.capitalize()}. "
            if paragraph.startswith(mark):
                where, paragraph = name, paragraph.removeprefix(mark)
        found[where].append(paragraph)
    return {"headline": headline, **{name: "\n\n".join(parts) for name, parts in found.items()}}


def command(stem: str, *, seed: int, quick: bool, usual_seed: int) -> str:
    """Return the command that gives the same numbers."""
    options = (" --quick" if quick else "") + (f" --seed {seed}" if seed != usual_seed else "")
    return f"implicit-grad reproduce {stem}{options}"


def about(
    script: ModuleType, tables: Mapping[str, Any], *, ran: Mapping[str, str], seed: int, quick: bool, usual_seed: int
) -> dict[str, Any]:
    """Return what goes beside the claims; seed, size, machine and time are the stored sweeps', if they say."""
    attributes = [table.attrs for table in tables.values()]
    first: Mapping[str, Any] = attributes[0] if attributes else {}
    seed, quick = int(first.get("seed", seed)), bool(first.get("quick", quick))
    stem = script.__name__.rpartition(".")[2]
    return {
        "seed": seed,
        "quick": quick,
        "command": command(stem, seed=seed, quick=quick, usual_seed=usual_seed),
        **words(script.__doc__),
        "drawing": inspect.cleandoc(script.FIGURE.draw.__doc__ or ""),
        "ran": dict(ran),
        "reading": " ".join(script.FIGURE.reading.split()),
        "seconds": round(sum(float(each.get("seconds", 0)) for each in attributes), 1),
        "environment": json.loads(first.get("environment", "{}")),
    }
