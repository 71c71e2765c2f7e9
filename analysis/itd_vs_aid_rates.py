"""Unrolling (ITD) and implicit differentiation (AID) share a rate; the published order of their constants is no law.

Claim. With as many inner as linear steps, t = k, all three errors fall like q^t with q = 1 − αμ: the inner error
limits AID as well, and conjugate gradients only remove the second term of AID with fixed-point steps. The published
order, AID-CG before AID-FP before ITD, is one of bounds. On ridge regression ITD's operator error is (I − αA)^t H A⁻¹
and that of AID-FP (I − αA)^t λA⁻¹: where λ is larger than the smallest eigenvalue of H, as usual, ITD is ahead of
AID-FP at equal t.

Source. Grazzi, Franceschi, Pontil, Salzo 2020 (arXiv:2006.16218), theorems 2.1 and 2.2; the comparison on quadratics
follows from the geometric series.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from analysis.claims import Claim, at_least, at_most, near
from analysis.figure import Figure
from analysis.study import Progress, Study, dataset, draw, host, median_slope, silent, solved
from implicit_grad import CG, GradientDescent, ImplicitGradient, Neumann, UnrolledGradient, plot
from implicit_grad.tasks import Digits, RandomRidge, TaskSource

STEM = "itd_vs_aid_rates"
EPS = float(np.finfo(float).eps)
STYLES = {
    "ITD, unrolled": plot.STYLES["unrolled"],
    "AID-FP, Neumann": plot.Style("#009E73", "^"),
    "AID-CG": plot.Style("#0072B2", "D"),
}
ITD, FIXED_POINT, CONJUGATE = STYLES


@dataclass(frozen=True)
class RateStudy:
    """The three errors after t inner and t linear steps."""

    source: TaskSource
    lam: float
    steps: tuple[int, ...]
    tasks: int
    seed: int

    def run(self, progress: Progress = silent, *, backend: Any = None) -> Any:
        """Return `relative_error` over (estimator, step, task), and the rate q."""
        host(backend)
        problem, theta = draw(self.source, self.lam, self.tasks, self.seed)
        scene = solved(problem, theta)
        run = GradientDescent(None, self.steps[-1], record=True)(problem, theta)
        assert run.path is not None  # record=True
        unrolled, _ = UnrolledGradient().at_steps(problem, run, self.steps)
        implicit: list[list[Any]] = [[], []]
        for step in self.steps:
            progress(f"t = {step}")
            here = replace(run, value=run.path.points[step], path=None)
            for found, solver in zip(implicit, (Neumann(None, step), CG(step)), strict=True):
                found.append(ImplicitGradient(solver, require_minimum=False)(problem, theta, here).gradient)
        gradients = np.stack([unrolled, *(np.stack(each) for each in implicit)])
        return dataset(
            self,
            {
                "relative_error": (("estimator", "step", "task"), scene.error(gradients)),
                "rate": ("task", 1 - run.path.step_size * scene.smallest),
                "condition": ("task", scene.condition),
            },
            {"estimator": list(STYLES), "step": list(self.steps)},
            ran=f"{self.source.label}; d = {self.source.size}, λ = {self.lam:g}, {self.tasks} tasks, seed "
            f"{self.seed}; "
            f"t = k from {self.steps[0]} to {self.steps[-1]}; κ(A) at φ* from {scene.condition.min():.3g} to "
            f"{scene.condition.max():.3g}",
        )


def sweeps(quick: bool, seed: int) -> dict[str, Study]:
    """Two ridge problems, λ above and below the smallest eigenvalue of H, and softmax regression."""
    last, tasks = (256, 3) if quick else (512, 12)
    steps = tuple(range(0, last + 1, last // 16))[1:]
    flat = RandomRidge(dim=50, train_samples=60, test_samples=60, condition=1e4)
    round_ = RandomRidge(dim=50, train_samples=60, test_samples=60, condition=20)
    return {
        "small curvature": RateStudy(flat, 0.05, steps, tasks, seed),
        "large curvature": RateStudy(round_, 0.002, steps, tasks, seed),
        "digits": RateStudy(Digits(), 0.1, steps, 2 if quick else 6, seed),
    }


TITLES = {
    "small curvature": "ridge, μ$_{min}$(H) ≪ λ",
    "large curvature": "ridge, μ$_{min}$(H) ≫ λ",
    "digits": "digits, softmax",
}


def draw_figure(tables: Mapping[str, Any]) -> Any:
    """Error over t = k."""
    figure, axes = plot.grid(len(tables), height=2.4)
    for column, (name, table) in enumerate(tables.items()):
        ax = axes[0, column]
        plot.plot_errors(table, ax=ax, x="step", styles=STYLES)
        steps = np.linspace(0, table.step.values[-1], 100)
        plot.theory_line(ax, steps, float(table.rate.median()) ** steps, "rate qᵗ = (1 − αμ)ᵗ")
        plot.floor_line(ax, EPS * float(table.condition.median()), "rounding, eps·κ")
        ax.set_xscale("linear")
        ax.set_ylim(1e-16, 30)
        ax.set_xlabel("inner steps t = linear steps k")
        plot.panel_title(ax, column, TITLES[name])
    axes[0, 0].set_ylabel("relative error of the meta-gradient")
    plot.shared_legend(figure, axes.ravel(), columns=5)
    return figure


def claims(tables: Mapping[str, Any]) -> list[Claim]:
    """One rate; and which is ahead, measured in the middle of the straight part."""
    found = []
    source = "Grazzi et al. 2020"
    for name, table in tables.items():
        title = {"small curvature": "ridge, small curvature", "large curvature": "ridge, large curvature"}.get(
            name, name
        )
        errors = table.relative_error
        for estimator in STYLES:
            values = errors.sel(estimator=estimator).values
            steps = np.broadcast_to(table.step.values[:, None], values.shape)
            keep = (values > 1e4 * EPS * table.condition.values) & (steps >= 0.25 * steps.max())
            rate = median_slope(steps, np.log(values), keep) / float(np.log(table.rate).median())
            # q is the rate of the flattest direction: the others are faster, and bend the beginning.
            if name == "digits":
                found.append(at_least(f"{title}: rate of {estimator} over log(1 − αμ)", rate, 0.95, source))
            else:
                found.append(near(f"{title}: rate of {estimator} over log(1 − αμ)", rate, 1, 0.15, source))
        middle = errors.isel(step=table.step.size // 2).median("task")
        ratio = middle.sel(estimator=ITD) / middle.sel(estimator=FIXED_POINT)
        if name == "small curvature":
            found.append(
                at_most(
                    f"{title}: error of ITD over AID-FP at t = k; the published order says more than 1",
                    ratio,
                    1,
                    source,
                )
            )
        if name == "large curvature":
            found.append(at_most(f"{title}: error of AID-FP over ITD at t = k", 1 / ratio, 1, source))
        ratio = middle.sel(estimator=CONJUGATE) / middle.sel(estimator=FIXED_POINT)
        # Where the inner error is all there is, which of the two is a little ahead is chance.
        found.append(at_most(f"{title}: error of AID-CG over AID-FP at t = k", ratio, 1.25, source))
    return found


FIGURE = Figure(
    STEM,
    sweeps,
    draw_figure,
    claims=claims,
    reading="Lines are medians over tasks, bands the 10 to 90 % quantiles. Reference: φ* by Newton, g* by dense "
    "Cholesky.",
)
