"""Reversing only the last W steps costs an error of (λ/μ)(1 − αμ)^W, and no more.

Claim. ‖g_W − g_K‖ ≤ ((λ/μ)(1 − αμ)^W + (1 − αμ)^K)·‖v‖ for G μ-strongly convex, where g_K reverses all K steps. The
last term is not in the proposition as printed: there the outer variable does not enter φ_0, while here φ_0 = θ and
the truncated pass drops that path too. On ridge regression the error falls at the rate of the bound, on softmax
regression, where μ = λ, it nearly attains it. Near φ* a window of W is the Neumann series of W terms, to rounding.

Source. Shaban, Cheng, Hatch, Boots 2019 (arXiv:1810.10667), proposition 3.1; Lorraine, Vicol, Duvenaud 2020 for the
identity with the Neumann series.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.claims import Claim, at_most, near
from analysis.figure import Figure
from analysis.study import Progress, Study, dataset, draw, host, median_slope, silent, solved
from implicit_grad import (
    CG,
    EXACT,
    GradientDescent,
    ImplicitGradient,
    InnerSolver,
    Neumann,
    Newton,
    UnrolledGradient,
    plot,
)
from implicit_grad.backend import norm
from implicit_grad.certificates import closed_form_constants
from implicit_grad.tasks import Digits, RandomRidge, Sinusoid, TaskSource

STEM = "truncation_window"
EPS = float(np.finfo(float).eps)
STYLES = {
    "truncated against unrolled": plot.STYLES["unrolled"],
    "truncated against ∇F": plot.Style("#0072B2", "D"),
}


@dataclass(frozen=True)
class WindowStudy:
    """Truncated reverse passes over one recorded run."""

    source: TaskSource
    lam: float
    steps: int
    windows: tuple[int, ...]
    tasks: int
    seed: int
    reference_solver: InnerSolver = EXACT.inner_solver

    def run(self, progress: Progress = silent, *, backend: Any = None) -> Any:
        """Return errors over (against, window, task), relative to ‖∇F‖, with the bound where μ is known."""
        host(backend)
        problem, theta = draw(self.source, self.lam, self.tasks, self.seed)
        progress("inner run")
        run = GradientDescent(None, self.steps, record=True)(problem, theta)
        assert run.path is not None  # record=True
        progress("reference")
        scene = solved(problem, theta, solver=self.reference_solver, start=run.value)
        size = norm(scene.gradient)
        whole = UnrolledGradient()(problem, theta, run).gradient
        cut = []
        for window in self.windows:
            progress(f"window {window}")
            cut.append(UnrolledGradient(window)(problem, theta, run).gradient)
        gradients = np.stack(cut)
        constants, alpha = closed_form_constants(problem), run.path.step_size
        bound = np.full((len(self.windows), self.tasks), np.nan)
        rate = 1 - alpha * scene.smallest
        if constants is not None:
            q, mu = 1 - alpha * constants.m, constants.m
            left = np.array(self.windows)[:, None]
            v = norm(problem.outer.gradient(run.value))
            bound = (self.lam / mu * q**left + q**self.steps) * v / size
        # Of the losses that know their bounds the series has the run's own step size.
        series = Neumann(None, self.windows[-1], record=True)
        path = ImplicitGradient(series, require_minimum=False)(problem, theta, run).path
        assert path is not None  # record=True
        gap = norm(gradients - path.points[list(self.windows)]) / size * (1 if constants is not None else np.nan)
        over = ("against", "window", "task")
        return dataset(
            self,
            {
                "error": (over, np.stack([norm(gradients - whole) / size, scene.error(gradients)])),
                "bound": (("window", "task"), bound),
                "series_gap": (("window", "task"), gap),
                "rate": ("task", rate),
                "condition": ("task", scene.condition),
                "distance": ("task", scene.distance(run.value)),
            },
            {"against": list(STYLES), "window": list(self.windows)},
            ran=f"{self.source.label}; d = {self.source.size}, λ = {self.lam:g}, K = {self.steps}, {self.tasks} "
            f"tasks, "
            f"seed {self.seed}; κ(A) at φ* from {scene.condition.min():.3g} to {scene.condition.max():.3g}",
        )


def sweeps(quick: bool, seed: int) -> dict[str, Study]:
    """The three problems, long enough runs that K is not what limits them."""

    def windows(last: int) -> tuple[int, ...]:
        return tuple(sorted({round(2 ** (k / 2)) for k in range(2 * int(np.log2(last)) + 1)}))

    ridge = RandomRidge(dim=50, train_samples=60, test_samples=60, condition=1e4)
    network = Newton(rtol=1e-13, linear_solver=CG(400, 1e-11))
    long, short = (256, 32) if quick else (2048, 128)
    return {
        "ridge": WindowStudy(ridge, 0.02, long, windows(long // 2), 3 if quick else 12, seed),
        "sinusoid": WindowStudy(Sinusoid(), 10.0, short, windows(short // 2), 2 if quick else 4, seed, network),
        "digits": WindowStudy(Digits(), 0.1, long, windows(long // 2), 2 if quick else 6, seed),
    }


def draw_figure(tables: Mapping[str, Any]) -> Any:
    """Error over the window."""
    figure, axes = plot.grid(len(tables), height=2.4)
    titles = {"ridge": "ridge, d = 50", "sinusoid": "sinusoid, MLP 1-40-40-1", "digits": "digits, softmax"}
    for column, (name, table) in enumerate(tables.items()):
        ax = axes[0, column]
        shown = table.sel(against=["truncated against unrolled"])
        plot.plot_errors(shown, ax=ax, x="window", y="error", series="against", styles=STYLES)
        if np.isfinite(table.bound).any():
            bound = table.bound.median("task").values
            plot.theory_line(ax, table.window.values, bound, "bound (λ/μ)(1−αμ)ᵂ‖v‖ + (1−αμ)ᴷ‖v‖")
        plot.floor_line(ax, EPS * float(table.condition.median()), "rounding, eps·κ")
        ax.set_ylim(1e-16, 30)
        ax.set_xlabel("window W")
        plot.panel_title(ax, column, titles[name])
    axes[0, 0].set_ylabel("error / ‖∇F‖")
    plot.shared_legend(figure, axes.ravel(), columns=4)
    return figure


def claims(tables: Mapping[str, Any]) -> list[Claim]:
    """The bound, the rate on ridge, and the identity with the Neumann series."""
    found = []
    for name, table in tables.items():
        cut = table.error.sel(against="truncated against unrolled")
        floor = 1e3 * EPS * table.condition
        if np.isfinite(table.bound).any():
            crossed = (cut / table.bound).where(cut > floor).max()
            found.append(
                at_most(f"{name}: truncation error over the bound, largest", crossed, 1, "Shaban et al. 2019")
            )
            # The identity is at φ*: what is left of the inner error bends the path by as much.
            gap = (table.series_gap / (floor + 1e2 * table.distance)).max()
            name = f"{name}: window against Neumann series at φ_K, over rounding and inner error"
            found.append(at_most(name, gap, 1, "Lorraine et al. 2020"))
    ridge = tables["ridge"]
    cut = ridge.error.sel(against="truncated against unrolled").values
    tail = (ridge.window.values >= ridge.window.values[-1] / 4)[:, None] & (cut > 1e-11)
    slope = median_slope(np.broadcast_to(ridge.window.values[:, None], cut.shape), np.log(cut), tail)
    rate = float(np.log(ridge.rate).median())
    found.append(
        near("ridge: rate of the truncation error over log(1 − αμ)", slope / rate, 1, 0.1, "Shaban et al. 2019")
    )
    return found


FIGURE = Figure(
    STEM, sweeps, draw_figure, claims=claims,
    reading="Lines are medians over tasks, bands the 10 to 90 % quantiles. Reference: φ* by Newton from φ_K, g* by "
    "dense Cholesky with\nrefinement. There is no bound for the network: G is not strongly convex.",
)  # fmt: skip
