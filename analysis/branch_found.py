"""With a stochastic solver and several minima the implicit gradient is that of the minimum that was found.

Claim. Where the minimum is unique, SGD with a constant step stops at the error of its noise, and with steps 1/k the
error falls like K^(−1/2). Where there are several, the seed of the minibatches decides which one is found. Sharpened
from there, the implicit gradient converges to the gradient of that branch of F, as finite differences along the
branch confirm, and stays as far from the gradients of the other branches as these are apart: no accuracy of the
inner solve says anything about them.

Source. Rajeswaran et al. 2019 (arXiv:1909.04630), lemma 1, is local: it asks for an invertible H + λI at the φ* that
was found, not for its uniqueness. Robbins and Monro 1951 for the rate; Vicol et al. 2022 for solutions that depend on
the path.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from analysis.claims import Claim, at_least, at_most, near
from analysis.figure import Figure
from analysis.study import Progress, Study, dataset, draw, host, median_slope, silent, solved
from implicit_grad import (
    CG,
    SGD,
    Cholesky,
    FiniteDifferenceGradient,
    GradientDescent,
    ImplicitGradient,
    Newton,
    plot,
)
from implicit_grad.backend import norm
from implicit_grad.tasks import Digits, Sinusoid, TaskSource

STEM = "branch_found"
EPS = float(np.finfo(float).eps)
CONSTANT, DECAYING, WHOLE = "SGD, constant step", "SGD, steps 1/k", "gradient descent"
OWN, OTHER, DIFFERENCES = "gradient of the branch found", "gradients of other branches", "finite differences"
STYLES = {
    CONSTANT: plot.Style("#D55E00", "X"),
    DECAYING: plot.Style("#0072B2", "D"),
    WHOLE: plot.Style("#000000", "s"),
    OWN: plot.Style("#009E73", "^"),
    OTHER: plot.Style("#E69F00", "o"),
    DIFFERENCES: plot.Style("#CC79A7", "P"),
}
APART = 1e-6
"""Minima nearer than this, relative to ‖θ − φ*‖, are one."""


@dataclass(frozen=True)
class NoiseStudy:
    """The implicit gradient along stochastic runs to a unique minimum; tasks of the table are tasks times seeds."""

    source: TaskSource
    lam: float
    steps: tuple[int, ...]
    batch_size: int
    seeds: int
    tasks: int
    seed: int

    def run(self, progress: Progress = silent, *, backend: Any = None) -> Any:
        """Return `relative_error` over (solver, inner_steps, task)."""
        host(backend)
        problem, theta = draw(self.source, self.lam, self.tasks, self.seed)
        scene = solved(problem, theta)
        errors: dict[str, list[Any]] = {CONSTANT: [], DECAYING: [], WHOLE: []}
        for number in range(self.seeds):
            progress(f"minibatches {number}")
            constant = SGD(None, self.steps[-1], self.batch_size, self.seed + number, record=self.steps)
            noisy = constant(problem, theta)
            slower = replace(constant, decay=float(noisy.path.step_size.min()) * self.lam)
            whole = GradientDescent(None, self.steps[-1], record=self.steps)
            runs = {CONSTANT: noisy, DECAYING: slower(problem, theta), WHOLE: whole(problem, theta)}
            for name, run in runs.items():
                there = replace(run, value=run.path.points, path=None)
                gradient = ImplicitGradient(CG(100, 1e-13))(problem, theta, there).gradient
                errors[name].append(scene.error(gradient))
        values = np.stack([np.concatenate(each, axis=-1) for each in errors.values()])
        return dataset(
            self,
            {"relative_error": (("solver", "inner_steps", "task"), values), "condition": ("one", scene.condition)},
            {"solver": list(errors), "inner_steps": list(self.steps)},
            ran=f"{self.source.label}; λ = {self.lam:g}, {self.tasks} tasks × {self.seeds} seeds of minibatches of "
            f"{self.batch_size}, seed {self.seed}; K up to {self.steps[-1]}",
        )


@dataclass(frozen=True)
class BranchStudy:
    """Minima that stochastic runs lead to, and the implicit gradient on the way from there to the nearest one."""

    source: TaskSource
    lam: float
    sgd: SGD
    steps: tuple[int, ...]
    seeds: int
    tasks: int
    seed: int

    def run(self, progress: Progress = silent, *, backend: Any = None) -> Any:
        """Return `relative_error` over (against, inner_steps, task), tasks being tasks times seeds."""
        host(backend)
        problem, theta = draw(self.source, self.lam, self.tasks, self.seed)
        starts = []
        for number in range(self.seeds):
            progress(f"minibatches {number}")
            starts.append(replace(self.sgd, seed=self.seed + number)(problem, theta).value)
        theta = np.broadcast_to(theta, (self.seeds, *theta.shape))
        # Half the step of SGD: 1/M̄ is known at θ only, and too long for the sharpest of the minima.
        descent = GradientDescent(self.sgd.step_size / 2, self.steps[-1], record=self.steps)
        run = descent(problem, theta, start=np.stack(starts))
        progress("minima")
        scene = solved(problem, theta, start=run.value)
        gradient = ImplicitGradient(Cholesky(), require_minimum=False)(
            problem, theta, replace(run, value=run.path.points, path=None)
        ).gradient
        progress("differences")
        differences = FiniteDifferenceGradient(Newton())(problem, theta, scene.optimum).gradient
        phi, g = scene.optimum.value, scene.gradient
        size = norm(g)
        others, number = self._others(phi, norm(theta - phi))
        away = norm(gradient - g[others, np.arange(self.tasks)]) / size
        errors = np.stack([norm(gradient - g) / size, np.where(others < 0, np.nan, away)])
        return dataset(
            self,
            {
                "relative_error": (("against", "inner_steps", "task"), errors.reshape(2, len(self.steps), -1)),
                "difference_error": ("task", (norm(differences - g) / size).ravel()),
                "distance": (("inner_steps", "task"), scene.distance(run.path.points).reshape(len(self.steps), -1)),
                "test_loss": (("branch_seed", "one"), problem.outer.value(phi)),
                "minima": ("one", number),
                "condition": ("task", scene.condition.ravel()),
            },
            {"against": [OWN, OTHER], "inner_steps": list(self.steps)},
            ran=f"{self.source.label}, network; d = {self.source.size}, λ = {self.lam:g}, {self.tasks} tasks × "
            f"{self.seeds} seeds of {self.sgd!r}, seed {self.seed}; different minima found: "
            f"{', '.join(map(str, number))}; then gradient descent, K up to {self.steps[-1]}",
        )

    def _others(self, phi: Any, scale: Any) -> tuple[Any, Any]:
        """For each seed and task the next seed with another minimum, or −1; and the number of minima a task."""
        count = len(phi)
        apart = norm(phi[:, None] - phi[None]) > APART * scale
        others = np.full(phi.shape[:-1], -1)
        for i in range(count):
            for j in range(1, count):
                there = (i + j) % count
                others[i] = np.where((others[i] < 0) & apart[i, there], there, others[i])
        first = ~np.tril(~apart.transpose(2, 0, 1), -1).any(axis=-1)
        return others, first.sum(axis=-1)


def sweeps(quick: bool, seed: int) -> dict[str, Study]:
    """Softmax regression, whose minimum is unique, and a small network at a small λ."""
    steps = tuple(2**k for k in range(12 if quick else 15))
    network = Sinusoid(hidden=(8,))
    polish = tuple(2**k for k in range(14 if quick else 15))
    return {
        "unique": NoiseStudy(Digits(), 1.0, steps, 5, 2 if quick else 6, 2 if quick else 4, seed),
        "several": BranchStudy(network, 0.3, SGD(0.05, 400, 2, 0), polish, 6 if quick else 16, 3, seed),
    }


def draw_figure(tables: Mapping[str, Any]) -> Any:
    """Error over K for a unique minimum; error against own and other branches; gradients of all minima found."""
    figure, axes = plot.grid(2, height=2.6)
    first, second = axes[0]
    unique, several = tables["unique"], tables["several"]
    plot.plot_errors(unique, ax=first, series="solver", styles=STYLES)
    first.set_ylim(bottom=1e-6)
    steps, error = unique.inner_steps.values, unique.relative_error.sel(solver=DECAYING).median("task").values
    plot.slope_triangle(first, (float(steps[-5]), float(error[-5]) / 5), -0.5, decades=0.9)
    first.set_xlabel("inner steps K")
    plot.panel_title(first, 0, "unique minimum: digits, softmax")
    plot.plot_errors(several, ax=second, series="against", styles=STYLES)
    level = float(several.difference_error.median())
    second.axhline(level, color=STYLES[DIFFERENCES].color, linewidth=0.9, linestyle="--", label=DIFFERENCES)
    plot.floor_line(second, EPS * float(several.condition.median()), "rounding, eps·κ")
    second.set_ylim(1e-16, 30)
    second.set_xlabel("gradient steps K after SGD")
    plot.panel_title(second, 1, "several minima: sinusoid, MLP 1-8-1")
    first.set_ylabel("relative error of the meta-gradient")
    plot.shared_legend(figure, axes.ravel(), columns=4)
    return figure


def claims(tables: Mapping[str, Any]) -> list[Claim]:
    """The rate of the noise, and which branch the gradient belongs to."""
    unique, several = tables["unique"].relative_error, tables["several"]
    late = unique.inner_steps.values >= unique.inner_steps.values[-1] / 16
    slope = median_slope(np.log(unique.inner_steps.values), np.log(unique.sel(solver=DECAYING).values), late[:, None])
    constant = unique.sel(solver=CONSTANT).isel(inner_steps=[-5, -1]).median("task").values
    own, other = (several.relative_error.sel(against=each).isel(inner_steps=-1) for each in (OWN, OTHER))
    return [
        near("slope of the error over K, SGD with steps 1/k", slope, -0.5, 0.15, "Robbins and Monro 1951"),
        at_least("error of SGD with a constant step, last over 16 times fewer steps", constant[1] / constant[0], 0.7),
        at_least("minima found, fewest of all tasks", several.minima.min(), 2),
        at_most("error against the gradient of the branch found, median", own.median(), 1e-6),
        at_most(
            "finite differences along the branch against its gradient, median",
            several.difference_error.median(),
            1e-5,
        ),
        at_least("error against the gradients of other branches, median", other.median(), 0.05),
    ]


FIGURE = Figure(
    STEM,
    sweeps,
    draw_figure,
    claims=claims,
    reading="Lines are medians over tasks and seeds of the minibatches, bands the 10 to 90 % quantiles. Reference: "
    "φ* by Newton from the last iterate, g* there by dense\nCholesky; dashed: difference quotients of F with every "
    "inner solve started at that φ*.",
)
