"""What accuracy costs: every estimator at every budget, counted in gradients and Hessian-vector products.

Claim. For the same gradient descent implicit differentiation by conjugate gradients reaches an accuracy for less than
half of what unrolling it costs, and neither the Neumann series nor Nyström's method is ahead of conjugate gradients.
More is gained in the inner solve: with Nesterov's or a truncated Newton method in the place of gradient descent the
same accuracy costs less than half again. For the network, well conditioned at this λ, 21 calls to find a step size
level the differences. Contrastive gradients need no products and pay by more inner steps; finite differences pay 2d
inner solves. The first-order gradient stays wrong at any cost.

Source. Rajeswaran et al. 2019 (arXiv:1909.04630), theorem 1 and the discussion of figure 2; Lorraine et al. 2020;
Hataya and Yamada 2023; Zucchet et al. 2022; Ye et al. 2024. Costs are those that `Estimate.cost` counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.claims import Claim, at_least, at_most
from analysis.figure import Figure
from analysis.panels import DIGITS, RIDGE
from analysis.study import Progress, Study, dataset, draw, host, silent, solved
from implicit_grad import (
    CG,
    Cholesky,
    ContrastiveGradient,
    Cost,
    FiniteDifferenceGradient,
    FirstOrderGradient,
    GaussNewtonGradient,
    GradientDescent,
    ImplicitGradient,
    MetaGradient,
    Nesterov,
    Neumann,
    Newton,
    NewtonCG,
    Nystrom,
    OneStepGradient,
    SuperEfficientGradient,
    UnrolledGradient,
    plot,
)
from implicit_grad.tasks import Sinusoid, TaskSource

STEM = "compute_accuracy_pareto"
IMPLICIT, UNROLLED, NEUMANN, NYSTROM = "implicit, CG", "unrolled", "implicit, Neumann", "implicit, Nyström"
FAST, HESSIAN_FREE, FIRST = "Nesterov, implicit, CG", "Newton-CG, implicit, CG", "first-order"
DIFFERENCES = "finite differences"
STYLES = {
    IMPLICIT: plot.Style("#0072B2", "D", 3.0),
    FAST: plot.Style("#56B4E9", "v", 3.0),
    HESSIAN_FREE: plot.Style("#000000", "s", 3.0),
    NEUMANN: plot.Style("#009E73", "^"),
    NYSTROM: plot.Style("#009E73", "*"),
    "implicit, exact inversion": plot.Style("#777777", "p"),
    "super-efficient, CG": plot.Style("#56B4E9", "o"),
    "Gauss–Newton, CG": plot.Style("#E69F00", "<"),
    UNROLLED: plot.STYLES["unrolled"],
    "truncated, last half": plot.Style("#E69F00", ">"),
    "one step": plot.Style("#CC79A7", "d"),
    FIRST: plot.STYLES["first-order"],
    "contrastive": plot.Style("#D55E00", "X"),
    DIFFERENCES: plot.Style("#000000", "h"),
}
GOAL = 1e-3
"""The error at which families are compared."""


def settings(steps: tuple[int, ...], linear: tuple[int, ...], problem: str) -> Iterator[tuple[str, MetaGradient]]:
    """All (family, method): K inner steps by k linear steps, and what has no second number once a K."""
    for inner in steps:
        descent, recorded = GradientDescent(None, inner), GradientDescent(None, inner, record=True)
        yield FIRST, MetaGradient(descent, FirstOrderGradient())
        yield "one step", MetaGradient(descent, OneStepGradient())
        yield UNROLLED, MetaGradient(recorded, UnrolledGradient())
        yield "truncated, last half", MetaGradient(recorded, UnrolledGradient(max(1, inner // 2)))
        yield "implicit, exact inversion", MetaGradient(descent, ImplicitGradient(Cholesky(), require_minimum=False))
        for strength in (1e-1, 1e-3, 1e-5):
            yield "contrastive", MetaGradient(descent, ContrastiveGradient(strength, descent))
        for k in linear:
            by_cg = ImplicitGradient(CG(k), require_minimum=False)
            yield IMPLICIT, MetaGradient(descent, by_cg)
            yield FAST, MetaGradient(Nesterov(None, inner), by_cg)
            yield NEUMANN, MetaGradient(descent, ImplicitGradient(Neumann(None, k), require_minimum=False))
            yield NYSTROM, MetaGradient(descent, ImplicitGradient(Nystrom(k), require_minimum=False))
            yield "super-efficient, CG", MetaGradient(descent, SuperEfficientGradient(CG(k)))
            if problem == "sinusoid":  # elsewhere the Gauss–Newton matrix is the Hessian
                yield "Gauss–Newton, CG", MetaGradient(descent, GaussNewtonGradient(CG(k)))
            if inner <= 16:
                yield HESSIAN_FREE, MetaGradient(NewtonCG(inner, k), by_cg)
    if problem == "ridge":  # 2d inner solves: for the others a thousand times dearer than all else
        yield DIFFERENCES, MetaGradient(Newton(), FiniteDifferenceGradient(Newton()))


@dataclass(frozen=True)
class ParetoStudy:
    """Error and cost of every setting, each run by itself."""

    source: TaskSource
    lam: float
    steps: tuple[int, ...]
    linear: tuple[int, ...]
    tasks: int
    seed: int
    problem: str

    def run(self, progress: Progress = silent, *, backend: Any = None) -> Any:
        """Return `relative_error` over (setting, task), with `cost` and `family` of each setting."""
        host(backend)
        problem, theta = draw(self.source, self.lam, self.tasks, self.seed)
        start = GradientDescent(None, max(self.steps))(problem, theta).value
        scene = solved(problem, theta, start=start)
        families, errors, costs = [], [], []
        for family, method in settings(self.steps, self.linear, self.problem):
            if family != (families or [""])[-1]:
                progress(family)
            with np.errstate(all="ignore"):  # short budgets may lead anywhere
                estimate = method(problem, theta)
                errors.append(scene.error(estimate.gradient))
            families.append(family)
            costs.append(calls(estimate.cost, self.source.size))
        return dataset(
            self,
            {
                "relative_error": (("setting", "task"), np.stack(errors)),
                "cost": ("setting", costs),
                "family": ("setting", families),
                "condition": ("task", scene.condition),
            },
            {"setting": np.arange(len(costs))},
            ran=f"{self.source.label}; d = {self.source.size}, λ = {self.lam:g}, {self.tasks} tasks, seed "
            f"{self.seed}; κ(A) at φ* from {scene.condition.min():.3g} to {scene.condition.max():.3g}; K = "
            f"{', '.join(map(str, self.steps))}; k = {', '.join(map(str, self.linear))}; {len(costs)} settings",
        )


def calls(cost: Cost, size: int) -> int:
    """Gradients, values and products; an assembled Hessian counts as its d products."""
    return cost.gradients + cost.values + cost.hvps + size * cost.hessians


def sweeps(quick: bool, seed: int) -> dict[str, Study]:
    """Ridge, a small network, softmax regression."""
    steps = tuple(2**k for k in range(0, 11, 2 if quick else 1))
    linear = (1, 4, 12, 32) if quick else (1, 2, 3, 5, 8, 12, 18, 26, 40)
    network = Sinusoid(hidden=(10, 10))
    tasks = 3 if quick else 8
    return {
        "ridge": ParetoStudy(RIDGE.source, RIDGE.lam, steps, linear, tasks, seed, "ridge"),
        "sinusoid": ParetoStudy(network, 10.0, steps[: 5 if quick else 9], linear, tasks, seed, "sinusoid"),
        "digits": ParetoStudy(DIGITS.source, DIGITS.lam, steps, linear, min(tasks, 4), seed, "digits"),
    }


TITLES = {"ridge": "ridge, d = 50", "sinusoid": "sinusoid, MLP 1-10-10-1", "digits": "digits, softmax"}


def draw_figure(tables: Mapping[str, Any]) -> Any:
    """Error over cost, one panel a problem."""
    figure, axes = plot.grid(len(tables), height=3.1)
    for column, (name, table) in enumerate(tables.items()):
        ax = axes[0, column]
        plot.plot_pareto(table, ax=ax, styles=STYLES, fronts=True)
        ax.set_ylim(1e-16, 30)
        ax.set_xlabel("gradients + HVPs")
        plot.panel_title(ax, column, TITLES[name])
    axes[0, 0].set_ylabel("relative error of the meta-gradient")
    plot.shared_legend(figure, axes.ravel(), columns=4)
    return figure


def _price(table: Any, family: str, goal: float = GOAL) -> float:
    """Least cost at which a family's median error is below the goal; where it never is, the largest one tried."""
    mine = table.family.values == family
    error = table.relative_error.median("task").values
    met = mine & (error <= goal)
    cost = table.cost.values
    return float(cost[met].min() if met.any() else cost.max())


def claims(tables: Mapping[str, Any]) -> list[Claim]:
    """Ratios of prices at an error of 1e-3."""
    found = []
    for name, table in tables.items():
        price = {family: _price(table, family) for family in STYLES}
        base, share = price[IMPLICIT], 0.9 if name == "sinusoid" else 0.5
        error = table.relative_error.median("task").values
        first = error[table.family.values == FIRST].min()
        at = f"cost of an error of {GOAL:g}"
        found += [
            at_most(f"{name}: {at}, implicit over unrolled", base / price[UNROLLED], share, "Rajeswaran et al. 2019"),
            at_least(f"{name}: {at}, Neumann over CG", price[NEUMANN] / base, 1, "Lorraine et al. 2020"),
            at_least(f"{name}: {at}, Nyström over CG", price[NYSTROM] / base, 1, "Hataya and Yamada 2023"),
            at_least(f"{name}: least error of the first-order gradient", first, 0.1),
        ]
        if name == "sinusoid":
            continue
        faster = min(price[FAST], price[HESSIAN_FREE]) / base
        found.append(at_most(f"{name}: {at}, Nesterov or Newton-CG over gradient descent", faster, 0.5))
        if name == "ridge":
            found.append(at_least(f"{name}: {at}, finite differences over implicit", price[DIFFERENCES] / base, 10))
    return found


FIGURE = Figure(
    STEM,
    sweeps,
    draw_figure,
    claims=claims,
    reading="Median error over tasks. A marker is a setting that no cheaper one of its family beats; a line joins "
    "those of one family; grey: the front of all.\nReference: φ* by Newton from the longest gradient descent, g* by "
    "dense Cholesky with refinement. For the network no theorem promises this: its G is not strongly convex.",
)
