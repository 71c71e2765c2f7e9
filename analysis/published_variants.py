"""What published variants of the implicit gradient compute, once everything in them has converged.

Claim. Solved exactly at φ*, the system that the authors' code solves, ((1 + 1)I + H/(λ + 10))g = v, is off by about a
half or more: for large λ in length only (g → v/2), for small λ in direction too, since H/(λ + 10) hardly bends
anything. The Hessian of the regularised loss with I added once more, 2I + H/λ, tends to v/2 as well. With the train
loss on the right-hand side, as in a popular article, no λ makes the gradient right: for λ → ∞ it is ∇L_train(θ), as
far from ∇L_test(θ) as the two samples are. The first-order gradient is right for large λ. Optimizers that ignore the
length of a gradient hide the first kind of error, not the others.

Source. aravindr93/imaml_dev, `matrix_evaluator` (regu_coef = 1, lam_damping = 10 by default) and
`omniglot_implicit_maml.py` (commit 29d3fcf); Rajeswaran et al. 2019 for the correct system; the popular article's
last two formulas for the right-hand side. The code's 16 plain steps with one step of the regulariser are a φ of their
own: dotted, with its five CG steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.claims import Claim, at_least, at_most, near
from analysis.figure import Figure
from analysis.study import Progress, Study, dataset, draw, hessian, host, silent, solved
from implicit_grad import CG, BilevelProblem, GradientDescent, plot
from implicit_grad.backend import norm
from implicit_grad.tasks import Digits, RandomRidge, Sinusoid, TaskSource

STEM = "published_variants"
REGULARISER, DAMPING, CODE_STEPS, CODE_CG = 1.0, 10.0, 16, 5
DAMPED, WHOLE, DOUBLE = "damped: 2I + H/(λ+10)", "damped, its inner loop, CG-5", "I added twice: 2I + H/λ"
TRAIN, SWAPPED, FIRST = "train loss on the right", "train and test swapped", "first-order"
STYLES = {
    DAMPED: plot.Style("#D55E00", "X"),
    WHOLE: plot.Style("#E69F00", "o"),
    DOUBLE: plot.Style("#0072B2", "D"),
    TRAIN: plot.Style("#009E73", "^"),
    SWAPPED: plot.Style("#000000", "s"),
    FIRST: plot.STYLES["first-order"],
}


@dataclass(frozen=True)
class VariantStudy:
    """Relative error and angle of every variant over λ."""

    source: TaskSource
    lams: tuple[float, ...]
    tasks: int
    seed: int

    def run(self, progress: Progress = silent, *, backend: Any = None) -> Any:
        """Return `relative_error` and `sine` (of the angle to g*) over (estimator, lam, task)."""
        host(backend)
        progress("reference")
        problem, theta = draw(self.source, np.array(self.lams)[:, None], self.tasks, self.seed)
        scene = solved(problem, theta, start=GradientDescent(None, 256)(problem, theta).value)
        progress("variants")
        phi, lam = scene.optimum.value, np.array(self.lams)[:, None]
        H, T = (hessian(problem, loss, phi) for loss in (problem.inner, problem.outer))
        v, u = problem.outer.gradient(phi), problem.inner.gradient(phi)
        found = {
            DAMPED: _solve(H, 1 + REGULARISER, lam + DAMPING, v),
            WHOLE: self._code(problem, theta, lam),
            DOUBLE: _solve(H, 2.0, lam, v),
            TRAIN: _solve(H, 1.0, lam, u),
            SWAPPED: _solve(T, 1.0, lam, u),
            FIRST: v,
        }
        gradients = np.stack(list(found.values()))
        exact = scene.gradient
        with np.errstate(invalid="ignore", divide="ignore"):
            along = np.sum(gradients * exact, axis=-1, keepdims=True) / np.sum(exact * exact, axis=-1, keepdims=True)
            sine = norm(gradients - along * exact) / norm(gradients)
            sine = np.where(along[..., 0] < 0, np.nan, sine)  # more than a right angle: no sine tells
        over = ("estimator", "lam", "task")
        return dataset(
            self,
            {
                "relative_error": (over, scene.error(gradients)),
                "sine": (over, sine),
                "cosine": (over, along[..., 0] * norm(exact) / norm(gradients)),
                "condition": (("lam", "task"), scene.condition),
            },
            {"estimator": list(found), "lam": list(self.lams)},
            ran=f"{self.source.label}; d = {self.source.size}, λ = {', '.join(f'{x:.3g}' for x in self.lams)}; "
            f"{self.tasks} tasks, seed {self.seed}; κ(A) at φ* from {np.nanmin(scene.condition):.3g} to "
            f"{np.nanmax(scene.condition):.3g}",
        )

    def _code(self, problem: BilevelProblem, theta: Any, lam: Any) -> Any:
        """The authors' program: plain steps, one step of the regulariser, five CG steps on the damped system."""
        plain = GradientDescent(None, CODE_STEPS, proximal=False)
        alpha = plain.alpha(problem, theta)[..., None]
        phi = plain(problem, theta).value
        phi = phi - alpha * lam[..., None] * (phi - theta)
        damped = problem.with_lam((1 + REGULARISER) * (lam + DAMPING))
        # (2I + H/s) g = v is (H + 2sI) q = v with g = s q.
        q = CG(CODE_CG)(damped.curvature(phi), problem.outer.gradient(phi)).value
        return (lam + DAMPING)[..., None] * q


def _solve(matrix: Any, shift: float, scale: Any, b: Any) -> Any:
    """(shift·I + M/scale)⁻¹ b, for symmetric M."""
    values, vectors = np.linalg.eigh(matrix)
    inside = np.einsum("...ij,...i->...j", vectors, b) / (shift + values / scale[..., None])
    return np.einsum("...ij,...j->...i", vectors, inside)


def sweeps(quick: bool, seed: int) -> dict[str, Study]:
    """Ridge, a small network, softmax regression."""
    count = 5 if quick else 13
    wide, narrow = (tuple(np.logspace(first, 4, count).tolist()) for first in (-2, 0))
    return {
        "ridge": VariantStudy(RandomRidge(50, 60, 60, 1e4), wide, 3 if quick else 12, seed),
        "sinusoid": VariantStudy(Sinusoid(hidden=(10, 10)), narrow, 3 if quick else 8, seed),
        "digits": VariantStudy(Digits(), wide, 2 if quick else 6, seed),
    }


def draw_figure(tables: Mapping[str, Any]) -> Any:
    """Error (top) and angle (bottom) over λ."""
    figure, axes = plot.grid(len(tables), 2, height=4.3)
    titles = {"ridge": "ridge, d = 50", "sinusoid": "sinusoid, MLP 1-10-10-1", "digits": "digits, softmax"}
    lines = {WHOLE: ":"}
    for column, (name, table) in enumerate(tables.items()):
        top, bottom = axes[:, column]
        plot.plot_errors(table, ax=top, x="lam", styles=STYLES, linestyles=lines)
        plot.plot_errors(table, ax=bottom, x="lam", y="sine", styles=STYLES, linestyles=lines)
        top.axhline(0.5, color="0.5", linewidth=0.7, zorder=1)
        top.set_ylim(1e-5, 30)
        bottom.set_ylim(5e-6, 2)
        bottom.set_xlabel("λ")
        plot.panel_title(top, column, titles[name])
        plot.panel_title(bottom, column + len(tables))
    axes[0, 0].annotate(
        "½", (1.0, 0.5), xycoords=("axes fraction", "data"), xytext=(2, 0), textcoords="offset points",
        va="center", color="0.4",
    )  # fmt: skip
    axes[0, 0].set_ylabel("relative error at φ*")
    axes[1, 0].set_ylabel("sine of the angle to ∇F")
    plot.shared_legend(figure, axes.ravel(), columns=3)
    return figure


def claims(tables: Mapping[str, Any]) -> list[Claim]:
    """Limits for large λ, and what the variants are worth at λ = 2 or the nearest drawn."""
    found = []
    code = "imaml_dev, matrix_evaluator"
    for name, table in tables.items():
        last = table.isel(lam=-1).median("task")
        near_two = table.isel(lam=int(np.abs(np.log(table.lam.values / 2)).argmin()))
        median = near_two.median("task")
        lam = f"λ = {float(near_two.lam):.3g}"
        wrong = abs(last.relative_error.sel(estimator=[DAMPED, DOUBLE]) - 0.5).max()
        found += [
            near(f"{name}: error of the damped and the doubled system for λ → ∞ (g → "
            f"v/2)", 0.5 + wrong, 0.5, 0.02, code),
            at_most(f"{name}: sine of the damped system's angle for λ → "
            f"∞", last.sine.sel(estimator=DAMPED), 0.05, code),
            at_least(
                f"{name}: error of the damped system, solved exactly at φ*, {lam}",
                median.relative_error.sel(estimator=DAMPED), 0.3, code,
            ),
            at_least(
                f"{name}: error with the train loss on the right, smallest median over λ",
                table.relative_error.sel(estimator=TRAIN).median("task").min(), 0.2, "popular article, last formulas",
            ),
            at_most(
                f"{name}: error of the first-order gradient at the largest "
                f"λ", last.relative_error.sel(estimator=FIRST), 0.05
            ),
        ]  # fmt: skip
    return found


FIGURE = Figure(
    STEM, sweeps, draw_figure, claims=claims,
    reading="Lines are medians over tasks, bands the 10 to 90 % quantiles. Reference: φ* by Newton from 256 steps of "
    "gradient descent,\ng* by dense Cholesky with refinement. Angles above 90° are left out below.",
)  # fmt: skip
