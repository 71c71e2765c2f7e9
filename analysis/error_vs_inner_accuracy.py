"""The implicit gradient's error falls with the inner error, to a floor that the linear solve sets.

Claim. Exact inversion follows ‖φ_K − φ*‖ with slope 1 down to rounding; CG-k stops at the floor of its k steps;
unrolling the regularised objective converges too, at the rate of gradient descent (1 − αμ)^K, while unrolling the
plain objective, as MAML does, and the first-order gradient converge to something else.

Source. Rajeswaran et al. 2019 (arXiv:1909.04630), figure 2a and the implicit gradient accuracy lemma. There is no
global strong convexity for the network: its panels show what happens, not what the lemma promises.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from analysis.claims import Claim, at_least, near
from analysis.figure import Figure
from analysis.panels import PANELS, methods, panels
from analysis.study import median_slope
from implicit_grad import plot
from implicit_grad.sweep import ErrorSweep, powers_of_two

STEM = "error_vs_inner_accuracy"


def sweeps(quick: bool, seed: int) -> dict[str, ErrorSweep]:
    """Every estimator at K = 0, 1, 2, 4, … inner steps, one λ a panel."""
    return {
        name: ErrorSweep(
            panel.source,
            methods(),
            (panel.lam,),
            powers_of_two(panel.last),
            panel.tasks,
            seed,
            reference_solver=panel.reference_solver,
        )
        for name, panel in panels(quick).items()
    }


def draw(tables: Mapping[str, Any]) -> Any:
    """Error over inner steps (top) and over the iterate's distance (bottom)."""
    figure, axes = plot.grid(len(tables), 2, height=4.8)
    for column, (name, table) in enumerate(tables.items()):
        table = table.isel(lam=0)
        indefinite = (table.margin <= 0).mean("task").values > 0.5
        steps = table.inner_steps.values
        distance = table.distance.median("task").values
        top, bottom = axes[:, column]
        for estimator in table.estimator.values:
            errors = table.relative_error.sel(estimator=estimator).values
            # A logarithmic axis has no 0: K = 0 is drawn at ½, where the tick says 0.
            plot.band(top, np.maximum(steps, 0.5), errors, label=str(estimator), hollow=indefinite)
            if "plain" not in estimator:  # the plain objective has its own iterates
                plot.band(bottom, distance, errors, label=str(estimator), hollow=indefinite)
        bottom.invert_xaxis()
        _theory(top, bottom, table, steps, distance)
        plot.panel_title(bottom, column + len(tables))
        plot.panel_title(
            top, column, f"{PANELS[name].title}\nλ = {float(table.lam):g}, κ = {float(table.condition.median()):.3g}"
        )
        _axes(top, bottom, steps)
    axes[0, 0].set_ylabel("relative error of the meta-gradient")
    axes[1, 0].set_ylabel("relative error of the meta-gradient")
    if any(((table.margin <= 0).mean("task") > 0.5).any() for table in tables.values()):
        plot.hollow_key(axes[0, 0])
    plot.shared_legend(figure, axes.ravel(), columns=5)
    return figure


def _theory(top: Any, bottom: Any, table: Any, steps: Any, distance: Any) -> None:
    rate = 1 - float((table.step_size * table.curvature_min).median())
    exact = table.relative_error.sel(estimator="exact inversion")
    fine = np.geomspace(0.5, steps[-1], 200)
    start = float(table.relative_error.sel(estimator="unrolled").median("task").values[0])
    plot.theory_line(top, fine, start * rate**fine, "rate of gradient descent (1 − αμ)ᴷ")
    floor = np.finfo(float).eps * float(table.condition.median())
    for ax in (top, bottom):
        plot.floor_line(ax, floor, "rounding, eps·κ")
        ax.set_ylim(bottom=1e-17)
    slope, factor = plot.fitted_slope(table.distance.values, exact.values, low=1e3 * floor, high=1e-2)
    if np.isfinite(slope):
        ends = np.array([distance[distance > 0].min(), distance.max()])
        plot.theory_line(bottom, ends, factor * ends**slope, "fit to exact inversion", linestyle="-.")
        plot.note(bottom, f"slope {slope:.2f}", 0.05, 0.02)
        decades = 0.2 * float(np.log10(ends[1] / ends[0]))
        corner = float(np.sqrt(ends[0] * ends[1]))
        plot.slope_triangle(bottom, (corner, factor * corner**slope * 10 ** (-2 * decades)), 1, decades=decades)


def _axes(top: Any, bottom: Any, steps: Any) -> None:
    for ax in (top, bottom):
        ax.set_xscale("log")
        ax.set_yscale("log")
    last = int(np.log2(steps[-1]))
    ticks = [2**k for k in range(0, last + 1, 2)]
    top.set_xticks([0.5, *ticks], ["0", *map(str, ticks)])
    top.minorticks_off()
    top.set_xlabel("inner gradient steps K")
    bottom.set_xlabel("‖φ$_K$ − φ*‖ / ‖θ − φ*‖")


def claims(tables: Mapping[str, Any]) -> list[Claim]:
    """Slope 1 of exact inversion, the floor of CG-2, the rate of unrolling, and what does not converge."""
    found = []
    source = "Rajeswaran et al. 2019, figure 2a"
    for name, table in tables.items():
        table = table.isel(lam=0).transpose("estimator", "inner_steps", "task")
        errors, floor = table.relative_error, np.finfo(float).eps * table.condition
        exact = errors.sel(estimator="exact inversion")
        slope, _ = plot.fitted_slope(table.distance.values, exact.values, low=1e3 * float(floor.median()), high=1e-2)
        found.append(near(f"{name}: slope of exact inversion over the iterate's distance", slope, 1, 0.1, source))
        two = errors.sel(estimator="CG-2").isel(inner_steps=slice(-2, None)).median("task").values
        found.append(
            near(f"{name}: error of CG-2 at the last K over that at half of it", two[1] / two[0], 1, 0.05, source)
        )
        rate = np.log(1 - table.step_size * table.curvature_min).values
        unrolled = errors.sel(estimator="unrolled")
        tail = ((unrolled < 1e-2) & (unrolled > 1e3 * floor)).values
        steps = table.inner_steps.values[:, None] * rate
        measured = median_slope(steps, np.log(unrolled.values), tail)
        found.append(near(f"{name}: rate of unrolling over log(1 − αμ)", measured, 1, 0.15, source))
        for estimator in ("unrolled (plain)", "first-order"):
            last = errors.sel(estimator=estimator).isel(inner_steps=-1).median("task")
            found.append(at_least(f"{name}: error of {estimator} at the last K", last, 0.1))
    return found


FIGURE = Figure(STEM, sweeps, draw, claims=claims)
