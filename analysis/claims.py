"""What a figure asserts, as numbers that a reader or a program can check."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from implicit_grad import storage

SCHEMA = 2
"""Version of the files that `save` writes."""


class Relation(Enum):
    """How a measured number is to stand to the wanted one."""

    NEAR = "within the tolerance of"
    AT_MOST = "at most"
    AT_LEAST = "at least"


@dataclass(frozen=True)
class Claim:
    """One number with what it has to be.

    Attributes
    ----------
    name : str
        A sentence, complete without the figure.
    measured, wanted : float
    tolerance : float
        Absolute, for `NEAR`; 0 otherwise.
    relation : Relation
    source : str
        Whose statement it is, where it is not the script's own: a paper and its theorem or figure.
    refutes : str
        The published statement that does not hold if this claim does.
    """

    name: str
    measured: float
    wanted: float
    tolerance: float = 0.0
    relation: Relation = Relation.NEAR
    source: str = ""
    refutes: str = ""

    def __post_init__(self) -> None:
        for name in ("measured", "wanted", "tolerance"):
            object.__setattr__(self, name, float(getattr(self, name)))

    @property
    def holds(self) -> bool:
        """Whether it does; never where the measured number is NaN: what could not be measured is not shown."""
        if math.isnan(self.measured):
            return False
        if self.relation is Relation.AT_MOST:
            return self.measured <= self.wanted
        if self.relation is Relation.AT_LEAST:
            return self.measured >= self.wanted
        return abs(self.measured - self.wanted) <= self.tolerance

    def __str__(self) -> str:
        what = {
            Relation.NEAR: f"{self.wanted:.4g} ± {self.tolerance:.2g}",
            Relation.AT_MOST: f"≤ {self.wanted:.4g}",
            Relation.AT_LEAST: f"≥ {self.wanted:.4g}",
        }[self.relation]
        source = f" [{'against: ' if self.refutes else ''}{self.source}]" if self.source else ""
        return (
            f"{self.name}: {self.measured:.4g}, wanted {what}: {'holds' if self.holds else 'DOES NOT HOLD'}{source}"
        )


def near(name: str, measured: Any, wanted: Any, tolerance: float, source: str = "") -> Claim:
    """Claim that a number is `wanted` within an absolute tolerance: a slope, within ±0.1."""
    return Claim(name, measured, wanted, tolerance, Relation.NEAR, source)


def at_most(name: str, measured: Any, wanted: Any, source: str = "") -> Claim:
    """Claim that a number is not larger than `wanted`: error over bound, at most 1."""
    return Claim(name, measured, wanted, 0.0, Relation.AT_MOST, source)


def at_least(name: str, measured: Any, wanted: Any, source: str = "") -> Claim:
    """Claim that a number is not smaller than `wanted`."""
    return Claim(name, measured, wanted, 0.0, Relation.AT_LEAST, source)


def save(claims: Iterable[Claim], path: Path, **about: Any) -> None:
    """Write claims as JSON, atomically; `about` goes to the top level. A number that is not finite is null."""
    rows = [
        {
            "name": each.name,
            "measured": _finite(each.measured),
            "wanted": _finite(each.wanted),
            "tolerance": _finite(each.tolerance),
            "relation": each.relation.name,
            "source": each.source,
            **({"refutes": each.refutes} if each.refutes else {}),
            "holds": each.holds,
        }
        for each in claims
    ]
    text = json.dumps({"schema": SCHEMA, **about, "claims": rows}, ensure_ascii=False, indent=1, allow_nan=False)
    with storage.atomic_target(path) as target:
        target.write_text(text + "\n", encoding="utf-8")


def load(path: Path) -> list[Claim]:
    """Read what `save` wrote; null comes back as NaN."""
    return restored(json.loads(Path(path).read_text(encoding="utf-8"))["claims"])


def restored(rows: Iterable[Mapping[str, Any]]) -> list[Claim]:
    """Return the claims of rows as `save` writes them."""
    return [
        Claim(
            row["name"],
            *(math.nan if row[key] is None else row[key] for key in ("measured", "wanted", "tolerance")),
            relation=Relation[row["relation"]],
            source=row["source"],
            refutes=row.get("refutes", ""),
        )
        for row in rows
    ]


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None
