"""λ decides how much of a meta-gradient is second order, and whether there is one at all.

Claim. At a fixed inner budget the error of every estimator on the regularised objective falls as λ grows: H + λI
becomes better conditioned and the inner solver faster, until g = ∇L_test(θ) and even the first-order gradient is
right (error O(1/λ)). For λ → 0 the exact gradient vanishes like λ where H is regular (ridge); where it is singular
(softmax regression on few samples, networks) the part in its null space stays. Unrolling the plain objective is about
100 % wrong until λ is so large that its step 1/(M̄ + λ) hardly moves. For small λ the inner solve is far from
stationary, and for a network λ + μ_min(H) can be negative (shaded): there φ is no minimum, exact inversion refuses,
its line has a gap, and what conjugate gradients return (hollow) is no meta-gradient.

Source. Rajeswaran et al. 2019 (arXiv:1909.04630), section 3; both limits follow from λ(H + λI)⁻¹.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from analysis.claims import Claim, at_least, at_most, near
from analysis.figure import Figure
from analysis.panels import PANELS, methods, panels
from analysis.study import median_slope
from implicit_grad import plot
from implicit_grad.sweep import ErrorSweep

STEM = "error_vs_lambda"
INNER_STEPS = 64
SIZE = plot.Style("#000000", "s")


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
    """Error over λ, the size of the exact gradient with its limits, and the smallest curvature at φ_K."""
    figure, axes = plot.grid(len(tables), 3, height=5.2, ratios=(3, 1.3, 1))
    for column, (name, table) in enumerate(tables.items()):
        table = table.isel(inner_steps=0)
        top, middle, bottom = axes[:, column]
        plot.plot_errors(table, ax=top, x="lam", hollow=_indefinite(table))
        _first_order_limit(top, table)
        top.set_ylim(1e-17, 1e4)
        _size(middle, table)
        _margin(bottom, table)
        _shade(axes[:, column], table)
        bottom.set_xlabel("λ")
        plot.panel_title(top, column, PANELS[name].title.replace("digits 5-way 5-shot", "digits"))
        for row, ax in enumerate((middle, bottom), start=1):
            plot.panel_title(ax, column + row * len(tables))
    axes[0, 0].set_ylabel(f"relative error, K = {INNER_STEPS}")
    axes[1, 0].set_ylabel("‖∇F‖ / ‖∇L$_{test}$(θ)‖")
    axes[2, 0].set_ylabel("1 + μ$_{min}$(H)/λ")
    plot.hollow_key(axes[0, 0])
    plot.shared_legend(figure, axes.ravel(), columns=5)
    return figure


def _indefinite(table: Any) -> Any:
    """λ at which most tasks have no minimum after K steps."""
    return (table.margin <= 0).mean("task").values > 0.5


def _shade(axes: Any, table: Any) -> None:
    """Shade the λ for which there is no minimum at the last iterate, up to halfway to the first that has one."""
    lam, indefinite = table.lam.values, _indefinite(table)
    if indefinite.any():
        last = int(np.flatnonzero(indefinite)[-1])
        end = np.sqrt(lam[last] * lam[min(last + 1, len(lam) - 1)])
        for ax in axes:
            ax.axvspan(lam[0], end, color="#D55E00", alpha=0.07, linewidth=0, label="no minimum", zorder=0)


def _size(ax: Any, table: Any) -> None:
    """Size of the exact gradient, with λ → ∞ dotted and the slope of λ → 0 dashed where there is one."""
    ratio = (table.reference_norm / table.start_norm).where(np.isfinite(table.reference_norm))
    plot.band(ax, table.lam.values, ratio.transpose("lam", "task").values, label="exact gradient", style=SIZE)
    plot.floor_line(ax, 1.0, "λ → ∞: ∇L$_{test}$(θ)")
    small = table.lam.values[table.lam.values < 1e-2]
    if len(small) and small[0] < 1e-5:
        plot.theory_line(ax, small, float(ratio.median("task")[0]) * small / small[0], "λ → 0: O(λ)", "-.")
    ax.set_xscale("log")
    ax.set_yscale("log")


def _margin(ax: Any, table: Any) -> None:
    lam = table.lam.values
    low, middle, high = np.quantile(
        table.margin.transpose("lam", "task").values / lam[:, None], (0.1, 0.5, 0.9), axis=1
    )
    ax.fill_between(lam, low, high, color="0.85", linewidth=0)
    ax.plot(lam, middle, color="0.2")
    ax.axhline(0, color="#D55E00", linewidth=0.8)
    ax.set_xscale("log")
    ax.set_yscale("symlog", linthresh=1)
    ax.set_ylim(-100, 200)


def _first_order_limit(ax: Any, table: Any) -> None:
    """Dashed line of slope −1 through the first-order error at the largest λ."""
    last = float(table.relative_error.sel(estimator="first-order").median("task").values[-1])
    large = table.lam.values[table.lam.values >= 1]
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
        ratio = (table.reference_norm / table.start_norm).median("task")
        found.append(near(f"{name}: ‖∇F‖ over ‖∇L_test(θ)‖ at the largest λ", ratio[-1], 1, 0.05))
        if lam[0] < 1e-5:  # far below the smallest eigenvalue of H, which only ridge shows
            slope = median_slope(np.log(lam), np.log(table.reference_norm.values), (lam <= 1.1e-5)[:, None])
            found.append(near(f"{name}: slope of ‖∇F‖ over λ, λ → 0", slope, 1, 0.1))
        if name == "sinusoid":
            share = float((table.margin <= 0).mean("task")[0])
            found.append(at_least(f"{name}: share of tasks without a minimum at the smallest λ", share, 0.5))
    return found


FIGURE = Figure(STEM, sweeps, draw, claims=claims)
