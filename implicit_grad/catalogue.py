"""The tables of methods and statuses in the README, generated from the methods and statuses themselves.

Every strategy class carries a `card`: what it costs, keeps and promises, where it fails, what it does at a saddle.
`python -m implicit_grad.catalogue README.md` writes the tables between the markers; a test holds the README to them.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

from implicit_grad import estimators, inner, linear
from implicit_grad.errors import ArgumentError
from implicit_grad.results import Card
from implicit_grad.status import STATUSES

_HEADINGS = {
    "estimators": ("estimator", estimators),
    "linear-solvers": ("linear solver", linear),
    "inner-solvers": ("inner solver", inner),
}
_STATUSES = "statuses"
_MARKER = re.compile(r"(<!-- table: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def methods(module: ModuleType) -> dict[str, Card]:
    """Return the cards of the strategies that a subpackage exports, by class name."""
    found = {name: getattr(value, "card", None) for name, value in vars(module).items() if isinstance(value, type)}
    return {name: card for name, card in sorted(found.items()) if isinstance(card, Card)}


def table(name: str) -> str:
    """Return one table in Markdown: `estimators`, `linear-solvers`, `inner-solvers` or `statuses`.

    Raises
    ------
    ArgumentError
        For another name.
    """
    if name == _STATUSES:
        lines = [f"| `{status.name}` | {'yes' if status.ok else 'no'} | {status.value} |" for status in STATUSES]
        return "\n".join(["| status | ok | meaning |", "|---|---|---|", *lines]) + "\n"
    if name not in _HEADINGS:
        raise ArgumentError(f"name: {name!r} is none of {sorted([*_HEADINGS, _STATUSES])}")
    heading, module = _HEADINGS[name]
    rows = [f"| {heading} | cost | memory | error | fails when | at a saddle |", "|---|---|---|---|---|---|"]
    for method, card in methods(module).items():
        rows.append(f"| `{method}` | {card.cost} | {card.memory} | {card.error} | {card.fails} | {card.saddle} |")
    return "\n".join(rows) + "\n"


def fill(text: str) -> str:
    """Return `text` with the table between each pair of markers replaced by the generated one."""
    return _MARKER.sub(lambda match: f"{match[1]}\n{table(match[2])}\n{match[3]}", text)


def main(arguments: list[str]) -> None:
    """Fill the tables of the files named."""
    for name in arguments:
        path = Path(name)
        path.write_text(fill(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
