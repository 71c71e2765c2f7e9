"""The shares of a certificate say which solve to improve.

Claim. With few inner steps all of the bound is the inner solve's, and conjugate gradient steps are wasted; with many,
the linear solve's share takes over. Along K the bound falls to the linear share of CG-10 and stays; along the number
of conjugate gradient steps it falls to the inner share at φ_K and stays. Where the shares are equal neither solve
wastes work: that is where `to_accuracy` goes along.

Source. The decomposition of the bound, ‖g − ∇F‖ ≤ (λ/m)(‖r_lin‖ + (β + ρ‖g‖/λ)‖r_in‖/m); balanced inexactness as in
Eisenstat and Walker 1996.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.claims import Claim, at_least, at_most
from analysis.figure import Figure
from analysis.panels import DIGITS
from analysis.study import Progress, Study, dataset, draw, host, silent, solved
from implicit_grad import CG, GradientDescent, ImplicitGradient, certify, plot
from implicit_grad.backend import norm
from implicit_grad.tasks import TaskSource

STEM = "error_budget"
SHARES = ("inner", "linear", "rounding")
COLORS = dict(zip(SHARES, ("#0072B2", "#E69F00", "#999999"), strict=True))
BOTH = (
    ("relative_bound", "bound", plot.Style("#000000", "s")),
    ("relative_error", "true error", plot.Style("#D55E00", "o")),
)
LABELS = {"inner": "inner gradient steps K, CG-10", "linear": "conjugate gradient steps, K = 256"}


@dataclass(frozen=True)
class BudgetStudy:
    """Shares of the bound for a list of (inner steps, conjugate gradient steps)."""

    source: TaskSource
    lam: float
    budgets: tuple[tuple[int, int], ...]
    tasks: int
    seed: int

    def run(self, progress: Progress = silent, *, backend: Any = None) -> Any:
        """Return error, bound and shares, relative to ‖∇F‖, over (budget, task)."""
        host(backend)
        problem, theta = draw(self.source, self.lam, self.tasks, self.seed)
        kept = tuple(sorted({inner for inner, _ in self.budgets}))
        path = GradientDescent(None, kept[-1], record=kept)(problem, theta)
        scene = solved(problem, theta)
        size = norm(scene.gradient)
        columns: dict[str, list[Any]] = {name: [] for name in ("relative_error", "relative_bound", *SHARES)}
        for inner, steps in self.budgets:
            progress(f"K = {inner}, CG-{steps}")
            estimate = ImplicitGradient(CG(steps))(problem, theta, path.at(inner))
            found = certify(problem, theta, estimate, gradient_steps=0)
            columns["relative_error"].append(scene.error(estimate.gradient))
            columns["relative_bound"].append(found.bound / size)
            for name in SHARES:
                columns[name].append(getattr(found, f"{name}_share") / size)
        return dataset(
            self,
            {name: (("budget", "task"), np.array(values)) for name, values in columns.items()},
            {
                "budget": np.arange(len(self.budgets)),
                "inner_steps": ("budget", [inner for inner, _ in self.budgets]),
                "cg_steps": ("budget", [steps for _, steps in self.budgets]),
            },
            ran=f"{self.source.label}; λ = {self.lam:g}, {self.tasks} tasks, seed {self.seed}; (K, CG steps) = "
            f"{', '.join(map(str, self.budgets))}",
        )


def sweeps(quick: bool, seed: int) -> dict[str, Study]:
    """One run along K, one along the conjugate gradient steps."""
    tasks = 3 if quick else 12
    along_inner = tuple((2**k, 10) for k in range(12))
    along_linear = tuple((256, k) for k in (1, 2, 3, 4, 6, 8, 11, 16, 23, 32))
    return {
        "inner": BudgetStudy(DIGITS.source, DIGITS.lam, along_inner, tasks, seed),
        "linear": BudgetStudy(DIGITS.source, DIGITS.lam, along_linear, tasks, seed),
    }


def _x(name: str, table: Any) -> Any:
    return (table.inner_steps if name == "inner" else table.cg_steps).values


def draw_figure(tables: Mapping[str, Any]) -> Any:
    """Bound and error above, the fractions of the shares below."""
    figure, axes = plot.grid(len(tables), 2, height=3.7)
    for column, (name, table) in enumerate(tables.items()):
        x, (top, bottom) = _x(name, table), axes[:, column]
        steps = "inner_steps" if name == "inner" else "cg_steps"
        for y, label, style in BOTH:
            plot.plot_errors(
                table.expand_dims(one=[label]), ax=top, x=steps, y=y, series="one", styles={label: style}
            )
        plot.plot_shares(table, ax=bottom, x=steps, shares=SHARES, colors=COLORS.values())
        ticks = x if name == "linear" else x[::2]
        for ax in (top, bottom):
            ax.set_xscale("log", base=2)
            ax.set_xlim(x[0] / 1.08, x[-1] * 1.08)
            ax.set_xticks(ticks, [str(int(each)) for each in ticks])
            ax.minorticks_off()
        bottom.set_xlabel(LABELS[name])
        plot.panel_title(top, column, DIGITS.title if column == 0 else "")
        plot.panel_title(bottom, column + len(tables))
    axes[0, 0].set_ylabel("relative to ‖∇F‖")
    axes[1, 0].set_ylabel("fraction of the bound")
    plot.shared_legend(figure, axes.ravel(), columns=5)
    return figure


def claims(tables: Mapping[str, Any]) -> list[Claim]:
    """The culprit changes from one end to the other; the bound holds."""
    inner, linear = plot.share_fractions(tables["inner"]), plot.share_fractions(tables["linear"])
    crossed = sum(int((t.relative_error > t.relative_bound).sum()) for t in tables.values())
    return [
        at_most("bounds below the error", crossed, 0),
        at_least("inner share of the bound at K = 1", float(inner[0, 0]), 0.5),
        at_least("linear share of the bound at the largest K", float(inner[1, -1]), 0.5),
        at_least("linear share of the bound at CG-1", float(linear[1, 0]), 0.5),
        at_least("inner share of the bound at the most CG steps", float(linear[0, -1]), 0.5),
    ]


FIGURE = Figure(
    STEM, sweeps, draw_figure, claims=claims,
    reading="Lines are medians over tasks, bands the 10 to 90 % quantiles; fractions are medians, scaled to add up "
    "to 1.",
)  # fmt: skip
