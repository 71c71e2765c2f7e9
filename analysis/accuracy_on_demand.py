"""Asking for an accuracy costs less than one fixed budget that is enough for every λ.

Claim. `to_accuracy` (solid) follows the front of all fixed budgets of K inner steps and k conjugate gradient steps
(dashed) at one to three times the cost: it does not know the answer, and stops when its own certificate is below the
tolerance. The front is known to nobody beforehand. A budget that serves all λ must be that of the hardest, and the
sweep pays for it everywhere: two to three times the gradients asked for. In Hessian-vector products alone asking
costs about twice the fixed budget, since certificates make them, too; products are a tenth of the cost, or less.

Source. Eisenstat and Walker 1996 for the forcing terms; the certificate's shares decide which solve goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.claims import Claim, at_least, at_most
from analysis.figure import Figure
from analysis.panels import DIGITS, RIDGE
from analysis.study import Progress, Study, dataset, draw, host, silent, solved
from implicit_grad import CG, GradientDescent, ImplicitGradient, MetaGradient, plot
from implicit_grad.tasks import TaskSource

STEM = "accuracy_on_demand"
TITLES = {"ridge": RIDGE.title, "digits": DIGITS.title}
LINEAR_STEPS = (1, 2, 3, 5, 8, 12, 18, 26, 36, 50, 70, 100)
WANTED = 1e-4
"""The tolerance at which costs are compared."""


@dataclass(frozen=True)
class DemandStudy:
    """Errors and costs of a grid of fixed budgets, and of gradients to an accuracy."""

    source: TaskSource
    lams: tuple[float, ...]
    inner_steps: tuple[int, ...]
    rtols: tuple[float, ...]
    tasks: int
    seed: int

    def run(self, progress: Progress = silent, *, backend: Any = None) -> Any:
        """Return the error of the worst task and the cost a task, over λ and (budget) or (rtol)."""
        host(backend)
        fixed, error, bound, gradients, hvps = [], [], [], [], []
        method = MetaGradient(GradientDescent(None, 1), ImplicitGradient(CG(1)))
        for lam in self.lams:
            progress(f"λ = {lam:g}")
            problem, theta = draw(self.source, lam, self.tasks, self.seed)
            scene = solved(problem, theta)
            path = GradientDescent(None, self.inner_steps[-1], record=self.inner_steps)(problem, theta)
            for steps in self.inner_steps:
                run = ImplicitGradient(CG(LINEAR_STEPS[-1], record=True))(problem, theta, path.at(steps))
                fixed.append([scene.error(run.path.points[k]).max() for k in LINEAR_STEPS])
            for rtol in self.rtols:
                found = method.to_accuracy(problem, theta, rtol)
                error.append(scene.error(found.gradient).max())
                bound.append(np.where(found.ok, found.certificate.bound, np.nan).max())
                gradients.append(found.cost.gradients)
                hvps.append(found.cost.hvps)
        grid = (len(self.lams), len(self.inner_steps), len(LINEAR_STEPS))
        plane, wanted = (len(self.lams), len(self.rtols)), ("lam", "rtol")
        return dataset(
            self,
            {
                "fixed_error": (("lam", "inner_steps", "linear_steps"), np.reshape(fixed, grid)),
                "error": (wanted, np.reshape(error, plane)),
                "bound": (wanted, np.reshape(bound, plane)),
                "gradients": (wanted, np.reshape(gradients, plane)),
                "hvps": (wanted, np.reshape(hvps, plane)),
            },
            {
                "lam": list(self.lams),
                "inner_steps": list(self.inner_steps),
                "linear_steps": list(LINEAR_STEPS),
                "rtol": list(self.rtols),
            },
            ran=f"{self.source.label}; λ = {', '.join(f'{lam:g}' for lam in self.lams)}; {self.tasks} tasks, seed "
            f"{self.seed}; rtol from {self.rtols[0]:g} to {self.rtols[-1]:g}; fixed budgets: K up to "
            f"{self.inner_steps[-1]}, CG steps up to {LINEAR_STEPS[-1]}",
        )


def sweeps(quick: bool, seed: int) -> dict[str, Study]:
    """Ridge and digits, over λ."""
    powers = tuple(int(2 ** (k / 2)) for k in range(2, 19 if quick else 29))
    rtols = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
    tasks = 2 if quick else 4
    lams = (0.1, 1.0) if quick else (0.01, 0.1, 1.0, 10.0)
    return {
        "ridge": DemandStudy(RIDGE.source, lams, powers, rtols, tasks, seed),
        "digits": DemandStudy(DIGITS.source, lams, powers, rtols, tasks, seed),
    }


def _fixed_cost(table: Any) -> Any:
    """Gradients and products of a fixed budget: K + 1 and one linearisation, one of ∇L_test; k + 1 products."""
    return table.inner_steps + 3 + table.linear_steps + 1


def _savings(table: Any, rtol: float = WANTED) -> dict[str, float]:
    """Cost of fixed budgets that reach rtol over that of `to_accuracy`, summed over λ.

    `one` is the cheapest budget that is enough for every λ, in all and in gradients and products alone; `each` is the
    cheapest for each λ, which nobody knows beforehand.
    """
    cost, met = _fixed_cost(table), table.fixed_error <= rtol
    lams, asked = table.sizes["lam"], table.sel(rtol=rtol)
    each = cost.where(met, float("inf")).min(("inner_steps", "linear_steps"))
    one = cost.where(met.all("lam"), float("inf"))
    cheapest = one.isel(one.argmin(("inner_steps", "linear_steps")))
    gradients, hvps = float(asked.gradients.sum()), float(asked.hvps.sum())
    return {
        "one": lams * float(cheapest) / (gradients + hvps),
        "gradients": lams * float(cheapest.inner_steps + 3) / gradients,
        "hvps": lams * float(cheapest.linear_steps + 1) / hvps,
        "each": float(each.sum()) / (gradients + hvps),
    }


def draw_figure(tables: Mapping[str, Any]) -> Any:
    """Error of the worst task over the cost, one colour a λ."""
    figure, axes = plot.grid(len(tables))
    for column, (name, table) in enumerate(tables.items()):
        ax = axes[0, column]
        plot.plot_demand(table.assign(cost=table.gradients + table.hvps, fixed_cost=_fixed_cost(table)), ax=ax)
        ax.set_ylim(1e-9, 3)
        ax.set_xlabel("gradients + Hessian-vector products")
        plot.panel_title(ax, column, TITLES[name])
    axes[0, 0].set_ylabel("relative error, worst task")
    plot.shared_legend(figure, axes.ravel(), columns=5)
    return figure


def claims(tables: Mapping[str, Any]) -> list[Claim]:
    """What is certified holds, and what it saves."""
    found = []
    for name, table in tables.items():
        over = (table.error / table.rtol).max()
        saving, versus = _savings(table), f"one fixed budget for all λ over {WANTED:g} asked for"
        found.append(at_most(f"{name}: true error over rtol, largest", float(over), 1))
        found.append(at_least(f"{name}: cost of {versus}", saving["one"], 1))
        found.append(at_least(f"{name}: gradients of {versus}", saving["gradients"], 1))
        found.append(at_least(f"{name}: Hessian-vector products of {versus}", saving["hvps"], 0.4))
        each = f"{name}: cost of the best budget for each λ over {WANTED:g} asked for"
        found.append(at_least(each, saving["each"], 0.3))
    return found


FIGURE = Figure(
    STEM, sweeps, draw_figure, claims=claims,
    reading="Solid: to_accuracy at rtol = 1e-1 … 1e-6, by gradient descent and conjugate gradients, its certificates "
    "included in the cost. Dashed: the least error that a fixed budget of at most that cost reaches.",
)  # fmt: skip
