"""One Newton correction before the linear solve squares the error of the implicit gradient.

Claim. At φ = φ* + δ(θ − φ*) the error of the implicit gradient has slope 1 in δ; corrected by one Newton step it has
slope 2, for one more solve with the same kind of matrix. On a quadratic train loss the correction is exact from any
φ, so there is no slope to see. The line is straight because the direction is fixed: along a gradient descent path
φ_K − φ* turns towards the flattest directions while it shrinks, and fitted slopes come out up to 0.15 off.

Source. Ye, Peyré, Cremers, Ablin 2024 (arXiv:2402.16748), super-efficiency of preconditioned implicit
differentiation; Rajeswaran et al. 2019, implicit gradient accuracy, for slope 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from analysis.claims import Claim, at_most, near
from analysis.figure import Figure
from analysis.panels import PANELS, panels
from analysis.study import Progress, Study, dataset, draw, host, silent, solved
from implicit_grad import CG, Cholesky, ImplicitGradient, InnerSolver, LinearSolver, SuperEfficientGradient, plot
from implicit_grad.tasks import TaskSource

STEM = "super_efficiency"
EPS = float(np.finfo(float).eps)
IMPLICIT, CORRECTED = "implicit", "after one Newton step"
STYLES = {IMPLICIT: plot.Style("#000000", "s"), CORRECTED: plot.Style("#D55E00", "D")}


@dataclass(frozen=True)
class RayStudy:
    """Both gradients at points of the ray from φ* to θ."""

    source: TaskSource
    lam: float
    deltas: tuple[float, ...]
    tasks: int
    seed: int
    linear_solver: LinearSolver
    reference_solver: InnerSolver

    def run(self, progress: Progress = silent, *, backend: Any = None) -> Any:
        """Return the error over (estimator, delta, task)."""
        host(backend)
        progress("reference")
        problem, theta = draw(self.source, self.lam, self.tasks, self.seed)
        scene = solved(problem, theta, solver=self.reference_solver)
        star = scene.optimum.value
        points = star + np.array(self.deltas)[:, None, None] * (theta - star)
        there = replace(scene.optimum, value=points)
        errors = []
        for estimator in (
            ImplicitGradient(self.linear_solver, require_minimum=False),
            SuperEfficientGradient(self.linear_solver),
        ):
            progress(f"{estimator.label} at {len(self.deltas)} distances")
            errors.append(scene.error(estimator(problem, theta, there).gradient))
        return dataset(
            self,
            {
                "relative_error": (("estimator", "delta", "task"), np.stack(errors)),
                "condition": ("task", scene.condition),
            },
            {"estimator": [IMPLICIT, CORRECTED], "delta": list(self.deltas)},
            ran=f"{self.source.label}; λ = {self.lam:g}, {self.tasks} tasks, seed {self.seed}; δ from "
            f"{self.deltas[0]:g} to {self.deltas[-1]:.0e}; systems by {self.linear_solver!r}; "
            f"κ(A) at φ* from {scene.condition.min():.3g} to {scene.condition.max():.3g}",
        )


def sweeps(quick: bool, seed: int) -> dict[str, Study]:
    """The three problems, at distances from 1 down to rounding."""
    deltas = tuple(np.logspace(0, -13, 14 if quick else 27).tolist())
    found: dict[str, Study] = {}
    for name, panel in panels(quick).items():
        # d = 1761: both systems to rounding by conjugate gradients.
        solver: LinearSolver = CG(400, 1e-13) if name == "sinusoid" else Cholesky(refinements=1)
        found[name] = RayStudy(
            panel.source, panel.lam, deltas, min(panel.tasks, 8), seed, solver, panel.reference_solver
        )
    return found


def _slope(table: Any, estimator: str) -> tuple[float, float]:
    """Slope over δ where the error is above rounding and δ small; the squared error meets rounding at √ of it."""
    floor = EPS * float(table.condition.median())
    order = 1 if estimator == IMPLICIT else 2
    errors = table.relative_error.sel(estimator=estimator).transpose("delta", "task").values
    delta = np.broadcast_to(table.delta.values[:, None], errors.shape)
    return plot.fitted_slope(delta, errors, low=(1e3 * floor) ** (1 / order), high=2e-2)


def draw_figure(tables: Mapping[str, Any]) -> Any:
    """Error over δ, one panel a problem."""
    figure, axes = plot.grid(len(tables))
    for column, (name, table) in enumerate(tables.items()):
        ax = axes[0, column]
        plot.plot_errors(table, ax=ax, x="delta", styles=STYLES)
        plot.floor_line(ax, EPS * float(table.condition.median()), "rounding, eps·κ")
        ax.invert_xaxis()
        # Beside the lines: right of the upper one, left of the lower one.
        for estimator, linestyle, corner, width in (
            (IMPLICIT, (0, (4, 2)), (1e-11, 1e-6), 3.0),
            (CORRECTED, "-.", (1e-1, 1e-9), -2.0),
        ):
            slope, factor = _slope(table, estimator)
            if np.isfinite(slope):
                ends = np.geomspace(max(1e-13, (1e-17 / factor) ** (1 / slope)), 1, 50)
                plot.theory_line(ax, ends, factor * ends**slope, f"fit, {estimator}", linestyle=linestyle)
                plot.slope_triangle(ax, corner, round(slope, 2), decades=width)
        ax.set_ylim(1e-17, 10)
        ax.set_xlabel("δ = ‖φ − φ*‖ / ‖θ − φ*‖")
        plot.panel_title(ax, column, PANELS[name].title.replace("digits 5-way 5-shot", "digits"))
    axes[0, 0].set_ylabel("relative error of the meta-gradient")
    plot.shared_legend(figure, axes.ravel(), columns=5)
    return figure


def claims(tables: Mapping[str, Any]) -> list[Claim]:
    """Slopes 1 and 2; exactness on quadratics."""
    found = []
    source = "Ye et al. 2024"
    for name, table in tables.items():
        slope = _slope(table, IMPLICIT)[0]
        found.append(near(f"{name}: slope of the implicit gradient's error over δ", slope, 1, 0.1))
        if name == "ridge":
            corrected = table.relative_error.sel(estimator=CORRECTED)
            worst = (corrected / (EPS * table.condition)).max()
            found.append(at_most("ridge: error after one Newton step over eps·κ, any φ, largest", worst, 1e3, source))
        else:
            slope = _slope(table, CORRECTED)[0]
            found.append(near(f"{name}: slope after one Newton step", slope, 2, 0.1, source))
    return found


FIGURE = Figure(
    STEM,
    sweeps,
    draw_figure,
    claims=claims,
    reading="Lines are medians over tasks, bands the 10 to 90 % quantiles. Reference: φ* by Newton from θ, g* by "
    "dense Cholesky with refinement.",
)
