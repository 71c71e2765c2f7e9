"""At a kink the formula is wrong however well everything is solved; away from kinks it is exact.

Claim. L_train = |φ| has its minimum at φ* = 0 for all |θ| < 1/λ: there dφ*/dθ = 0, but the second derivative that a
program sees is 0 as well, so that the implicit gradient is ∇L_test itself. Smoothed over a width β the gradient tends
to the true one, like β, and κ grows like 1/β. Minima of a ReLU network lie inside a region of one activation pattern,
where the implicit gradient is that of the network smoothed ever less; or at a kink, where the two stay apart. The
residual tells which: at a kink gradient descent jumps across it for ever.

Source. Bolte, Le, Pauwels, Silveti-Falls 2021 (conservative implicit differentiation) for what holds at kinks;
soft-thresholding for the closed form. The regression network of Finn et al. 2017 (MAML) has ReLU activations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from analysis.claims import Claim, at_least, at_most, near
from analysis.figure import Figure
from analysis.study import Progress, Study, dataset, draw, host, median_slope, silent
from implicit_grad import (
    BilevelProblem,
    Cholesky,
    GradientDescent,
    ImplicitGradient,
    LeastSquares,
    Linearization,
    Newton,
    Solution,
    Status,
    plot,
)
from implicit_grad.backend import norm
from implicit_grad.tasks import Sinusoid

STEM = "relu_kinks"
TRUE, FORMULA = "smoothed, tends to the truth", "formula at the kink"
INSIDE, KINK = "minimum inside a region", "minimum at a kink"
STYLES = {
    TRUE: plot.Style("#009E73", "^"),
    INSIDE: plot.Style("#0072B2", "D"),
    KINK: plot.Style("#D55E00", "X"),
}
SETTLED = 1e-8
"""Residual over ‖θ‖λ below which descent has come to rest."""


@dataclass(frozen=True)
class Modulus:
    """√(x² + β²), for β = 0 with the derivatives that a program sees: sign x and 0."""

    beta: float

    def value(self, x: Any) -> Any:
        """Return the value."""
        return np.hypot(x, self.beta).sum(axis=-1)

    def gradient(self, x: Any) -> Any:
        """Return x/√(x² + β²)."""
        return np.sign(x) if self.beta == 0 else x / np.hypot(x, self.beta)

    def linearize(self, x: Any) -> Linearization:
        """Return the value, the gradient and the product with the second derivative."""
        second = np.zeros_like(x) if self.beta == 0 else self.beta**2 / np.hypot(x, self.beta) ** 3
        return Linearization(self.value(x), self.gradient(x), lambda v: second * v)


@dataclass(frozen=True)
class SmoothedReLU:
    """β log(1 + e^(z/β)); for β = 0, max(z, 0) with the derivatives that a program sees."""

    beta: float

    def value(self, z: Any) -> Any:
        """Return the value."""
        smooth = self.beta * np.log1p(np.exp(-np.abs(z) / self.beta)) if self.beta else 0.0
        return np.maximum(z, 0) + smooth

    def derivatives(self, z: Any, a: Any) -> tuple[Any, Any]:
        """Return the first two derivatives."""
        if self.beta == 0:
            return (z > 0).astype(z.dtype), np.zeros_like(z)
        half = np.tanh(0.5 * z / self.beta)
        return 0.5 * (1 + half), 0.25 * (1 - half * half) / self.beta


@dataclass(frozen=True)
class ModulusStudy:
    """|g|/|∇L_test| at φ* of L_train = |φ|, for several θ whose minimum is the kink."""

    lam: float
    thetas: tuple[float, ...]
    betas: tuple[float, ...]

    def run(self, progress: Progress = silent, *, backend: Any = None) -> Any:
        """Return the ratio over (beta, task), and that of the formula at the kink."""
        host(backend)
        theta = np.array(self.thetas)[:, None]
        test = LeastSquares(np.ones((1, 1)), np.ones(1))
        ratios, conditions = [], []
        for beta in self.betas:
            progress(f"β = {beta:g}")
            problem = BilevelProblem(Modulus(beta), test, self.lam)
            found = Newton()(problem, theta)
            estimate = ImplicitGradient(Cholesky())(problem, theta, found)
            ratios.append(norm(estimate.gradient) / norm(test.gradient(found.value)))
            conditions.append(problem.curvature(found.value).dense()[..., 0, 0] / self.lam)
        kinked = BilevelProblem(Modulus(0.0), test, self.lam)
        at_kink = Solution(np.zeros_like(theta), np.zeros(len(theta)), 0, Status.CONVERGED, None)
        estimate = ImplicitGradient(Cholesky())(kinked, theta, at_kink)
        return dataset(
            self,
            {
                "ratio": (("estimator", "beta", "task"), np.array([ratios])),
                "condition": (("beta", "task"), np.array(conditions)),
                "at_kink": ("task", norm(estimate.gradient) / norm(test.gradient(at_kink.value))),
            },
            {"estimator": [TRUE], "beta": list(self.betas)},
            ran=f"L_train = |φ|, smoothed √(φ² + β²); λ = {self.lam:g}, θ = {', '.join(map(str, self.thetas))}",
        )


@dataclass(frozen=True)
class NetworkStudy:
    """Descent on a ReLU network, and its implicit gradient against those of smoothed networks."""

    hidden: tuple[int, ...]
    lam: float
    steps: tuple[int, ...]
    betas: tuple[float, ...]
    tasks: int
    seed: int

    def run(self, progress: Progress = silent, *, backend: Any = None) -> Any:
        """Return residuals over (inner_steps, task) and differences over (beta, task), both relative."""
        host(backend)
        problem, theta = self._draw(0.0)
        run = GradientDescent(0.2 / self.lam, self.steps[-1], record=self.steps)(problem, theta)
        estimate = ImplicitGradient(Cholesky(), require_minimum=False)(problem, theta, replace(run, path=None))
        residual = norm(problem.stationarity(run.path.points, theta)) / (self.lam * norm(theta))
        differences = []
        for beta in self.betas:
            progress(f"β = {beta:g}")
            smooth, _ = self._draw(beta)
            there = Newton(max_steps=300)(smooth, theta, start=run.value)
            g = ImplicitGradient(Cholesky())(smooth, theta, there).gradient
            differences.append(norm(estimate.gradient - g) / norm(g))
        return dataset(
            self,
            {
                "residual": (("inner_steps", "task"), residual),
                "difference": (("beta", "task"), np.stack(differences)),
                "inside": ("task", residual[-1] < SETTLED),
            },
            {"inner_steps": list(self.steps), "beta": list(self.betas)},
            ran=f"sinusoid, 10-shot, ReLU network 1-{'-'.join(map(str, self.hidden))}-1; d = {theta.shape[-1]}, "
            f"λ = {self.lam:g}, {self.tasks} tasks, seed {self.seed}; {int((residual[-1] < SETTLED).sum())} minima "
            f"inside a region; K = {self.steps[-1]}",
        )

    def _draw(self, beta: float) -> tuple[BilevelProblem, Any]:
        source = Sinusoid(hidden=self.hidden, activation=SmoothedReLU(beta))
        return draw(source, self.lam, self.tasks, self.seed)


def sweeps(quick: bool, seed: int) -> dict[str, Study]:
    """The modulus, and a network of one hidden layer."""
    steps = tuple(2**k for k in range(12 if quick else 14))
    betas = tuple(np.logspace(-1, -4, 4 if quick else 10).tolist())
    return {
        "modulus": ModulusStudy(1.5, (-0.6, -0.3, -0.1, 0.1, 0.3, 0.6), betas),
        "network": NetworkStudy((20,), 10.0, steps, betas, 12 if quick else 40, seed),
    }


def _groups(table: Any) -> Any:
    """Both kinds of minima along a new first axis, NaN where a task is of the other kind."""
    inside = table.inside.astype(bool)
    both = [table[["residual", "difference"]].where(inside), table[["residual", "difference"]].where(~inside)]
    return [each.isel(task=np.flatnonzero(mask)) for each, mask in zip(both, (inside, ~inside), strict=True)]


def draw_figure(tables: Mapping[str, Any]) -> Any:
    """The modulus over β; residuals of the network over K; its gradient against smoothed ones over β."""
    figure, axes = plot.grid(3, height=2.5)
    first, second, third = axes[0]
    for ax in (first, third):
        ax.invert_xaxis()
    modulus = tables["modulus"]
    plot.plot_errors(modulus, ax=first, x="beta", y="ratio", styles=STYLES)
    plot.theory_line(first, modulus.beta.values, np.ones(modulus.sizes["beta"]), FORMULA, linestyle="-")
    plot.slope_triangle(first, (1e-3, float(modulus.ratio.median("task").min()) / 2), 1, decades=1)
    for label, table in zip((INSIDE, KINK), _groups(tables["network"]), strict=True):
        style = STYLES[label]
        if table.sizes["task"]:
            plot.band(second, table.inner_steps.values, table.residual.values, label=label, style=style)
            plot.band(third, table.beta.values, table.difference.values, label=label, style=style)
    for ax in axes[0]:
        ax.set_xscale("log")
        ax.set_yscale("log")
    for ax, xlabel, ylabel in (
        (first, "smoothing β", "|g| / |∇L$_{test}$|; the truth is 0"),
        (second, "gradient steps K", "‖∇G‖ / λ‖θ‖"),
        (third, "smoothing β", "difference from smoothed, relative"),
    ):
        ax.set_xlabel(xlabel)
        ax.set_ylabel(ylabel)
    for column, title in enumerate(("L$_{train}$ = |φ|", "ReLU network 1-20-1", "ReLU network 1-20-1")):
        plot.panel_title(axes[0, column], column, title)
    plot.shared_legend(figure, axes.ravel(), columns=4)
    return figure


def claims(tables: Mapping[str, Any]) -> list[Claim]:
    """Wrong at kinks, right inside; what tells them apart."""
    modulus, network = tables["modulus"], tables["network"]
    ratio = modulus.ratio.isel(estimator=0).values
    slope = median_slope(np.log(modulus.beta.values), np.log(ratio), (modulus.beta.values < 0.02)[:, None])
    inside, kink = _groups(network)
    last = {"beta": -1}
    share = kink.sizes["task"] / network.sizes["task"]
    return [
        near("|φ|: slope of the smoothed gradient over β", slope, 1, 0.1),
        near("|φ|: the formula at the kink over ∇L_test, where the truth is 0", modulus.at_kink.max(), 1, 1e-12),
        at_least("ReLU network: share of tasks with their minimum at a kink", share, 0.25),
        at_most(
            "inside a region: difference from the least smoothed network, median",
            inside.difference.isel(last).median(),
            1e-6,
        ),
        at_least(
            "at a kink: difference from the least smoothed network, median",
            kink.difference.isel(last).median(),
            1e-2,
            "Bolte et al. 2021",
        ),
        at_least(
            "residual at a kink over the largest inside a region, median",
            kink.residual.isel(inner_steps=-1).median() / inside.residual.isel(inner_steps=-1).max(),
            1e3,
        ),
    ]


FIGURE = Figure(
    STEM,
    sweeps,
    draw_figure,
    claims=claims,
    reading="Lines are medians over θ (a) or tasks, bands the 10 to 90 % quantiles. Smoothed: max(z, 0) replaced by "
    "β log(1 + exp(z/β)), φ* by Newton from where descent\non the ReLU network ended, g by dense Cholesky there. "
    "There is no lemma here: the implicit function theorem needs a Lipschitz Hessian.",
)
