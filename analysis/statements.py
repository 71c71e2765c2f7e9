"""Published statements that do not hold, each with what it costs to believe them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Effect:
    """A measured quantity over λ on one problem; `lam` is empty where there is none to vary."""

    quantity: str
    problem: str
    lam: tuple[float, ...]
    value: tuple[float, ...]


@dataclass(frozen=True)
class Statement:
    """A statement, what holds instead, and the measured difference.

    Attributes
    ----------
    says, instead : str
        In our words. A claim that refutes the statement has `says` as its `refutes`.
    effects : tuple of Effect
    quoted : str
        Numbers of others, for what is not measured here.
    """

    says: str
    instead: str
    effects: tuple[Effect, ...] = ()
    quoted: str = ""


def as_rows(statements: Iterable[Statement]) -> list[dict[str, Any]]:
    """Return statements as JSON can hold them; a number that is not finite is None."""
    rows = [asdict(each) for each in statements]
    for row in rows:
        for effect in row["effects"]:
            effect["value"] = [x if math.isfinite(x) else None for x in effect["value"]]
    return rows


def restored(rows: Iterable[Mapping[str, Any]]) -> list[Statement]:
    """Return the statements of rows as `as_rows` makes them; None comes back as NaN."""
    return [
        Statement(
            row["says"],
            row["instead"],
            tuple(
                Effect(
                    effect["quantity"],
                    effect["problem"],
                    tuple(effect["lam"]),
                    tuple(math.nan if x is None else x for x in effect["value"]),
                )
                for effect in row["effects"]
            ),
            row.get("quoted", ""),
        )
        for row in rows
    ]
