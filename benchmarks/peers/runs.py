"""One row of the table is one run of `verify`; a failure is run again until the setting to blame is known."""

from __future__ import annotations

import json
import re
import textwrap
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.peers.cases import CASES, Case
from benchmarks.peers.libraries import Library, candidate
from benchmarks.peers.recipes import Recipe
from implicit_grad.verify import Cause, Report, verify

RTOL = 1e-4
"""Error that is good enough: far below the noise of any meta-training, far above any rounding."""

_CLOSE = 0.3
"""Share of the error that a formula may leave to be worth a word."""

_ORDER = ("JAX", "JAXopt", "Optimistix", "Lineax", "PyTorch", "TorchOpt", "higher")

USUAL, STRICT = "usual", "strict"


@dataclass(frozen=True)
class Run:
    """What `verify` said of one recipe on one problem.

    Attributes
    ----------
    library, recipe, case : str
    precision : str
        "float32" or "float64": what data, θ and the library's arithmetic are in.
    settings : str
        "usual", "strict", or "only KNOB": that knob is loose and the others are strict.
    verdict : str
    error : float or None
        ‖gradient − ∇F‖/‖∇F‖, the worst of all θ; None where there was no number.
    resolution : float
        What the oracles leave open, over ‖∇F‖.
    diagnosis : str
        Of `verify`; empty where there is none.
    seen : str
        Faults other than a wrong number.
    """

    library: str
    recipe: str
    case: str
    precision: str
    settings: str
    verdict: str
    error: float | None
    resolution: float
    diagnosis: str
    seen: str

    @property
    def key(self) -> tuple[str, ...]:
        """What tells it from other runs."""
        return self.library, self.recipe, self.case, self.precision, self.settings

    @property
    def label(self) -> str:
        """Library and recipe."""
        return f"{self.library}: {self.recipe}"

    @property
    def causes(self) -> bool:
        """Whether the diagnosis names a formula."""
        return bool(self.diagnosis) and not self.diagnosis.startswith("no formula")

    @property
    def failed(self) -> bool:
        """Whether the verdict is a failure."""
        return self.verdict == "FAIL"


def explain(report: Report) -> str:
    """Return the diagnosis in a cell: the causes, or how near the closest formula comes."""
    why = report.diagnosis
    if why is None:
        return ""
    if len(why.causes) == 1:
        cause = re.sub(r"\s+with ", ", ", str(why.causes[0]))
        return cause if why.confident else f"likely {cause}"
    if why.causes:
        names = [cause.name for cause in why.causes]
        return f"cannot tell {len(names)} formulas apart: {', '.join(names[:3])}{', …' if len(names) > 3 else ''}"
    if why.closest and why.closest[0].residual <= _CLOSE:
        left = why.closest[0].residual
        return (
            f"{why.closest[0].name} up to {left:.0e} of the error" if left <= 0.01 else _unexplained(why.closest[0])
        )
    return "no formula of the catalogue"


def _unexplained(cause: Cause) -> str:
    return f"no formula of the catalogue; {cause.name} leaves {cause.residual:.0%}"


def brief(detail: str) -> str:
    """Return one line: of a traceback inside a message, the last error in it."""
    errors = re.findall(r"^[\w.]*Error: .*$", detail, flags=re.MULTILINE)
    line = (errors or detail.strip().splitlines() or [""])[-1 if errors else 0]
    return textwrap.shorten(line, 160, placeholder=" …")


def judge(library: Library, recipe: Recipe, case: Case, strict: frozenset[str], precision: str, settings: str) -> Run:
    """Run `verify` once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs; what matters is the number
        report = verify(candidate(library, recipe, case, strict, precision), case.problem, case.trees, rtol=RTOL)
    error = report.error
    return Run(
        recipe.library,
        recipe.name,
        case.name,
        precision,
        settings,
        report.verdict.name,
        None if error != error else float(f"{error:.3g}"),
        float(f"{report.resolution:.3g}"),
        explain(report),
        "; ".join(dict.fromkeys(f"{each.fault.name}: {brief(each.detail)}" for each in report.observations)),
    )


def runs_of(library: Library, recipe: Recipe, case: Case) -> Iterator[Run]:
    """Usual settings in both precisions and strict ones in float64; where they fail, one loose knob at a time."""
    nothing: frozenset[str] = frozenset()
    yield judge(library, recipe, case, nothing, "float32", USUAL)
    usual = judge(library, recipe, case, nothing, "float64", USUAL)
    yield usual
    if not recipe.knobs:
        return
    yield judge(library, recipe, case, recipe.strict, "float64", STRICT)
    if usual.failed and len(recipe.knobs) > 1:
        for knob in recipe.knobs:
            loose = recipe.strict - {knob.name}
            yield judge(library, recipe, case, loose, "float64", f"only {knob.name}")


@dataclass(frozen=True)
class Record:
    """All runs, with the versions they were made with.

    Attributes
    ----------
    runs : tuple of Run
    recipes : dict
        Label → its knobs, as lists of name, loose and strict value, and its remark.
    versions : dict of str
        Package → version.
    missing : dict of str
        Library → why it was not run.
    """

    runs: tuple[Run, ...] = ()
    recipes: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Record:
        """Return what a file holds; nothing, where there is none."""
        if not path.exists():
            return cls()
        stored = json.loads(path.read_text(encoding="utf-8"))
        return cls(tuple(Run(**run) for run in stored.pop("runs")), **stored)

    def write(self, path: Path) -> None:
        """Store it, one run a line."""
        lines = ",\n".join(json.dumps(asdict(run), ensure_ascii=False) for run in self.runs)
        rest = {"versions": self.versions, "missing": self.missing, "recipes": self.recipes}
        head = json.dumps(rest, ensure_ascii=False, indent=1)
        path.write_text(f'{head[:-2]},\n "runs": [\n{lines}\n]}}\n', encoding="utf-8")

    def with_library(self, name: str, library: Library) -> Record:
        """Return the record with what a library says of itself."""
        missing = {key: why for key, why in self.missing.items() if key != name}
        if library.missing:
            return replace(self, missing=missing | {name: library.missing})
        recipes = {
            recipe.label: {
                "knobs": [[knob.name, knob.loose, knob.strict] for knob in recipe.knobs],
                "remark": recipe.remark,
            }
            for recipe in library.recipes
        }
        mine = {recipe.library for recipe in library.recipes}
        others = {label: each for label, each in self.recipes.items() if label.split(": ")[0] not in mine}
        together = others | recipes
        labels = sorted(together, key=lambda label: _ORDER.index(label.split(": ")[0]))
        placed = {label: together[label] for label in labels}
        versions = self.versions | library.versions
        return replace(self, missing=missing, recipes=placed, versions=versions)

    def with_runs(self, more: tuple[Run, ...]) -> Record:
        """Return the record with runs added, replacing older ones of the same recipe and case."""
        done = {run.key[:3] for run in more}
        kept = [run for run in self.runs if run.key[:3] not in done and run.label in self.recipes]
        labels, cases = list(self.recipes), [case.name for case in CASES]

        def rank(run: Run) -> tuple[Any, ...]:
            order = (USUAL, STRICT)
            settings = order.index(run.settings) if run.settings in order else len(order)
            return labels.index(run.label), cases.index(run.case), settings, run.precision

        return replace(self, runs=tuple(sorted([*kept, *more], key=rank)))
