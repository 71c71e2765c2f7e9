"""Does the error of a meta-gradient matter? Where it is small against the gradient, training does not see it.

Claim. An error of a tenth of the gradient's length, whatever its direction, changes the loss that training reaches by
less than 5 %. An error against the gradient makes training 1/(1 − ε) times slower, stops it at ε = 1 and reverses it
beyond; one drawn anew for every task and step is averaged out even at ε = 1. Real estimators have errors with a
direction of their own: the first-order gradient, off by 0.7 to 3 times the length of the exact one,
costs little here, and CG-1, nearer to the exact one but too short, costs more.

Source. Rajeswaran et al. 2019 (arXiv:1909.04630), theorem 1: an ε-accurate meta-gradient suffices for a stationary
point up to ε; the descent inequality for a relative error below 1 is textbook knowledge.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.claims import Claim, at_least, at_most, near
from analysis.figure import Figure
from analysis.study import Progress, Study, dataset, draw, host, silent
from implicit_grad import CG, FirstOrderGradient, ImplicitGradient, Nesterov, plot
from implicit_grad.backend import norm
from implicit_grad.tasks import Digits, RandomRidge, Sinusoid, TaskSource

STEM = "training_vs_gradient_error"
FRESH, FIXED, AGAINST = "random, new every time", "random, always the same", "against the gradient"
STYLES = {
    FRESH: plot.Style("#0072B2", "D"),
    FIXED: plot.Style("#E69F00", "o"),
    AGAINST: plot.Style("#D55E00", "X"),
}
ESTIMATORS = {
    "CG-1": ImplicitGradient(CG(1), require_minimum=False),
    "CG-2": ImplicitGradient(CG(2), require_minimum=False),
    "CG-5": ImplicitGradient(CG(5), require_minimum=False),
    "first-order": FirstOrderGradient(),
}
MARKS = {
    "CG-1": plot.Style("#000000", "s"),
    "CG-2": plot.STYLES["CG-2"],
    "CG-5": plot.Style("#009E73", "^"),
    "first-order": plot.STYLES["first-order"],
}

LOST = 3
"""Times the first loss at which a run is given up."""


@dataclass(frozen=True)
class TrainingStudy:
    """Gradient descent on the mean of F over tasks, all runs at once, with errors of a given relative length."""

    source: TaskSource
    lam: float
    rate: float
    outer_steps: int
    inner_steps: int
    errors: tuple[float, ...]
    repeats: int
    tasks: int
    seed: int

    def run(self, progress: Progress = silent, *, backend: Any = None) -> Any:
        """Return final over first loss: over (kind, error, task), tasks being repeats, and of the estimators."""
        host(backend)
        problem, start = draw(self.source, self.lam, self.tasks, self.seed)
        kinds, shape = list(STYLES), (len(STYLES), len(self.errors), self.repeats)
        rng = np.random.default_rng(self.seed)
        size = start.shape[-1]
        fixed = _unit(rng.standard_normal((self.repeats, 1, size)))
        length = np.array(self.errors)[:, None, None, None]
        imposed, others = np.broadcast_to(start[0], (*shape, size)), np.stack([start[0]] * len(ESTIMATORS))
        clean, off = start[0], []
        losses = []
        for step in range(self.outer_steps + 1):
            progress(f"step {step}")
            loss, g = self._gradient(problem, imposed)
            other_loss, exact, approximate = self._estimates(problem, others)
            clean_loss, clean_gradient = self._gradient(problem, clean)
            losses.append((float(clean_loss), loss, other_loss))
            off.append((norm(approximate - exact) / norm(exact)).mean(axis=-1))
            fresh = _unit(rng.standard_normal(g.shape[1:]))
            along = np.stack([fresh, np.broadcast_to(fixed, g.shape[1:]), -_unit(g[kinds.index(AGAINST)])])
            wrong = g + length * norm(g)[..., None] * along
            # A run that is lost stays where it is: its loss has shown what there is to see.
            lost = loss > LOST * losses[0][0]
            imposed = np.where(lost[..., None], imposed, imposed - self.rate * wrong.mean(axis=-2))
            others = others - self.rate * approximate.mean(axis=-2)
            clean = clean - self.rate * clean_gradient.mean(axis=-2)
        first, (last, final, other) = losses[0][0], losses[-1]
        return dataset(
            self,
            {
                "loss": (("kind", "error", "task"), final / first),
                "estimator_loss": ("estimator", other / first),
                "estimator_error": ("estimator", np.median(off, axis=0)),
                "exact_loss": ("step", [each[0] / first for each in losses]),
            },
            {"kind": kinds, "error": list(self.errors), "estimator": list(ESTIMATORS)},
            ran=f"{self.source.label}; d = {size}, λ = {self.lam:g}, {self.tasks} tasks, seed {self.seed}; "
            f"{self.outer_steps} steps of length {self.rate:g}; {self.repeats} repeats; mean test loss from "
            f"{first:.3g} to {last:.3g} without an error; inner: Nesterov, K = {self.inner_steps}",
        )

    def _solve(self, problem: Any, theta: Any) -> tuple[Any, Any]:
        """The parameters of every run with each task, and the inner solution."""
        theta = np.repeat(theta[..., None, :], self.tasks, axis=-2)
        return theta, Nesterov(None, self.inner_steps)(problem, theta)

    def _gradient(self, problem: Any, theta: Any) -> tuple[Any, Any]:
        """Mean test loss of every run, and the meta-gradient of each task, to 1e-10."""
        theta, inner = self._solve(problem, theta)
        estimate = ImplicitGradient(CG(200, 1e-10), require_minimum=False)(problem, theta, inner)
        return problem.outer.value(inner.value).mean(axis=-1), estimate.gradient

    def _estimates(self, problem: Any, theta: Any) -> tuple[Any, Any, Any]:
        """The same with a run for each estimator, and what that estimator makes of it."""
        theta, inner = self._solve(problem, theta)
        exact = ImplicitGradient(CG(200, 1e-10), require_minimum=False)(problem, theta, inner).gradient
        found = [each(problem, theta, inner).gradient[i] for i, each in enumerate(ESTIMATORS.values())]
        return problem.outer.value(inner.value).mean(axis=-1), exact, np.stack(found)


def _unit(x: Any) -> Any:
    return x / norm(x)[..., None]


def sweeps(quick: bool, seed: int) -> dict[str, Study]:
    """Ridge, a small network, softmax regression."""
    errors = tuple(np.logspace(-3, 0.5, 8 if quick else 15).tolist())
    few, steps = (2, 30) if quick else (5, 100)
    ridge = RandomRidge(dim=20, train_samples=30, condition=100)
    network = Sinusoid(hidden=(20,))
    return {
        "ridge": TrainingStudy(ridge, 0.1, 2.0, steps, 80, errors, few, 8, seed),
        "sinusoid": TrainingStudy(network, 10.0, 0.1, steps, 40, errors, few, 8, seed),
        "digits": TrainingStudy(Digits(ways=3), 0.5, 2.0, steps, 40, errors, min(few, 4), 5, seed),
    }


TITLES = {"ridge": "ridge, d = 20", "sinusoid": "sinusoid, MLP 1-20-1", "digits": "digits 3-way, softmax"}


def draw_figure(tables: Mapping[str, Any]) -> Any:
    """Loss after training over the error, one panel a problem."""
    figure, axes = plot.grid(len(tables), height=2.4)
    for column, (name, table) in enumerate(tables.items()):
        ax = axes[0, column]
        plot.plot_errors(table, ax=ax, x="error", y="loss", series="kind", styles=STYLES)
        for label, style in MARKS.items():
            one = table.sel(estimator=label)
            ax.plot(
                float(one.estimator_error), float(one.estimator_loss), linestyle="none", marker=style.marker,
                color=style.color, markersize=5, markeredgecolor="white", markeredgewidth=0.3, label=label, zorder=4,
            )  # fmt: skip
        plot.floor_line(ax, float(table.exact_loss[-1]), "without an error")
        ax.set_yscale("linear")
        ax.set_ylim(0, 1.3)
        ax.set_xlabel("relative error of each meta-gradient")
        plot.panel_title(ax, column, TITLES[name])
    axes[0, 0].set_ylabel("mean test loss, after / before")
    plot.shared_legend(figure, axes.ravel(), columns=4)
    return figure


def claims(tables: Mapping[str, Any]) -> list[Claim]:
    """Small errors do not matter; where large ones do."""
    found = []
    for name, table in tables.items():
        exact, loss = float(table.exact_loss[-1]), table.loss.median("task")
        small = loss.sel(error=loss.error[loss.error <= 0.1001]).max() / exact
        opposed = loss.sel(kind=AGAINST)
        found += [
            at_most(f"{name}: loss with errors up to a tenth, over that without, largest", small, 1.05),
            near(
                f"{name}: loss after over before training, error as long as the gradient and against it",
                opposed.sel(error=1, method="nearest"),
                1,
                1e-6,
            ),
            at_least(f"{name}: the same, three times as long", opposed.isel(error=-1), 1),
            at_most(
                f"{name}: loss over that without an error, errors of full length drawn anew",
                loss.sel(kind=FRESH).sel(error=1, method="nearest") / exact,
                1.05,
            ),
            at_most(
                f"{name}: loss by the first-order gradient over that without an error",
                table.estimator_loss.sel(estimator="first-order") / exact,
                1.15,
            ),
            at_most(
                f"{name}: loss by CG-5 over that without an error",
                table.estimator_loss.sel(estimator="CG-5") / exact,
                1.02,
                "Rajeswaran et al. 2019: five steps",
            ),
        ]
    return found


FIGURE = Figure(
    STEM,
    sweeps,
    draw_figure,
    claims=claims,
    reading="Training is gradient descent on the mean of F over a fixed set of tasks; the error is ε times as long "
    "as the meta-gradient of its task, at every step.\nLines are medians over repeats, bands the 10 to 90 % "
    "quantiles. Single markers: an estimator at its own median error. Theorem 1 asks for a strongly convex G, which "
    "the network's is not.",
)
