"""From a script's sweeps and drawing to files: compute, store, draw, save."""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from analysis import claims as ledger
from analysis import record
from analysis.cells import cells_of, compute
from analysis.claims import Claim
from analysis.statements import Statement, as_rows
from analysis.study import Study
from implicit_grad import storage
from implicit_grad.backend import Backend, get_backend
from implicit_grad.engine import Runner
from implicit_grad.errors import ArgumentError, DataNotFound

SEED = 20191204
"""Default seed of tasks and parameters; the day iMAML was presented."""

DEFAULT = ("error_vs_inner_accuracy", "error_vs_lambda", "error_vs_cg_iterations")
"""The figures of the README: what is drawn when nobody says which."""

STEMS = (
    *DEFAULT,
    "jacobian_error_vs_iterate_error",
    "itd_vs_aid_rates",
    "error_vs_spectrum",
    "super_efficiency",
    "neumann_nystrom_cg",
    "truncation_window",
    "rounding_floor",
    "certificate_vs_error",
    "error_budget",
    "accuracy_on_demand",
    "published_variants",
    "popular_article",
    "time_memory_vs_inner_steps",
    "compute_accuracy_pareto",
    "cost_vs_condition",
    "branch_found",
    "relu_kinks",
    "training_vs_gradient_error",
)
"""All figures, in the order in which `all` draws them."""

_READING = """Lines are medians over tasks, bands the 10 to 90 % quantiles. Reference: φ* by Newton from the
last iterate of gradient descent, g* by dense Cholesky with refinement."""


def _no_claims(tables: Mapping[str, Any]) -> list[Claim]:
    return []


def _no_statements(tables: Mapping[str, Any]) -> list[Statement]:
    return []


@dataclass(frozen=True)
class Figure:
    """What a script in this folder defines.

    Attributes
    ----------
    stem : str
        Name of the script and of its files.
    sweeps : callable
        `(quick, seed) → {panel name: Study}`; an `ErrorSweep` is one.
    draw : callable
        `{panel name: Dataset} → matplotlib Figure`.
    claims : callable
        `{panel name: Dataset} → list of Claim`: what the figure asserts, measured.
    reading : str
        How to read lines and bands, and what the errors refer to; the end of the caption.
    optional : tuple of str
        Panels that `sweeps` leaves out where their data are not found: the caption then says so.
    statements : callable
        `{panel name: Dataset} → list of Statement`: published statements that the figure examines.
    """

    stem: str
    sweeps: Callable[[bool, int], Mapping[str, Study]]
    draw: Callable[[Mapping[str, Any]], Any]
    claims: Callable[[Mapping[str, Any]], list[Claim]] = field(default=_no_claims, kw_only=True)
    reading: str = field(default=_READING, kw_only=True)
    optional: tuple[str, ...] = field(default=(), kw_only=True)
    statements: Callable[[Mapping[str, Any]], list[Statement]] = field(default=_no_statements, kw_only=True)

    def reproduce(
        self,
        out: Path,
        *,
        quick: bool = False,
        seed: int = SEED,
        replot: bool = False,
        progress: Any = None,
        backend: str | Backend | None = None,
        paper: str = "page",
        runner: Runner | None = None,
        fresh: bool = False,
    ) -> list[Path]:
        """Run the sweeps (or read their results with `replot`), draw, and return the files written.

        `backend` is where the sweeps compute; nothing falls back to the host. `paper` is a key of `plot.PAPERS`.
        `runner` computes what `out/results` does not hold; with `fresh`, everything.
        """
        from implicit_grad import plot  # matplotlib is slow to load: only once there is something to draw

        results = storage.check_writable(out / "results")
        paths = {panel: results / f"{self.stem}.{panel}.nc" for panel in self.sweeps(quick, seed)}
        if replot:
            tables = {panel: self._stored(path) for panel, path in paths.items()}
        else:
            cells = cells_of(self, quick=quick, seed=seed, backend=get_backend(backend).name)
            found = compute(cells.values(), results, runner=runner, fresh=fresh, progress=progress)
            tables = dict(zip(cells, found, strict=True))
            for panel, table in tables.items():
                storage.save(table, paths[panel])
        with plot.house_style(plot.PAPERS[paper]):
            files = list(plot.save_figure(self.draw(tables), out / self.stem))
        about = record.about(
            importlib.import_module(f"analysis.{self.stem}"),
            tables,
            ran=self.ran(tables),
            seed=seed,
            quick=quick,
            usual_seed=SEED,
        )
        about["statements"] = as_rows(self.statements(tables))
        ledger.save(self.claims(tables), results / f"{self.stem}.json", stem=self.stem, **about)
        caption = out / f"{self.stem}.md"
        with storage.atomic_target(caption) as target:
            target.write_text(self.caption(tables), encoding="utf-8")
        return [*files, caption]

    def ran(self, tables: Mapping[str, Any]) -> dict[str, str]:
        """Return what was run, panel by panel."""
        missing = {panel: "left out, its data were not found." for panel in self.optional if panel not in tables}
        return {panel: _what_ran(table) for panel, table in tables.items()} | missing

    def caption(self, tables: Mapping[str, Any]) -> str:
        """Return the figure's claim and what was run for it, panel by panel."""
        module = importlib.import_module(f"analysis.{self.stem}")
        lines = [f"# {self.stem}", "", inspect.cleandoc(module.__doc__ or ""), "", "What was run:", ""]
        lines += [f"- **{panel}**: {text}" for panel, text in self.ran(tables).items()]
        measured = self.claims(tables)
        if measured:
            lines += ["", "What was measured:", "", *(f"- {claim}." for claim in measured)]
        lines += ["", self.reading, ""]
        return "\n".join(lines)

    def _stored(self, path: Path) -> Any:
        try:
            return storage.load(path)
        except FileNotFoundError:
            raise DataNotFound(f"{path}: no stored sweep; run without --replot first") from None


def _what_ran(table: Any) -> str:
    if "ran" in table.attrs:
        return str(table.attrs["ran"])
    steps = [f"{k:.0f}" if np.isfinite(k) else "∞ (φ*)" for k in table.inner_steps.values]
    lams = [f"{lam:.3g}" for lam in table.lam.values]
    kappa = table.condition.values
    versions = json.loads(table.attrs["versions"])
    return (
        f"{table.attrs['source']}; d = {table.attrs['dimension']}, {table.sizes['task']} tasks, "
        f"seed {table.attrs['seed']}; λ = {', '.join(lams)}; K = {', '.join(steps)}; κ(A) at φ* from "
        f"{kappa.min():.3g} to {kappa.max():.3g}; cells without a converged reference: "
        f"{table.attrs['missing_references']} of {kappa.size}; NumPy {versions['numpy']}, SciPy {versions['scipy']}."
    )


def figure(stem: str) -> Figure:
    """Return the figure of one script.

    Raises
    ------
    ArgumentError
        With the nearest name, for an unknown one.
    """
    if stem not in STEMS:
        near = get_close_matches(stem, STEMS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ArgumentError(f"figures: {stem!r} is none of {', '.join(STEMS)}{hint}")
    found: Figure = importlib.import_module(f"analysis.{stem}").FIGURE
    return found
