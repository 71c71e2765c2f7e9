"""Conjugate gradient steps buy accuracy only down to the floor that the inner error sets.

Claim. At φ* the error of CG-k falls at least as fast as 2√κ((√κ − 1)/(√κ + 1))^k, down to rounding, and ends after as
many steps as A has distinct eigenvalues. After K inner steps the curve follows the same line until it meets the error
of exact inversion at φ_K (dash-dotted), and more steps are wasted. "Five steps suffice" is a fact about a spectrum.

Source. Hestenes and Stiefel 1952; the bound in the 2-norm carries a factor √κ over the usual one in the A-norm.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from analysis.claims import Claim, at_most, near
from analysis.figure import Figure
from analysis.panels import PANELS, panels
from implicit_grad import CG, Cholesky, GradientDescent, ImplicitGradient, MetaGradient, plot
from implicit_grad.sweep import ErrorSweep

STEM = "error_vs_cg_iterations"
LONGEST = 40
INNER_STEPS = (4, 32, 128)
SOURCE = "Hestenes and Stiefel 1952"


def sweeps(quick: bool, seed: int) -> dict[str, ErrorSweep]:
    """CG-0 … CG-40 and exact inversion, at φ* and after a few inner steps; one CG run serves all counts."""
    inner = GradientDescent(None, 0)
    solvers = [Cholesky(), *(CG(k) for k in range(LONGEST + 1))]
    methods = tuple(MetaGradient(inner, ImplicitGradient(solver, require_minimum=False)) for solver in solvers)
    return {
        name: ErrorSweep(
            panel.source,
            methods,
            (panel.lam,),
            INNER_STEPS,
            panel.tasks,
            seed,
            at_optimum=True,
            reference_solver=panel.reference_solver,
        )
        for name, panel in panels(quick).items()
    }


def draw(tables: Mapping[str, Any]) -> Any:
    """Error over conjugate gradient steps, one line per inner accuracy."""
    figure, axes = plot.grid(len(tables), height=2.7)
    for column, (name, table) in enumerate(tables.items()):
        ax, table = axes[0, column], table.isel(lam=0)
        counts = np.arange(LONGEST + 1)
        errors = table.relative_error.sel(estimator=[f"CG-{k}" for k in counts])
        for i, steps in enumerate(table.inner_steps.values):
            style = plot.Style(plot.SERIES[i + 1] if np.isfinite(steps) else plot.SERIES[0], "oDvs"[i % 4])
            at = "φ*" if not np.isfinite(steps) else f"φ$_K$, K = {steps:.0f}"
            values = errors.sel(inner_steps=steps).values
            indefinite = (table.margin.sel(inner_steps=steps) <= 0).mean("task").values > 0.5
            hollow = np.full(len(counts), indefinite)
            plot.band(ax, counts, values, label=f"CG-k at {at}", style=style, hollow=hollow, markevery=4)
            exact = float(table.relative_error.sel(estimator="exact inversion", inner_steps=steps).median("task"))
            if np.isfinite(steps) and np.isfinite(exact):
                ax.axhline(exact, color=style.color, linestyle="-.", linewidth=0.8, zorder=1)
        ax.plot([], [], color="0.35", linestyle="-.", linewidth=0.8, label="exact inversion at φ$_K$")
        _theory(ax, table, counts)
        ax.set_yscale("log")
        ax.set_ylim(1e-17, 10)
        ax.set_xlabel("conjugate gradient steps k")
        plot.panel_title(
            ax, column, f"{PANELS[name].title}\nλ = {float(table.lam):g}, κ = {float(table.condition.median()):.3g}"
        )
    axes[0, 0].set_ylabel("relative error of the meta-gradient")
    plot.shared_legend(figure, axes.ravel(), columns=4)
    return figure


def _theory(ax: Any, table: Any, counts: Any) -> None:
    kappa = float(table.condition.median())
    root = np.sqrt(kappa)
    bound = 2 * root * ((root - 1) / (root + 1)) ** counts
    plot.theory_line(ax, counts, bound, "bound 2√κ((√κ−1)/(√κ+1))ᵏ")
    plot.floor_line(ax, np.finfo(float).eps * kappa, "rounding, eps·κ")


def claims(tables: Mapping[str, Any]) -> list[Claim]:
    """The bound at φ*, and the floor of exact inversion at φ_K."""
    found = []
    for name, table in tables.items():
        table = table.isel(lam=0)
        counts = np.arange(LONGEST + 1)
        errors = table.relative_error.sel(estimator=[f"CG-{k}" for k in counts])
        errors = errors.transpose("inner_steps", "estimator", "task")
        kappa = table.condition.values
        root = np.sqrt(kappa)
        bound = 2 * root * ((root - 1) / (root + 1)) ** counts[:, None]
        at_star = errors.sel(inner_steps=np.inf).values
        seen = np.where(bound > 1e3 * np.finfo(float).eps * kappa, at_star / bound, np.nan)
        found.append(at_most(f"{name}: error of CG-k at φ* over the bound, largest", np.nanmax(seen), 1, SOURCE))
        exact = table.relative_error.sel(estimator="exact inversion").transpose("inner_steps", "task")
        ratio = errors.isel(estimator=-1) / exact
        farthest = ratio.sel(inner_steps=list(INNER_STEPS)).median("task").values
        farthest = farthest[np.abs(np.log(farthest)).argmax()]
        found.append(
            near(f"{name}: error of CG-{LONGEST} over exact inversion at φ_K, farthest from 1", farthest, 1, 0.05)
        )
    return found


FIGURE = Figure(STEM, sweeps, draw, claims=claims)
