"""λ decides how much of a meta-gradient is second order, and whether there is one at all.

Claim. At a fixed inner budget the error of every estimator on the regularised objective falls as λ grows: H + λI
becomes better conditioned and the inner solver faster, until g = ∇L_test(θ) and even the first-order gradient is
right (error O(1/λ)). Unrolling the plain objective is about 100 % wrong until λ is so large that its step
1/(M̄ + λ) hardly moves. For small λ the inner solve is far from stationary, and for a network λ + μ_min(H) can be
negative: there φ is no minimum, exact inversion refuses (its line has a gap), and what conjugate gradients return
(hollow) is no meta-gradient.

Source. Rajeswaran et al. 2019 (arXiv:1909.04630), section 3; the O(1/λ) limit follows from (H/λ + I)⁻¹ → I.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from analysis.claims import Claim, at_least, at_most, near
from analysis.figure import Figure
from analysis.panels import PANELS, methods, panels
from analysis.study import median_slope
from implicit_grad import plot
from implicit_grad.sweep import ErrorSweep

STEM = "error_vs_lambda"
INNER_STEPS = 64


def sweeps(quick: bool, seed: int) -> dict[str, ErrorSweep]:
    """Every estimator after 64 inner steps, for λ over the decades of each panel."""
    return {
        name: ErrorSweep(
            panel.source,
            methods(),
            _lams(panel.decades, 1 if quick else 2),
            (INNER_STEPS,),
            min(panel.tasks, 3 if quick else 8),
            seed,
            reference_solver=panel.reference_solver,
        )
        for name, panel in panels(quick).items()
    }


def _lams(decades: tuple[int, int], per_decade: int) -> tuple[float, ...]:
    first, last = decades
    return tuple(np.logspace(first, last, (last - first) * per_decade + 1).tolist())


def draw(tables: Mapping[str, Any]) -> Any:
    """Error over λ (top) and the smallest curvature λ + μ_min(H) at the last iterate (bottom)."""
    figure, axes = plt.subplots(
        2,
        len(tables),
        figsize=(7.2, 4.6),
        layout="constrained",
        sharex="col",
        sharey="row",
        squeeze=False,
        gridspec_kw={"height_ratios": (3, 1)},
    )
    for column, (name, table) in enumerate(tables.items()):
        table = table.isel(inner_steps=0)
        lam = table.lam.values
        top, bottom = axes[:, column]
        indefinite = (table.margin <= 0).mean("task").values > 0.5
        for estimator in table.estimator.values:
            errors = table.relative_error.sel(estimator=estimator).values
            plot.band(top, lam, errors, label=str(estimator), hollow=indefinite)
        _first_order_limit(top, table, lam)
        margin = table.margin.values / lam[:, None]
        low, middle, high = np.quantile(margin, (0.1, 0.5, 0.9), axis=1)
        bottom.fill_between(lam, low, high, color="0.85", linewidth=0)
        bottom.plot(lam, middle, color="0.2")
        bottom.axhline(0, color="#D55E00", linewidth=0.8)
        bottom.set_yscale("symlog", linthresh=1)
        bottom.set_ylim(-100, 10)
        for ax in (top, bottom):
            ax.set_xscale("log")
        top.set_yscale("log")
        top.set_ylim(1e-17, 1e4)
        bottom.set_xlabel("λ")
        plot.panel_title(top, column, PANELS[name].title)
    axes[0, 0].set_ylabel(f"relative error, K = {INNER_STEPS}")
    axes[1, 0].set_ylabel("1 + μ$_{min}$(H)/λ")
    plot.hollow_key(axes[0, 0])
    plot.shared_legend(figure, axes.ravel(), columns=5)
    return figure


def _first_order_limit(ax: Any, table: Any, lam: Any) -> None:
    """Dashed line of slope −1 through the first-order error at the largest λ."""
    last = float(table.relative_error.sel(estimator="first-order").median("task").values[-1])
    large = lam[lam >= 1]
    plot.theory_line(ax, large, last * large[-1] / large, "O(1/λ)")


def claims(tables: Mapping[str, Any]) -> list[Claim]:
    """Both limits, and the refusal where H + λI is indefinite."""
    found = []
    for name, table in tables.items():
        table = table.isel(inner_steps=0).transpose("estimator", "lam", "task")
        errors, lam = table.relative_error, table.lam.values
        median = errors.median("task")
        large = (lam >= 0.1 * lam[-1])[:, None]
        first = np.log(errors.sel(estimator="first-order").values)
        slope = median_slope(np.log(lam), first, large)
        found.append(near(f"{name}: slope of the first-order error over λ, last decade", slope, -1, 0.1))
        regular = [label for label in median.estimator.values if "plain" not in label]
        fall = median.sel(estimator=regular).isel(lam=-1) / median.sel(estimator=regular).max("lam")
        found.append(
            at_most(f"{name}: error at the largest λ over the largest, worst regularised estimator", fall.max(), 0.1)
        )
        plain = median.sel(estimator="unrolled (plain)").where(table.lam <= 1).min()
        found.append(at_least(f"{name}: error of the plain objective, smallest median for λ ≤ 1", plain, 0.1))
        answered = np.isfinite(errors.sel(estimator="exact inversion")) & (table.margin <= 0)
        found.append(at_most(f"{name}: indefinite cells that exact inversion answers", answered.sum(), 0))
    return found


FIGURE = Figure(STEM, sweeps, draw, claims=claims)
