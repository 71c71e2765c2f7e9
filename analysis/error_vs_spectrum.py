"""Five conjugate gradient steps suffice for a spectrum, not for a condition number.

Claim. At φ* the error of CG-k is below 2√κ((√κ − 1)/(√κ + 1))^k. Where the eigenvalues cover the whole range the
steps to 1 % grow like √κ, and five are enough only for κ below about 5 (evenly spread ones stop growing once κ is
large beside the number of eigenvalues). With three distinct eigenvalues three steps are exact at any κ, and with four
large ones above a narrow bulk seven reach 1 % at any κ. "Five steps suffice" is a fact about a spectrum: it holds
where the eigenvalues are few or λ makes κ(A) small, and nowhere else. At iMAML's own setting, Omniglot with λ = 2, it
does: about 1 % for 5-way 1-shot.

Source. Hestenes and Stiefel 1952 (rate and finite termination); Rajeswaran et al. 2019 (arXiv:1909.04630) use five
steps throughout.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.claims import Claim, at_least, at_most, near
from analysis.figure import Figure
from analysis.panels import OMNIGLOT, omniglot, panels
from analysis.study import Progress, Study, dataset, draw, host, median_slope, silent, solved
from implicit_grad import CG, GradientDescent, ImplicitGradient, MetaGradient, Newton, plot
from implicit_grad.backend import norm
from implicit_grad.linear import spectrum_ends
from implicit_grad.sweep import ErrorSweep
from implicit_grad.tasks import Arithmetic, Clustered, Geometric, RandomRidge, Spectrum, TaskSource

STEM = "error_vs_spectrum"
EPS = float(np.finfo(float).eps)
GOAL = 0.01
FEW = 5
PAPER_LAM = 2.0
"""iMAML's λ on Omniglot, with five steps."""


@dataclass(frozen=True)
class Outliers:
    """`count` large eigenvalues from 1 down to κ^(−1/2) above a bulk in [1/κ, 2/κ], as networks have."""

    count: int = 4

    def eigenvalues(self, rank: int, condition: float) -> Any:
        """Return the `(rank,)` eigenvalues, largest first."""
        large = np.geomspace(1.0, condition**-0.5, self.count)
        return np.concatenate(
            [large, np.linspace(min(2.0, condition**0.5) / condition, 1 / condition, rank - self.count)]
        )


SHAPES: dict[str, Spectrum] = {
    "evenly spread": Arithmetic(),
    "evenly spread logarithms": Geometric(),
    "four outliers and a bulk": Outliers(),
    "three distinct values": Clustered(3),
}
STYLES = {
    "evenly spread": plot.Style("#000000", "o"),
    "evenly spread logarithms": plot.Style("#0072B2", "D"),
    "four outliers and a bulk": plot.Style("#E69F00", "^"),
    "three distinct values": plot.Style("#D55E00", "s"),
}


@dataclass(frozen=True)
class SpectrumStudy:
    """Every iterate of conjugate gradient at φ*, for systems A of prescribed spectrum; λ is half of its smallest."""

    dim: int
    conditions: tuple[float, ...]
    tasks: int
    seed: int

    def run(self, progress: Progress = silent, *, backend: Any = None) -> Any:
        """Return the error over (shape, condition, steps, task)."""
        host(backend)
        found = np.empty((len(SHAPES), len(self.conditions), self.dim + 1, self.tasks))
        for i, (name, shape) in enumerate(SHAPES.items()):
            for j, condition in enumerate(self.conditions):
                progress(f"{name}, κ = {condition:g}")
                found[i, j] = self._errors(shape, condition)
        met = found <= GOAL
        reached = np.where(met.any(axis=2), met.argmax(axis=2), np.nan)
        return dataset(
            self,
            {
                "cg_error": (("shape", "condition", "steps", "task"), found),
                "few": (("shape", "condition", "task"), found[:, :, FEW]),
                "steps_to_goal": (("shape", "condition", "task"), reached),
            },
            {"shape": list(SHAPES), "condition": list(self.conditions), "steps": np.arange(self.dim + 1)},
            ran=f"random ridge, d = {self.dim}, κ(A) = {', '.join(f'{c:g}' for c in self.conditions)}, λ half the "
            f"smallest eigenvalue of A; {self.tasks} tasks, seed {self.seed}; at φ*, {self.dim} steps",
        )

    def _errors(self, shape: Spectrum, condition: float) -> Any:
        lam = 0.5 / condition
        values = tuple((shape.eigenvalues(self.dim, condition) - lam).tolist())
        source = RandomRidge(self.dim, self.dim + 10, 2 * self.dim, None, spectrum=values)
        scene = solved(*draw(source, lam, self.tasks, self.seed))
        estimate = ImplicitGradient(CG(self.dim, record=True))(scene.problem, scene.theta, scene.optimum)
        assert estimate.path is not None  # record=True
        return scene.error(estimate.path.points)


@dataclass(frozen=True)
class BenchmarkStudy:
    """CG-5 at φ* on a network too large for dense matrices: g* by conjugate gradients to rounding."""

    source: TaskSource
    lams: tuple[float, ...]
    tasks: int
    seed: int

    def run(self, progress: Progress = silent, *, backend: Any = None) -> Any:
        """Return the error over (estimator, lam, inner_steps, task) as an `ErrorSweep` does, at φ* alone."""
        host(backend)
        problem, theta = draw(self.source, np.array(self.lams)[:, None], self.tasks, self.seed)
        progress("φ*")
        start = GradientDescent(None, 64)(problem, theta).value
        optimum = Newton(rtol=1e-12, linear_solver=CG(400, 1e-11))(problem, theta, start=start)
        progress("g*")
        exact = ImplicitGradient(CG(600, 1e-13))(problem, theta, optimum).gradient
        found = ImplicitGradient(CG(FEW))(problem, theta, optimum).gradient
        smallest, largest = spectrum_ends(problem.curvature(optimum.value))
        error = norm(found - exact) / norm(exact)
        return dataset(
            self,
            {
                "relative_error": (("estimator", "lam", "inner_steps", "task"), error[None, :, None]),
                "condition": (("lam", "task"), largest / smallest),
            },
            {"estimator": [f"CG-{FEW}"], "lam": list(self.lams), "inner_steps": [np.inf]},
            ran=f"{self.source.label}, network 784-64-{self.source.ways}; d = {self.source.size}, λ = "
            f"{', '.join(f'{x:.3g}' for x in self.lams)}; {self.tasks} tasks, seed {self.seed}; at φ*; κ(A) by "
            f"Lanczos",
        )


def sweeps(quick: bool, seed: int) -> dict[str, Study]:
    """Prescribed spectra, and CG-5 at φ* of the other problems while λ moves κ(A)."""
    conditions = (2.0, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)
    found: dict[str, Study] = {
        "spectra": SpectrumStudy(
            80 if quick else 200, conditions[1::2] if quick else conditions, 3 if quick else 8, seed
        )
    }
    method = MetaGradient(GradientDescent(None, 0), ImplicitGradient(CG(FEW), require_minimum=False))
    for name, panel in panels(quick).items():
        if name == "ridge":
            continue
        first = -1 if name == "sinusoid" else -3
        lams = tuple(np.logspace(first + quick, 2, 4 if quick else 2 * (2 - first) + 1).tolist())
        found[name] = ErrorSweep(
            panel.source,
            (method,),
            lams,
            (64,),
            min(panel.tasks, 4),
            seed,
            at_optimum=True,
            reference_solver=panel.reference_solver,
        )
    for source in omniglot(ways=5, shots=1, hidden=(64,)):
        lams = (0.2, PAPER_LAM, 20.0) if quick else (0.02, 0.06, 0.2, 0.6, PAPER_LAM, 6.0, 20.0)
        found[OMNIGLOT] = BenchmarkStudy(source, lams, 2 if quick else 4, seed)
    return found


def bound(condition: Any, steps: Any) -> Any:
    """2√κ((√κ − 1)/(√κ + 1))^k, of the relative error in the 2-norm."""
    root = np.sqrt(condition)
    return 2 * root * ((root - 1) / (root + 1)) ** steps


def _at_optimum(table: Any) -> tuple[Any, Any]:
    errors = table.relative_error.isel(estimator=0).sel(inner_steps=np.inf)
    return table.condition.values.ravel(), errors.transpose(*table.condition.dims).values.ravel()


def draw_figure(tables: Mapping[str, Any]) -> Any:
    """CG-5 over κ (a), steps to 1 % over κ (b), CG-5 of networks and softmax regression (c)."""
    figure, axes = plot.grid(3)
    spectra = tables["spectra"]
    kappa = np.geomspace(1.2, 1e4, 200)
    first, second, third = axes[0]
    plot.plot_errors(spectra, ax=first, x="condition", y="few", series="shape", styles=STYLES)
    plot.plot_errors(spectra, ax=second, x="condition", y="steps_to_goal", series="shape", styles=STYLES)
    for (name, label), style in zip(
        (("digits", "digits, softmax"), ("sinusoid", "sinusoid, MLP"), (OMNIGLOT, "Omniglot 5-way 1-shot, MLP")),
        (plot.Style("#009E73", "v"), plot.Style("#CC79A7", "P"), plot.Style("#56B4E9", "X")),
        strict=True,
    ):
        if name in tables:
            condition, error = _at_optimum(tables[name])
            third.plot(
                condition,
                np.maximum(error, plot.FLOOR),
                linestyle="none",
                marker=style.marker,
                color=style.color,
                label=label,
                alpha=0.8,
            )
    for ax in (first, third):
        plot.theory_line(ax, kappa, bound(kappa, FEW), "bound 2√κ((√κ−1)/(√κ+1))ᵏ")
        ax.axhline(GOAL, color="0.6", linewidth=0.7, zorder=1)
        ax.annotate("1 %", (1.0, GOAL), xycoords=("axes fraction", "data"), ha="right", va="top", color="0.4")
        ax.set_ylim(1e-16, 30)
    root = np.sqrt(kappa)
    plot.theory_line(second, kappa, np.log(GOAL / (2 * root)) / np.log((root - 1) / (root + 1)), "_")
    plot.slope_triangle(second, (3, 60), 0.5)
    for ax in (first, second, third):
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xlabel("condition number κ(A)")
    second.set_ylim(0.9, 900)
    first.set_ylabel("relative error of CG-5 at φ*")
    second.set_ylabel("CG steps to an error of 1 %")
    third.set_ylabel("relative error of CG-5 at φ*")
    for i, title in enumerate(("ridge", "ridge", "λ varies")):
        plot.panel_title(axes[0, i], i, title)
    plot.shared_legend(figure, axes.ravel(), columns=4)
    return figure


def claims(tables: Mapping[str, Any]) -> list[Claim]:
    """Bound, finite termination, √κ, and what five steps are worth."""
    spectra = tables["spectra"]
    error, kappa, steps = spectra.cg_error, spectra.condition, spectra.steps
    limit = bound(kappa, steps)
    seen = (error / limit).where(limit > 1e3 * EPS * kappa)
    even, spread = (spectra.sel(shape=f"evenly spread{more}") for more in ("", " logarithms"))
    window = (kappa >= 10).values
    few = even.few.median("task")
    guaranteed = max((c for c in kappa.values if bound(c, FEW) <= GOAL), default=1.0)
    sufficient = max((c for c, e in zip(kappa.values, few.values, strict=True) if e <= GOAL), default=1.0)
    hard = float(few.isel(condition=int(np.abs(np.log(kappa.values / 50)).argmin())))
    three = spectra.sel(shape="three distinct values").cg_error.isel(steps=3)
    bulk = spectra.sel(shape="four outliers and a bulk").steps_to_goal.median("task")
    found = [
        at_most("CG error over the bound 2√κ((√κ−1)/(√κ+1))^k, largest of all spectra, κ and k", seen.max(), 1),
        near(
            "exponent of κ in the steps to 1 %, evenly spread logarithms",
            median_slope(np.log(kappa.values[window]), np.log(spread.steps_to_goal.values[window])),
            0.5,
            0.1,
        ),
        at_most("error of CG-3 over eps·κ, three distinct eigenvalues, largest", (three / (EPS * kappa)).max(), 1e3),
        at_least("largest κ at which CG-5 has an error of 1 %, evenly spread; guaranteed is", sufficient, guaranteed),
        at_least(
            "error of CG-5 at κ = 50 with evenly spread eigenvalues: five steps do not suffice",
            hard,
            0.05,
            "Rajeswaran et al. 2019: five steps",
        ),
        at_most("steps to 1 % with four outliers above a bulk, largest median over κ", bulk.max(), 10),
    ]
    for name, table in tables.items():
        if name != "spectra":
            condition, errors = _at_optimum(table)
            ratio = errors / np.maximum(bound(condition, FEW), 1e3 * EPS * condition)
            found.append(at_most(f"error of CG-5 at φ* over the bound, {name}, largest", np.nanmax(ratio), 1))
    if OMNIGLOT in tables:
        at_paper = tables[OMNIGLOT].relative_error.sel(lam=PAPER_LAM).median()
        source = "Rajeswaran et al. 2019: five steps at λ = 2"
        found.append(at_most("Omniglot 5-way 1-shot, λ = 2: error of CG-5, median", at_paper, 0.02, source))
    return found


FIGURE = Figure(
    STEM,
    sweeps,
    draw_figure,
    claims=claims,
    optional=(OMNIGLOT,),
    reading="Lines are medians over tasks, bands the 10 to 90 % quantiles; in (c) every task and λ is a point. "
    "Reference: g* at φ* by dense Cholesky\nwith refinement, on Omniglot by CG to rounding. Dashed: the bound, for g "
    "in the 2-norm.",
)
