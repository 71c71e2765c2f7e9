"""Stored results, as the report reads them, and the verdict on each claim."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from analysis import claims as stored_claims
from analysis import statements as stored_statements
from analysis.claims import Claim
from analysis.statements import Statement
from implicit_grad.errors import CorruptData, DataNotFound


class Verdict(Enum):
    """What became of a claim; the value is what a reader sees."""

    HOLDS = "holds"
    FAILS = "does not hold"
    UNMEASURED = "not measured"
    UNJUDGED = "not judged on quick grids"


@dataclass(frozen=True)
class Stored:
    """What one figure left in its folder.

    Attributes
    ----------
    stem : str
    about : mapping
        Words, seed, size, machine and duration, as `record.about` writes them; may be short in older files.
    claims : tuple of Claim
    statements : tuple of Statement
        Published statements that the figure examines.
    image : bytes or None
        The PNG.
    """

    stem: str
    about: Mapping[str, Any]
    claims: tuple[Claim, ...] = ()
    statements: tuple[Statement, ...] = ()
    image: bytes | None = None

    @property
    def quick(self) -> bool:
        """Whether it was drawn on small grids."""
        return bool(self.about.get("quick", False))

    def text(self, name: str) -> str:
        """Return one of the words, empty if it was not stored."""
        return str(self.about.get(name) or "")

    def verdict(self, claim: Claim) -> Verdict:
        """Judge: on quick grids only what holds is said; a number that is NaN was not measured."""
        if claim.holds:
            return Verdict.HOLDS
        if self.quick:
            return Verdict.UNJUDGED
        return Verdict.UNMEASURED if math.isnan(claim.measured) else Verdict.FAILS

    def count(self, *verdicts: Verdict) -> int:
        """Return how many claims have one of the verdicts."""
        return sum(self.verdict(claim) in verdicts for claim in self.claims)


def failures(results: Iterable[Stored]) -> int:
    """Return how many claims fail, or were to be measured and were not, on full grids."""
    return sum(each.count(Verdict.FAILS, Verdict.UNMEASURED) for each in results)


STANDING = {
    Verdict.HOLDS: "not refuted here",
    Verdict.FAILS: "does not hold",
    Verdict.UNMEASURED: "not measured here",
    Verdict.UNJUDGED: "not judged on quick grids",
}
"""Verdict on a statement in words: what could not be refuted is not thereby shown."""


def standing(statement: Statement, results: Iterable[Stored]) -> Verdict:
    """Judge a statement by the claims that refute it: it fails if all of these hold."""
    verdicts = [each.verdict(c) for each in results for c in each.claims if c.refutes == statement.says]
    if not verdicts:
        return Verdict.UNMEASURED
    if all(verdict is Verdict.HOLDS for verdict in verdicts):
        return Verdict.FAILS
    for verdict in (Verdict.UNJUDGED, Verdict.UNMEASURED):
        if verdict in verdicts:
            return verdict
    return Verdict.HOLDS


def read(folder: Path, stem: str) -> Stored:
    """Read what a figure left in `folder`.

    Raises
    ------
    DataNotFound
        If its results are not there.
    CorruptData
        If they cannot be read.
    """
    path = Path(folder) / "results" / f"{stem}.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = tuple(stored_claims.restored(content.pop("claims")))
        examined = tuple(stored_statements.restored(content.pop("statements", ())))
    except FileNotFoundError:
        raise DataNotFound(f"{path}: no stored result; run `implicit-grad reproduce {stem}` first") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptData(f"{path}: not a stored result ({error!r}); delete it and draw {stem} again") from error
    image = Path(folder) / f"{stem}.png"
    return Stored(stem, content, found, examined, image.read_bytes() if image.exists() else None)


def read_all(folder: Path, order: Sequence[str] = ()) -> list[Stored]:
    """Read every result in `folder`: those named in `order` first, in that order, then the others by name."""
    there = sorted(path.stem for path in (Path(folder) / "results").glob("*.json"))
    stems = [stem for stem in order if stem in there] + [stem for stem in there if stem not in order]
    return [read(folder, stem) for stem in stems]
